"""A node that is lost with a worker on it: the others are served as before, and its pod that never goes holds nothing up."""

from pathlib import Path

import pytest
from scene import TWO_TURNS_S, Scene, eventually
from worker_pod import WorkerPod, address, make_simulated, worker_pods

pytestmark = pytest.mark.cluster

WIDE, NARROW, MIDDLE = 32, 8, 16
"""The ceilings with 10, 70 and 50 % of 4 GiB kept free, at 600 MiB and 60 MiB an image."""


def test_a_worker_on_a_lost_node_costs_itself_alone(scene: Scene, tmp_path: Path) -> None:
    make_simulated(scene, 2)
    scene.operator()

    def told(ceiling: int, replicas: int, *pods: WorkerPod) -> bool:
        batch = scene.status.get("batch", {})
        works = [(pod.state["ceiling"]["ceiling"], pod.state["ceiling"]["granted"]) for pod in pods]
        return (batch.get("ceiling"), batch.get("appliedReplicas")) == (ceiling, replicas) and works == [
            (ceiling, True)
        ] * replicas

    with worker_pods(scene, 2, tmp_path) as pods:
        lost, kept = pods
        eventually("both work", lambda: told(WIDE, 2, *pods))
        template = scene.deployment["spec"]
        lost.lose()
        eventually("one is missed", lambda: scene.status.get("readyReplicas") == 1, TWO_TURNS_S)
        scene.server.merge(scene.path, {"spec": {"memory": {"headroomPercent": 70}}})
        eventually("the other is told as ever", lambda: told(NARROW, 1, kept), TWO_TURNS_S)

        # Kubernetes gives the worker up, and nobody on that node can end it: its pod is Terminating for as long as it takes.
        scene.server.request("DELETE", lost.path)
        assert scene.server.get(lost.path)["metadata"]["deletionTimestamp"]
        pods.append(WorkerPod(scene, "weld-2", address(3), tmp_path))
        eventually("the next one is told", lambda: told(NARROW, 2, *pods[1:]), TWO_TURNS_S)
        eventually("and all is well", lambda: scene.status.get("readyReplicas") == 2, TWO_TURNS_S)
        scene.server.merge(scene.path, {"spec": {"memory": {"headroomPercent": 50}}})
        eventually("what is wanted next waits for nobody", lambda: told(MIDDLE, 2, *pods[1:]), TWO_TURNS_S)
        assert scene.deployment["spec"] == template, "no other size, no rollout"
        scene.remove(lost.path)
