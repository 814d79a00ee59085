"""A second worker beside a lone one that is well used. Pure.

A rise that nothing tells of meets the workers that stand: whatever is decided then is there a start later. A lone worker has the
least to meet it with, and while it is moved or starts again nobody serves. So one that has been busier than
`secondWorkerLoadPercent` for a minute gets another, which stays until one alone would be clearly below that.

It is a reserve and takes nobody's place: none where workers share a device, whose memory the others need and whose speed does not
double; and where the scheduler has no place for one it is given up, and not tried again for a while.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from yolastic_operator.model import DemandInterval, Observation, PolicyState
from yolastic_operator.policy.forecast import CERTAIN, LOAD_WINDOW_S, SHORTEST_S, mean_per_s
from yolastic_operator.policy.workers import is_leaving

HALF_S: Final = 30.0
"""The demand of both halves of a minute counts, so that no burst orders a worker; seconds."""
BACK: Final = 0.75
"""The part of the percentage below which one alone is enough again."""
UNCERTAIN: Final = 2.0
"""Standard errors of a Poisson count by which it must be: with slow workers a calm moment is often noise."""
RETRY_S: Final = 600.0
"""Where there was no place none is ordered for so long, seconds."""


@dataclass(frozen=True, slots=True)
class Lone:
    """What counts beside the load of a lone worker."""

    per_s: float | None = None
    """The demand of a minute, of its lesser half, images/s; None: that is not known."""
    never: str = ""
    """Why there is to be no second one, in words."""
    not_now: str = ""
    """Why none is ordered, in words."""


UNKNOWN: Final = Lone()


def lone(state: PolicyState, *, shared: bool, now_s: float) -> Lone:
    """What is known in this turn; `state`: as `remember` left it, `shared`: the inference's workers share devices."""
    never = not_now = ""
    if shared:
        never = "its workers share devices"
    elif state.no_place_s == now_s:
        never = "the scheduler has no place for it"
    elif state.no_place_s is not None and now_s - state.no_place_s < RETRY_S:
        not_now = f"the scheduler had no place for one within {RETRY_S:.0f} s"
    return Lone(_of_a_minute(state.intervals, now_s), never, not_now)


def remember(state: PolicyState, observation: Observation, now_s: float) -> PolicyState:
    """The state with when the scheduler last had a place for one at most of those that are to be there."""
    there = [view.worker for view in observation.workers if not is_leaving(view)]
    homeless = sum(worker.unschedulable for worker in there)
    return replace(state, no_place_s=now_s) if homeless and len(there) - homeless <= 1 else state


def is_due(load: float, per_s: float, capacity_per_s: float, percent: int) -> bool:
    """Whether a lone one has been busier than this, beyond the noise of a Poisson count, and still is.

    Args:
        load: its load ratio now: after a fall that is all that counts.
        per_s: `Lone.per_s`.
        capacity_per_s: of one worker at its ceiling, images/s.
        percent: of its capacity.
    """
    share = percent / 100
    noise = CERTAIN * math.sqrt(share / (capacity_per_s * HALF_S))
    return load > share and per_s / capacity_per_s > share + noise


def kept_from(capacity_per_s: float | None, percent: int) -> float:
    """The load ratio of one alone from which on a second one that is there stays: clearly below the percentage, beyond noise.

    It is the load of `LOAD_WINDOW_S` and not of a minute: after a fall the size is to be what is needed at once, in one step.
    `capacity_per_s` None: nobody tells it, and no noise is allowed for.
    """
    least = BACK * percent / 100
    if capacity_per_s is None:
        return least
    return max(least - UNCERTAIN * math.sqrt(least / (capacity_per_s * LOAD_WINDOW_S)), 0.0)


def _of_a_minute(intervals: Sequence[DemandInterval], now_s: float) -> float | None:
    recent = [one for one in intervals if one.end_s > now_s - 2 * HALF_S]
    later = [one for one in recent if one.end_s > now_s - HALF_S]
    earlier = recent[: len(recent) - len(later)]
    if not earlier or not later or earlier[0].start_s > now_s - 2 * HALF_S or later[-1].end_s < now_s - SHORTEST_S:
        return None
    return min(mean_per_s(earlier), mean_per_s(later))
