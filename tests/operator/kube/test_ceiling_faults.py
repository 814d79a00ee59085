"""An operator that is killed while it changes the ceiling of real workers: the next one ends what it began."""

from pathlib import Path

import pytest
from scene import TWO_TURNS_S, Scene, eventually
from worker_pod import make_simulated, worker_pods

pytestmark = pytest.mark.cluster

WIDE, NARROW = 32, 8
"""The ceilings with 10 % and with 70 % of 4 GiB kept free, at 600 MiB and 60 MiB an image."""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_operator_killed_while_it_tells_a_ceiling_is_followed_by_one_that_tells_everybody(
    scene: Scene, tmp_path: Path, moment: str
) -> None:
    make_simulated(scene, 2)
    first = scene.operator()
    with worker_pods(scene, 2, tmp_path) as pods:

        def ceilings() -> list[tuple[int, bool]]:
            return [(pod.state["ceiling"]["ceiling"], pod.state["ceiling"]["granted"]) for pod in pods]

        def told(ceiling: int) -> bool:
            batch = scene.status.get("batch", {})
            return (batch.get("ceiling"), batch.get("appliedReplicas")) == (ceiling, 2)

        eventually("both work with the wide one", lambda: told(WIDE) and ceilings() == [(WIDE, True)] * 2)
        ordered = scene.deployment["spec"]

        def kill(method: str, path: str) -> None:
            if method == "PUT" and path == "/ceiling":
                first.kill()

        setattr(pods[0], moment, kill)
        scene.server.merge(scene.path, {"spec": {"memory": {"headroomPercent": 70}}})
        eventually("it is killed", lambda: first.poll() is not None)
        setattr(pods[0], moment, lambda method, path: None)
        assert all(ceiling in {WIDE, NARROW} for ceiling, _ in ceilings())
        scene.operator()
        # By now both may work with the narrow one, and then the start would be part of the two turns that the status has.
        eventually("the next one serves", lambda: b"serving" in scene.log(1).read_bytes())
        eventually("both work with the narrow one", lambda: ceilings() == [(NARROW, True)] * 2, TWO_TURNS_S)
        eventually("and the status says so", lambda: told(NARROW), TWO_TURNS_S)
        assert scene.deployment["spec"] == ordered, "nothing else was done"
