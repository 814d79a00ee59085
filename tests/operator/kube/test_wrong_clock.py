"""A host whose clock is set while its operator works: windows are spans of time, and nothing is put off for that."""

import time
from pathlib import Path
from typing import Any

import pytest
from scene import TWO_TURNS_S, Scene, eventually
from worker_pod import make_simulated, worker_pods

pytestmark = pytest.mark.cluster

ELASTIC = {"replicas": None, "autoscaling": {"minReplicas": 1, "maxReplicas": 3}}
"""Of two idle workers one would go, when the window of five minutes is over."""
CEILINGS = {10: 32, 50: 16, 70: 8}
"""By the per cent of 4 GiB that are kept free, at 600 MiB and 60 MiB an image."""
DAY_S = 86400


def test_a_clock_that_is_set_changes_nothing_and_what_is_asked_then_is_done(scene: Scene, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    make_simulated(scene, 2)
    process = scene.operator(clock=clock, CONTROL_TOKEN_DAYS="30")
    with worker_pods(scene, 2, tmp_path) as pods:

        def told(headroom: int) -> bool:
            ceiling = CEILINGS[headroom]
            works = [(pod.state["ceiling"]["ceiling"], pod.state["phase"]) for pod in pods]
            return scene.status.get("batch", {}).get("appliedReplicas") == 2 and works == [(ceiling, "Ready")] * 2

        def conditions() -> dict[str, tuple[Any, ...]]:
            found = scene.status["conditions"]
            return {one["type"]: (one["status"], one["reason"], one["lastTransitionTime"]) for one in found}

        eventually("both work", lambda: told(10))
        scene.server.merge(scene.path, {"spec": ELASTIC})
        eventually("it decides", lambda: conditions()["ScalingActive"][1] == "ValidMetrics")
        eventually("nothing is under way", lambda: conditions()["Progressing"][1] == "Stable")
        before, template = conditions(), scene.deployment["spec"]
        # An hour on, a day back, and so far on that the control token is too old.
        for wrong_s, headroom in ((3600, 70), (-DAY_S, 50), (40 * DAY_S, 10), (0, 70)):
            clock.write_text(str(wrong_s))
            time.sleep(1.5)  # some turns
            assert scene.deployment["spec"] == template, "no window is over, and nothing else is done"
            scene.server.merge(scene.path, {"spec": {"memory": {"headroomPercent": headroom}}})
            eventually(f"the ceiling is told, {wrong_s} s off", lambda headroom=headroom: told(headroom), TWO_TURNS_S)
        assert scene.deployment["spec"] == template
        assert conditions() == before, "nothing turned"
        assert process.poll() is None
