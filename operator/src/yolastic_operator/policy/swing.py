"""How much demand swings beyond chance, and the room that takes. Pure.

Images of many cameras that know nothing of each other come as a Poisson process does. Cameras that wake in groups, and whoever
sends what has gathered, make rates that go up and down from look to look by more than that. Taken for Poisson noise every other
swing is a step or a line, which orders workers for nothing, again and again; while a size for the mean has no room for the peaks.
So where demand swings half a minute tells no rise (`forecast.py`), and less load is aimed for.
"""

import math
from collections.abc import Sequence
from statistics import median
from typing import Final

from yolastic_operator.model import DemandInterval

LAG: Final = 2
"""Looks between the points of a bend: a rate that holds for some seconds is much the same from one to the next."""
FEWEST: Final = 24
"""Bends that tell something: the median of fewer is noise itself."""
CLEAR: Final = 4.0
"""So many times what chance makes of the bends is no chance."""
TOLERATED: Final = 0.1
"""By less than this share demand swings within the autoscaler's tolerance."""
ROOM: Final = 3.0
"""For each hundredth that it swings by more, workers are to be able to carry so many hundredths more than it is."""
LEAST: Final = 0.75
"""Of the target is aimed for, whatever it swings by."""
SAME: Final = 0.05
"""A swing larger or smaller by so little is the same: the target stands still."""
_NORMAL: Final = 0.4549
"""Median of the squares of a standard normal variable."""


def remember(known: float, intervals: Sequence[DemandInterval]) -> float:
    """What was known before, unless it is clearly another now; see `swing`."""
    now = swing(intervals)
    return known if now is None or abs(now - known) <= SAME else now


def swing(intervals: Sequence[DemandInterval]) -> float | None:
    """Standard deviation of a rate beyond a Poisson count's, as a share of it; 0 where none beyond `TOLERATED` is clear.

    None: too few looks tell of images.
    It is that of the bends of its logarithm, which neither a level nor a ramp has, by their median: a step counts for nothing.
    """
    threes = zip(intervals, intervals[LAG:], intervals[2 * LAG :], strict=False)
    known = [three for three in threes if all(one.images for one in three)]
    if len(known) < FEWEST:
        return None
    bends, chance = median(_bend(*three) ** 2 for three in known) / _NORMAL, median(_chance(*three) for three in known)
    found = math.sqrt((bends - chance) / 6) if bends > CLEAR * chance else 0.0  # a bend of independent rates: 1 + 4 + 1 times
    return found if found > TOLERATED else 0.0


def load_percent(target_percent: int, swing: float) -> int:
    """The load to aim for: the target, or less for the peaks of a swing."""
    room = 1.0 + ROOM * max(swing - TOLERATED, 0.0)
    return max(math.floor(target_percent / room), math.ceil(LEAST * target_percent))


def _bend(one: DemandInterval, two: DemandInterval, three: DemandInterval) -> float:
    return math.log(one.per_s * three.per_s / two.per_s**2)


def _chance(one: DemandInterval, two: DemandInterval, three: DemandInterval) -> float:
    return 1 / one.images + 4 / two.images + 1 / three.images
