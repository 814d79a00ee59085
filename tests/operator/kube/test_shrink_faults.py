"""An operator that is killed in the middle of a scale-down of real workers: the next one ends it with the same victim."""

from pathlib import Path

import pytest
from scene import TWO_TURNS_S, Scene, eventually
from worker_pod import WorkerPod, make_simulated, worker_pods

pytestmark = pytest.mark.cluster

COST = "controller.kubernetes.io/pod-deletion-cost"


@pytest.mark.parametrize(
    ("step", "moment"), [("/drain", "before"), ("/drain", "after"), ("/scale", "before"), ("/scale", "after")]
)
def test_an_operator_killed_in_a_scale_down_is_followed_by_one_that_takes_no_second_worker(
    scene: Scene, tmp_path: Path, step: str, moment: str
) -> None:
    make_simulated(scene, 3)
    first = scene.operator()
    with worker_pods(scene, 3, tmp_path) as pods:

        def draining() -> list[WorkerPod]:
            return [pod for pod in pods if pod.state["phase"] == "Draining"]

        def costs() -> dict[str, int]:
            there = {pod.path: scene.server.get(pod.path)["metadata"].get("annotations", {}) for pod in pods}
            return {path: int(annotations.get(COST, 0)) for path, annotations in there.items()}

        eventually("all serve", lambda: scene.right(3) and scene.status.get("readyReplicas") == 3)

        def kill(method: str, path: str) -> None:
            if method in {"POST", "PATCH"} and path.partition("?")[0].endswith(step) and first.poll() is None:
                first.kill()

        for door in (scene.proxy, *pods):
            setattr(door, moment, kill)
        scene.server.merge(scene.path, {"spec": {"replicas": 2}})
        eventually("it is killed", lambda: first.poll() is not None)
        for door in (scene.proxy, *pods):
            setattr(door, moment, lambda method, path: None)
        chosen = eventually("one was told to drain", draining)
        scene.operator()
        eventually("the smaller size is ordered", lambda: scene.size == 2, TWO_TURNS_S)
        assert draining() == chosen
        assert len(chosen) == 1
        there = costs()
        assert min(there, key=there.__getitem__) == chosen[0].path, "the cluster takes the one that has drained"
        # As the ReplicaSet's controller would.
        scene.remove(chosen[0].path)
        pods.remove(chosen[0])
        chosen[0].end()
        eventually("two serve, and it says so", lambda: scene.right(2) and scene.status.get("replicas") == 2, TWO_TURNS_S)
        assert not draining(), "the others were never asked"
