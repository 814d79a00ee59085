"""Demand as it will be when a worker that is ordered now is ready: the trend of the last minutes, where there is one.

Demand is counted between looks from the workers' own totals, so it has no window's delay and stays right while workers come and
go. Three things are told apart:

    noise   a change within a few standard errors of a Poisson count: no forecast
    step    the last interval alone is higher: that is the demand now, a standard error less, and it is not carried any further
    trend   a rise along a line: carried forward by the time a worker needs to become ready, to at most three times the demand

A line is looked for three times: over half a minute, where a steep rise shows soonest, and over two and over five minutes, where
rises do that are too slow to stand out from the noise of less. Without those a slow rise met workers that were too busy already.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

from yolastic_contract.state import WorkerState
from yolastic_operator.model import DemandInterval, Fresh, Observation, PolicyState, WorkerTotal
from yolastic_operator.policy.workers import is_serving

SHORTEST_S: Final = 4.0
"""Looks closer together make one interval."""
LOAD_WINDOW_S: Final = 15.0
"""The window of a worker's own rates: bounds what a worker seen for the first time can have been sent lately."""
CERTAIN: Final = 3.0
"""Standard errors of a Poisson count beyond which a step is no noise."""
STRAIGHT: Final = 4.0
"""A line explains the counts when they scatter about it as Poisson counts do, within so many standard errors of a variance."""
FEWEST: Final = 4
"""Intervals that a trend needs."""
HALF_S: Final = 30.0
"""Both halves of a minute tell what lasts, seconds."""
UNCERTAIN: Final = 2.0
"""Standard errors of a Poisson count by which that is less at most."""
MOST: Final = 3.0
"""A forecast is at most so many times the present demand."""
FIRST_LEAD_S: Final = 30.0
"""The time a worker needs to become ready, as long as none has told."""
LONGEST_LEAD_S: Final = 300.0
BETWEEN_TURNS_S: Final = 5.0
"""A rise is seen by the next turn: that late is the order."""
_KEPT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Window:
    """How far back a line is looked for, and what makes one."""

    seconds: float
    certain: float
    """Standard errors of Poisson counts beyond which a slope is no noise."""
    steep: float
    """Where counts scatter about the line by more than noise, the slope must be so many of its own standard errors."""


# Noise is beyond three standard errors in 23 looks of a day, and each time it would order a worker for nothing.
WINDOWS: Final = (
    # No step, however it falls within so few looks, is six standard errors steep.
    Window(30.0, certain=4.5, steep=6.0),
    # For what hides in noise: a bend that can be seen, as where a rise has ended, is no line.
    Window(120.0, certain=4.5, steep=math.inf),
    Window(300.0, certain=4.5, steep=math.inf),
)


@dataclass(frozen=True, slots=True)
class Forecast:
    """Demand to be ready for."""

    images_per_s: float
    now_per_s: float
    """Demand over the last interval."""
    lead_s: float
    """How far ahead it is; 0: a step, which is there already."""

    @property
    def is_trend(self) -> bool:
        """It goes on rising."""
        return self.lead_s > 0

    def __str__(self) -> str:
        if not self.is_trend:
            return f"demand has just risen to at least {self.images_per_s:.0f}/s"
        return f"demand will be {self.images_per_s:.0f}/s in {self.lead_s:.0f} s"


def remember(state: PolicyState, observation: Observation, now_s: float) -> PolicyState:
    """The state with what came since the last look; unchanged unless every serving worker has told its total."""
    if state.counted_s is not None and now_s - state.counted_s < SHORTEST_S:
        return state
    told = _told(observation)
    if told is None:
        return state
    known = {total.worker_id: total.images for total in state.totals}
    came = sum(_came(one, known.get(one.worker_id)) for one in told)
    totals = {total.worker_id: total for total in state.totals if now_s - total.seen_s <= _KEPT_S}
    totals |= {one.worker_id: WorkerTotal(one.worker_id, one.load.demand_images or 0, now_s) for one in told}
    intervals = tuple(past for past in state.intervals if past.start_s >= now_s - WINDOWS[-1].seconds - SHORTEST_S)
    if state.counted_s is not None:
        intervals = (*intervals, DemandInterval(state.counted_s, now_s, came))
    return replace(state, intervals=intervals, totals=tuple(totals.values()), counted_s=now_s)


def forecast(intervals: Sequence[DemandInterval], lead_s: float, now_s: float, *, swings: bool = False) -> Forecast | None:
    """What to be ready for; None when the demand does not rise beyond its noise.

    Where it swings beyond that (`swing.py`), the last half minute tells no rise: what rises along a line shows in more.
    """
    recent = _within(intervals, WINDOWS[0], now_s)
    if len(recent) < 2 or recent[-1].end_s < now_s - WINDOWS[0].seconds:
        return None
    latest_per_s = recent[-1].per_s
    found = []
    for window in WINDOWS[1:] if swings else WINDOWS:
        ahead_per_s = _along_the_line(_within(intervals, window, now_s), window, now_s + lead_s)
        if ahead_per_s is not None and ahead_per_s > latest_per_s:
            found.append(Forecast(min(ahead_per_s, MOST * latest_per_s), latest_per_s, lead_s))
    if not swings and _is_step(recent):
        last = recent[-1]
        found.append(Forecast(latest_per_s - math.sqrt(last.images) / last.seconds, latest_per_s, 0.0))
    return max(found, key=lambda one: one.images_per_s, default=None)


def is_known(intervals: Sequence[DemandInterval], now_s: float) -> bool:
    """Whether demand was looked at often enough lately to tell a rise along a line."""
    enough = any(len(_within(intervals, window, now_s)) >= FEWEST for window in WINDOWS)
    return enough and intervals[-1].end_s >= now_s - WINDOWS[0].seconds


def counted(intervals: Sequence[DemandInterval], now_s: float, certain: float = CERTAIN) -> float | None:
    """Demand over the workers' own window as it was counted, images/s, noise allowed for; None when that is not known.

    The workers' own rates count twice what one of them was sent before another joined, for as long as their window lasts, and
    not at all what one was sent that has gone since. `certain`: standard errors of noise.
    """
    recent = [one for one in intervals if one.end_s > now_s - LOAD_WINDOW_S]
    if not recent or recent[0].start_s > now_s - LOAD_WINDOW_S or recent[-1].end_s < now_s - SHORTEST_S:
        return None
    images, seconds = sum(one.images for one in recent), sum(one.seconds for one in recent)
    return (images + certain * math.sqrt(images)) / seconds


def mean_per_s(intervals: Sequence[DemandInterval]) -> float:
    """Demand over some intervals, images/s; at least one."""
    return sum(one.images for one in intervals) / sum(one.seconds for one in intervals)


def of_a_minute(intervals: Sequence[DemandInterval], now_s: float) -> float | None:
    """Demand of the lesser half of the last minute, images/s: no burst moves it. None when that is not known."""
    recent = [one for one in intervals if one.end_s > now_s - 2 * HALF_S]
    later = [one for one in recent if one.end_s > now_s - HALF_S]
    earlier = recent[: len(recent) - len(later)]
    if not earlier or not later or earlier[0].start_s > now_s - 2 * HALF_S or later[-1].end_s < now_s - SHORTEST_S:
        return None
    return min(mean_per_s(earlier), mean_per_s(later))


def steady(intervals: Sequence[DemandInterval], now_s: float) -> float | None:
    """What the demand of a minute is at least, noise allowed for, images/s; None when that is not known."""
    per_s = of_a_minute(intervals, now_s)
    return None if per_s is None else max(per_s - UNCERTAIN * math.sqrt(per_s / HALF_S), 0.0)


def lead_s(observation: Observation) -> float:
    """From a rise in demand to the first image of a worker that is ordered for it, seconds: the median of those that serve."""
    known = []
    for view in observation.workers:
        if not is_serving(view) or not isinstance(view.state, Fresh):
            continue
        state = view.state.value
        if state.ready_after_s is not None:
            # A container that was started again is younger than its pod: that is no time it took to start.
            waited_s = state.started_s - view.worker.created_s
            known.append(state.ready_after_s + (waited_s if 0 <= waited_s <= LONGEST_LEAD_S else 0.0))
    return (min(median(known), LONGEST_LEAD_S) if known else FIRST_LEAD_S) + BETWEEN_TURNS_S


def _told(observation: Observation) -> list[WorkerState] | None:
    told = []
    for view in observation.workers:
        if isinstance(view.state, Fresh) and view.state.value.phase in {"Ready", "Draining"}:
            if view.state.value.load.demand_images is None:
                return None
            told.append(view.state.value)
        elif is_serving(view):
            return None
    return told


def _came(state: WorkerState, before: int | None) -> int:
    """Images since the last look; of a worker seen for the first time at most what came within its own window."""
    total = state.load.demand_images or 0
    if before is not None:
        return max(total - before, 0)
    return min(total, math.ceil((state.load.arrived_per_s + state.load.refused_per_s) * LOAD_WINDOW_S))


def _within(intervals: Sequence[DemandInterval], window: Window, now_s: float) -> list[DemandInterval]:
    return [one for one in intervals if one.start_s >= now_s - window.seconds - SHORTEST_S]


def _is_step(recent: Sequence[DemandInterval]) -> bool:
    """The last interval is beyond the noise of those before it."""
    *before, last = recent
    before = [one for one in before if one.end_s > last.start_s - LOAD_WINDOW_S]
    if not before:
        return False
    before_s = sum(one.end_s - one.start_s for one in before)
    before_images = sum(one.images for one in before)
    per_s = (before_images + last.images) / (before_s + last.seconds)
    error_per_s = math.sqrt(per_s * (1 / last.seconds + 1 / before_s))
    return last.per_s - before_images / before_s > CERTAIN * error_per_s


def _along_the_line(recent: Sequence[DemandInterval], window: Window, then_s: float) -> float | None:
    """The least-squares line through the rates, carried forward; None when it does not rise, or is none."""
    if len(recent) < FEWEST:
        return None
    middles_s = [(one.start_s + one.end_s) / 2 for one in recent]
    mean_s = sum(middles_s) / len(recent)
    mean_per_s = sum(one.per_s for one in recent) / len(recent)
    spread = sum((at_s - mean_s) ** 2 for at_s in middles_s)
    slope = sum((at_s - mean_s) * one.per_s for at_s, one in zip(middles_s, recent, strict=True)) / spread
    noise = sum(max(one.images, 1) / one.seconds**2 for one in recent) / len(recent)
    if slope <= window.certain * math.sqrt(noise / spread):
        return None
    off = [one.per_s - mean_per_s - slope * (at_s - mean_s) for at_s, one in zip(middles_s, recent, strict=True)]
    scatter = sum(value * value for value in off) / (len(recent) - 2)
    bent = scatter > noise * (1 + STRAIGHT * math.sqrt(2 / (len(recent) - 2)))
    if bent and slope <= window.steep * math.sqrt(scatter / spread):
        return None
    return mean_per_s + slope * (then_s - mean_s)
