"""A second worker beside a lone one that is well used. Pure.

A rise that nothing tells of meets the workers that stand: whatever is decided then is there a start later. A lone worker has the
least to meet it with, and while it is moved or starts again nobody serves. So one that has been busier than
`secondWorkerLoadPercent` for a minute gets another, which stays until one alone would be clearly below that.

It is a reserve and takes nobody's place: none where workers share a device, whose memory the others need and whose speed does not
double; and where the scheduler has no place for one it is given up and tried again ever more rarely: whether there is a place now
cannot be seen from here, and a size that comes and goes under a constant load would be news each time. Where another inference
has too few workers and waits for a device of the same kind (`places.py`), it is given up at once, without the scale-down window.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from yolastic_operator.model import DemandInterval, Observation, PolicyState
from yolastic_operator.policy.forecast import CERTAIN, HALF_S, LOAD_WINDOW_S, SHORTEST_S, WINDOWS, mean_per_s, of_a_minute
from yolastic_operator.policy.workers import is_leaving, is_serving

BACK: Final = 0.75
"""The part of the percentage below which one alone is enough again."""
UNCERTAIN: Final = 2.0
"""Standard errors of a Poisson count by which it must be: with slow workers a calm moment is often noise."""
LONG_S: Final = WINDOWS[-1].seconds
"""Slow workers get too few images in a moment to tell a load from none: the mean of so long counts then, seconds."""
MOST_NOISE: Final = 0.5
"""No more than this part of a load is ever taken for noise, or no calm would be calm enough."""
RETRY_S: Final = 600.0
"""Where there was no place none is ordered for so long, seconds; each time in vain doubles it."""
LONGEST_RETRY_S: Final = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Lone:
    """What counts beside the load of a lone worker."""

    per_s: float | None = None
    """The demand of a minute, of its lesser half, images/s; None: that is not known."""
    long_per_s: float | None = None
    """The mean demand of `LONG_S`; None: that is not known."""
    never: str = ""
    """Why there is to be no second one, in words."""
    gives_up: str = ""
    """The reason if one that is there goes for that: `NO_PLACE`, `GIVES_WAY`."""
    not_now: str = ""
    """Why none is ordered, in words."""


NO_PLACE: Final = "NoPlaceForSecond"
GIVES_WAY: Final = "GivesWay"
UNKNOWN: Final = Lone()


def lone(state: PolicyState, *, shared: bool, now_s: float, wanted_by: str = "") -> Lone:
    """What is known in this turn.

    Args:
        state: as `remember` left it.
        shared: the inference's workers share devices.
        now_s: seconds, on the clock of the state.
        wanted_by: another inference that waits for a device (`Places.wanted_by`).
    """
    never = not_now = gives_up = ""
    if shared:
        never = "its workers share devices"
    elif wanted_by:
        never, gives_up = f"{wanted_by} has too few workers and waits for a device", GIVES_WAY
    elif state.no_place_s == now_s:
        never, gives_up = "the scheduler has no place for a second one", NO_PLACE
    elif state.no_place_s is not None and now_s - state.no_place_s < _retry_s(state.no_places):
        not_now = f"there was no place for one within the last {_retry_s(state.no_places) / 60:.0f} minutes"
    return Lone(of_a_minute(state.intervals, now_s), _of_long(state.intervals, now_s), never, gives_up, not_now)


def remember(state: PolicyState, observation: Observation, now_s: float, wanted_by: str = "") -> PolicyState:
    """The state with when there last was a place for one at most of those that are to be there, and how often."""
    if wanted_by:  # it is the other's, for long enough to show whether it will do
        return replace(state, no_place_s=now_s, no_places=max(state.no_places, 1))
    there = [view.worker for view in observation.workers if not is_leaving(view)]
    homeless = sum(worker.unschedulable for worker in there)
    if homeless and len(there) > 1 and len(there) - homeless <= 1:
        is_another = state.no_place_s is None or now_s - state.no_place_s >= RETRY_S
        return replace(state, no_place_s=now_s, no_places=state.no_places + is_another)
    if state.no_places and sum(is_serving(view) for view in observation.workers) > 1:
        return replace(state, no_place_s=None, no_places=0)
    return state


def no_places(gave_up_s: Sequence[float]) -> PolicyState:
    """The state after a restart, of when second ones were given up: they are not asked for sooner for it."""
    if not gave_up_s:
        return PolicyState()
    times = sorted(gave_up_s)
    pause_s = times[-1] - times[-2] if len(times) > 1 else 0.0  # not all of them need be known any more
    before = 1 + int(math.log2(pause_s / RETRY_S)) if pause_s >= RETRY_S else 0
    return PolicyState(no_place_s=times[-1], no_places=max(before + 1, len(times)))


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


def is_kept(load: float, lone: Lone, capacity_per_s: float | None, percent: int) -> tuple[bool, str]:
    """Whether a second one that is there stays, and why, in words: one alone would not be clearly below the percentage.

    It is the load now that counts: after a fall the size is to be what is needed at once, in one step. Where so few images tell
    nothing, it is what came within minutes.

    Args:
        load: the load ratio of one alone, of `LOAD_WINDOW_S`.
        lone: what came before.
        capacity_per_s: of one worker at its ceiling, images/s; None: nobody tells it, and no noise is allowed for.
        percent: of its capacity.
    """
    least, lately = BACK * percent / 100, ""
    noise = 0.0 if capacity_per_s is None else _noise(least, capacity_per_s, LOAD_WINDOW_S)
    if capacity_per_s is not None and noise > MOST_NOISE * least:
        if lone.long_per_s is None:
            return True, "not known what came within minutes"
        load = max(load - _noise(load, capacity_per_s, LOAD_WINDOW_S), max(lone.long_per_s, lone.per_s or 0.0) / capacity_per_s)
        noise, lately = min(_noise(least, capacity_per_s, LONG_S), MOST_NOISE * least), ", over minutes"
    stays = load >= least - noise
    return stays, f"1 worker alone would carry {load:.2f}{lately}, {'not ' if stays else ''}below {least - noise:.2f}"


def _noise(load: float, capacity_per_s: float, seconds: float) -> float:
    return UNCERTAIN * math.sqrt(load / (capacity_per_s * seconds))


def _retry_s(times: int) -> float:
    return min(RETRY_S * 2.0 ** min(max(times - 1, 0), 16), LONGEST_RETRY_S)


def _of_long(intervals: Sequence[DemandInterval], now_s: float) -> float | None:
    recent = [one for one in intervals if one.end_s > now_s - LONG_S]
    if not recent or recent[0].start_s > now_s - 0.9 * LONG_S or recent[-1].end_s < now_s - SHORTEST_S:
        return None
    return mean_per_s(recent)
