"""Liveness is progress, not idleness."""

import pytest

from yolastic_worker.health import Progress, stalled
from yolastic_worker.lifecycle import Lifecycle


@pytest.mark.parametrize(
    ("progress", "heartbeat_age_s", "now_s", "dead"),
    [
        (None, 0, 1000, False),
        (Progress(0, 0, 0, 0.1), 0, 1e6, False),
        (Progress(5, 8, 100, 0.1), 0, 105, False),
        (Progress(5, 0, 100, 0.1), 0, 110.5, True),
        (Progress(0, 8, 100, 0.1), 0, 110.5, True),
        (Progress(0, 8, 100, 4.0), 0, 139, False),
        (Progress(0, 8, 100, 4.0), 0, 141, True),
        (None, 31, 0, True),
        (Progress(0, 0, 0, 0.1), 31, 0, True),
        (Progress(0, 0, 0, 0.1, finishing_since_s=100), 0, 109, False),
        (Progress(0, 0, 0, 0.1, finishing_since_s=100), 0, 111, True),
        (Progress(256, 8, 100, 0.1), 0, 109, False),
    ],
)
def test_stalled(progress: Progress | None, heartbeat_age_s: float, now_s: float, dead: bool) -> None:
    reason = stalled(progress, heartbeat_age_s, now_s)
    assert (reason is not None) is dead


def test_phases_only_go_forward() -> None:
    life = Lifecycle()
    assert life.phase == "Starting"
    assert life.ready()
    assert not life.ready()
    assert life.ready_after_s is not None
    assert life.drain()
    assert not life.drain()
    assert not life.ready()
    life.fail("the device is gone")
    assert (life.phase, life.drain(), life.phase) == ("Failed", False, "Failed")
    early = Lifecycle()
    assert early.drain()
    assert not early.ready()
    assert early.ready_after_s is None
