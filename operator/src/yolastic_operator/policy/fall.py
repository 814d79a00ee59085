"""Demand that fell at once: a switch, a network, a line that stopped. Pure.

What falls along a line comes back along one, and the forecast sees that in time. What falls at once from a steady demand may come
back at once, and then its workers would have to start first. So the demand before counts for a while as if it were there, and the
size is no smaller than it needs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from yolastic_operator.model import DemandInterval
from yolastic_operator.policy.forecast import CERTAIN, SHORTEST_S, mean_per_s

LOST: Final = 1 / 3
"""The least part of the demand whose loss is a fall; beyond noise."""
STEADY_S: Final = 30.0
"""So long before a fall the demand was steady, seconds."""
STEADY: Final = 0.9
"""It was when the later half of that was at least so much of the earlier, a standard error allowed for."""
_LOOKS: Final = math.ceil(STEADY_S / SHORTEST_S)
"""There are no more in that time; this is asked in every turn."""


@dataclass(frozen=True, slots=True)
class Fall:
    """A demand that was there."""

    before_per_s: float
    """Images/s."""
    ago_s: float

    def __str__(self) -> str:
        return f"demand fell at once from {self.before_per_s:.0f}/s {self.ago_s:.0f} s ago and may come back so"


def deepest(intervals: Sequence[DemandInterval], within_s: float, now_s: float) -> Fall | None:
    """The fall from the largest demand within so many seconds; None where there was none.

    A fall may begin within a look: so what is compared lies one look apart.
    """
    found = []
    for number, after in enumerate(intervals[2:], 2):
        if after.end_s <= now_s - within_s:
            continue
        ends_s = intervals[number - 2].end_s
        looks = intervals[max(number - 1 - _LOOKS, 0) : number - 1]
        before = [one for one in looks if one.start_s >= ends_s - STEADY_S]
        if before and _is_lost(mean_per_s(before), after) and _is_steady(before):
            found.append(Fall(mean_per_s(before), now_s - after.start_s))
    return max(found, key=lambda fall: fall.before_per_s, default=None)


def _is_steady(before: Sequence[DemandInterval]) -> bool:
    if len(before) < 2 or before[-1].end_s - before[0].start_s < STEADY_S - SHORTEST_S:
        return False
    half = len(before) // 2
    later = before[half:]
    error_per_s = math.sqrt(sum(one.images for one in later)) / sum(one.seconds for one in later)
    return mean_per_s(later) + error_per_s >= STEADY * mean_per_s(before[:half])


def _is_lost(before_per_s: float, after: DemandInterval) -> bool:
    most = (1 - LOST) * before_per_s * after.seconds
    return after.images < most - CERTAIN * math.sqrt(most)
