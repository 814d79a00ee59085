"""How much demand swings beyond chance, and the room that takes. Pure.

Images of many cameras that know nothing of each other come as a Poisson process does. Cameras that wake in groups, and whoever
sends what has gathered, make rates that go up and down every ten seconds or more by more than that. Taken for Poisson noise every
other swing is a step or a line, which orders workers for nothing, again and again; while a size for the mean has no room for the
peaks. So where demand swings half a minute tells no rise (`forecast.py`), and less load is aimed for.
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
STAYS: Final = 0.7
"""A swing that is there ends at so much less than one begins with, or one at the edge would come and go."""
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
    """What was known before, unless it is clearly another now; see `swing`. In whole hundredths, as the status has it.

    The last look is not in it: what it tells of a rise would hide that.
    """
    now = swing(intervals[:-1], STAYS if known else 1.0)
    return known if now is None or abs(now - known) <= SAME else round(now, 2)


def swing(intervals: Sequence[DemandInterval], part: float = 1.0) -> float | None:
    """Standard deviation of a rate beyond a Poisson count's, as a share of it; 0 where none beyond `TOLERATED` is clear.

    It is that of the bends of its logarithm, which neither a level nor a ramp has, by their median: a step counts for nothing.
    None: there are too few looks; but those that tell of no images tell of no swing. `part`: of what makes it clear.
    """
    threes = tuple(zip(intervals, intervals[LAG:], intervals[2 * LAG :], strict=False))
    if len(threes) < FEWEST:
        return None
    known = [three for three in threes if all(one.images for one in three)]
    if len(known) < FEWEST:
        return 0.0
    bends, chance = median(_bend(*three) ** 2 for three in known) / _NORMAL, median(_chance(*three) for three in known)
    if bends <= part * CLEAR * chance:
        return 0.0
    found = math.sqrt((bends - chance) / 6)  # of three independent rates a bend has the variance of 1 + 4 + 1
    return found if found > part * TOLERATED else 0.0


def words(swing: float) -> str:
    """As it is told."""
    return f"demand swings by {swing * 100:.0f} %"


def load_percent(target_percent: int, swing: float) -> int:
    """The load to aim for: the target, or less for the peaks of a swing."""
    room = 1.0 + ROOM * max(swing - TOLERATED, 0.0)
    return max(math.floor(target_percent / room), math.ceil(LEAST * target_percent))


def _bend(one: DemandInterval, two: DemandInterval, three: DemandInterval) -> float:
    return math.log(one.per_s) + math.log(three.per_s) - 2 * math.log(two.per_s)


def _chance(one: DemandInterval, two: DemandInterval, three: DemandInterval) -> float:
    return 1 / one.images + 4 / two.images + 1 / three.images
