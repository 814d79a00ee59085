"""Liveness is progress: work is there and no batch began or ended for several times the slowest known batch -> dead.

The canary is work like any other, so a device that hangs while nobody asks is found too.
"""

from dataclasses import dataclass
from typing import Final

_SLOWEST_BATCHES: Final = 10.0
_LEAST_S: Final = 10.0
_HEARTBEAT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Is the engine getting on? For liveness."""

    waiting: int
    running: int
    last_s: float
    """Monotonic: when a batch last began or ended, or the wait for one began."""
    slowest_s: float
    """The slowest batch known, warm-up included."""
    finishing_since_s: float | None = None
    """Monotonic: since when the boxes of one batch are being computed; None: of none."""


def stalled(progress: Progress | None, heartbeat_age_s: float, now_s: float) -> str | None:
    """Why the worker is to be restarted, or None while it gets on. `now_s`: monotonic, as in `progress`."""
    if heartbeat_age_s > _HEARTBEAT_S:
        return f"the data port has not answered to itself for {heartbeat_age_s:.0f} s"
    if progress is None:
        return None
    limit_s = max(_LEAST_S, _SLOWEST_BATCHES * progress.slowest_s)
    finishing_s = 0.0 if progress.finishing_since_s is None else now_s - progress.finishing_since_s
    if finishing_s > limit_s:
        return f"the boxes of one batch have been under way for {finishing_s:.1f} s"
    idle_s = now_s - progress.last_s if progress.waiting or progress.running else 0.0
    if idle_s > limit_s:
        return f"images wait and no batch has ended for {idle_s:.1f} s; the slowest known took {progress.slowest_s:.3f} s"
    return None
