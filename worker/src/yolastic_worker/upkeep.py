"""What the engine thread does beside batches, and when. Pure; the clock is passed in."""

from enum import Enum, auto
from math import inf
from typing import Final

CANARY_EVERY_S: Final = 30.0
_OVERDUE_S: Final = 300.0
"""An engine that is never idle is asked nevertheless, this long after the last time: it costs one image in minutes."""
_TRIAL_LATE_S: Final = 30.0
"""A trial waits only so long for a quiet moment: an engine that is never idle is the one that needs its batch size back."""


class Chore(Enum):
    """One job between two batches."""

    SHRINK = auto()
    """Give memory back."""
    CANARY = auto()
    """Ask the question whose answer is known."""
    TRIAL = auto()
    """Try the batch size that ran out of memory."""


class Upkeep:
    """Chores in the order of their weight: memory that was promised away, then a device in doubt, the rest when nobody waits."""

    def __init__(self, now_s: float, *, canary: bool) -> None:
        self._asked_s = now_s if canary else inf
        self._shrink = False
        self._doubt = False
        self.canary_s: float | None = now_s if canary else None
        """When the engine last answered the canary rightly; at first the warm-up."""

    def want_shrink(self) -> None:
        """Memory is to be given back before the next batch."""
        self._shrink = True

    def doubt(self) -> None:
        """An answer was no answer: ask the canary before the next batch."""
        self._doubt = True

    def next(self, now_s: float, *, idle: bool, trial_at_s: float) -> Chore | None:
        """The chore to do before the next batch, which counts as begun; None: none now."""
        canary_late_s, trial_late_s = (0.0, 0.0) if idle else (_OVERDUE_S - CANARY_EVERY_S, _TRIAL_LATE_S)
        if self._shrink:
            self._shrink = False
            return Chore.SHRINK
        if self.canary_s is not None and (self._doubt or now_s >= self._asked_s + CANARY_EVERY_S + canary_late_s):
            self._asked_s, self._doubt = now_s, False
            return Chore.CANARY
        if now_s >= trial_at_s + trial_late_s:
            return Chore.TRIAL
        return None

    def wake_s(self, trial_at_s: float) -> float:
        """When an idle engine has a chore again; infinite when it has none."""
        return min(self._asked_s + CANARY_EVERY_S, trial_at_s)

    def sang(self, now_s: float) -> None:
        """The canary was answered rightly."""
        self.canary_s = self._asked_s = now_s
