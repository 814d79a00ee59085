"""Stabilisation windows and rate policies of `autoscaling/v2`, exactly as Kubernetes 1.34 applies them.

Source: `horizontal.go` (stabilizeRecommendation*, convertDesiredReplicas*, storeScaleEvent) and `autoscaling/v2/defaults.go`.
"""

import math
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final, Literal

from yolastic_contract.behavior import Behavior, ScalingRules
from yolastic_contract.quantity import parse_quantity
from yolastic_operator.model import Recommendation, ScaleEvent
from yolastic_operator.policy.hpa import MAX_INT32, Tolerances

SYNC_PERIOD_S: Final = 15.0
"""How often the Horizontal Pod Autoscaler decides; without behavior its limit on growth is for one such period."""
DEFAULT_TOLERANCE: Final = 0.1
DOWNSCALE_WINDOW_S: Final = 300.0

LimitedReason = Literal["DesiredWithinRange", "ScaleUpLimit", "ScaleDownLimit", "TooManyReplicas", "TooFewReplicas"]


@dataclass(frozen=True, slots=True)
class Rate:
    """How much may change within a period."""

    type: Literal["Pods", "Percent"]
    value: int
    period_s: float


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules of one direction with the defaults filled in."""

    window_s: float
    select: Literal["Max", "Min", "Disabled"]
    rates: tuple[Rate, ...]

    @property
    def longest_period_s(self) -> float:
        """The longest period any of its rates looks back."""
        return max((rate.period_s for rate in self.rates), default=0.0)


@dataclass(frozen=True, slots=True)
class Clamped:
    """A size after windows, rates and bounds, and what cut it."""

    replicas: int
    reason: LimitedReason
    """DesiredWithinRange: nothing cut it."""
    stabilized: int
    """The recommendation after the stabilisation windows, before rates and bounds."""


@dataclass(frozen=True, slots=True)
class History:
    """What windows and rates look back on. Recommendations are the raw ones, before windows and clamps."""

    recommendations: tuple[Recommendation, ...] = ()
    scale_events: tuple[ScaleEvent, ...] = ()


_UP: Final = Rules(0.0, "Max", (Rate("Pods", 4, 15.0), Rate("Percent", 100, 15.0)))
_DOWN: Final = Rules(DOWNSCALE_WINDOW_S, "Max", (Rate("Percent", 100, 15.0),))


def tolerances(behavior: Behavior | None) -> Tolerances:
    """Tolerances of both directions, 0.1 where none is given."""
    if behavior is None:
        return Tolerances()
    return Tolerances(up=_tolerance(behavior.scale_up), down=_tolerance(behavior.scale_down))


def first_seen(history: History, current: int, now_s: float) -> History:
    """A history that starts with the current size: a restart alone never shrinks."""
    if history.recommendations:
        return history
    return History((Recommendation(now_s, current),), history.scale_events)


def clamp(
    recommended: int, *, current: int, minimum: int, maximum: int, behavior: Behavior | None, history: History, now_s: float
) -> Clamped:
    """The size that windows, rates and bounds leave of a raw recommendation.

    `history` is that of the steps before this one; add this step with `remember_recommendation` and `remember_scale`.
    """
    if behavior is None:
        return _clamp_plain(recommended, current, minimum=minimum, maximum=maximum, history=history, now_s=now_s)
    up, down = _rules(behavior.scale_up, _UP), _rules(behavior.scale_down, _DOWN)
    stabilized = _stabilize(recommended, current, up, down, history=history, now_s=now_s)
    if stabilized > current:
        limit = max(_rate_limit(current, up, history.scale_events, now_s, sign=1), current)
        highest = min(limit, maximum)
        if stabilized > highest:
            return Clamped(highest, "ScaleUpLimit" if maximum > limit else "TooManyReplicas", stabilized)
    elif stabilized < current:
        limit = min(_rate_limit(current, down, history.scale_events, now_s, sign=-1), current)
        lowest = max(limit, minimum)
        if stabilized < lowest:
            return Clamped(lowest, "ScaleDownLimit" if minimum < limit else "TooFewReplicas", stabilized)
    return Clamped(stabilized, "DesiredWithinRange", stabilized)


def without_reserve(history: History) -> History:
    """The history as if nothing had been recommended beyond what the load alone asked for."""
    if not any(past.reserve for past in history.recommendations):
        return history
    alone = (replace(past, replicas=past.replicas - past.reserve, reserve=0) for past in history.recommendations)
    return History(tuple(alone), history.scale_events)


def remember_recommendation(
    history: History, recommended: int, behavior: Behavior | None, now_s: float, reserve: int = 0
) -> History:
    """The history with this step's raw recommendation, without those that no window reaches any more.

    Of a run of equal recommendations only the latest time matters to a window, so a run is kept as one.
    """
    window_s = longest_window_s(behavior)
    kept = [past for past in history.recommendations if past.time_s >= now_s - window_s]
    if kept and (kept[-1].replicas, kept[-1].reserve) == (recommended, reserve):
        kept.pop()
    return History((*kept, Recommendation(now_s, recommended, reserve)), history.scale_events)


def remember_hold(history: History, current: int, behavior: Behavior | None, now_s: float) -> History:
    """The history after a step that knows too little to ask for anything: it asks for nothing, until no window knows better."""
    kept = tuple(past for past in history.recommendations if past.time_s >= now_s - longest_window_s(behavior))
    if all(past.replicas == current for past in kept):
        kept = (Recommendation(now_s, current),)
    return History(kept, history.scale_events)


def remember_scale(history: History, change: int, behavior: Behavior | None, now_s: float) -> History:
    """The history with this step's change of size; it takes the place of the last outdated event of its direction.

    An event is outdated when it is older than the longest period of its own direction's rates, though a longer period of
    the other direction may still see it: so does Kubernetes.
    """
    if change == 0:
        return history
    event, events = ScaleEvent(now_s, change), list(history.scale_events)
    cutoff_s = now_s - event_period_s(change, behavior)
    outdated = [i for i, past in enumerate(events) if past.change * change > 0 and past.time_s < cutoff_s]
    if outdated:
        events[outdated[-1]] = event
    else:
        events.append(event)
    return History(history.recommendations, tuple(events))


def longest_window_s(behavior: Behavior | None) -> float:
    """How far back recommendations can matter, seconds."""
    if behavior is None:
        return DOWNSCALE_WINDOW_S
    return max(_rules(behavior.scale_up, _UP).window_s, _rules(behavior.scale_down, _DOWN).window_s)


def down_window_s(behavior: Behavior | None) -> float:
    """How far back a higher recommendation keeps the size up, seconds."""
    return DOWNSCALE_WINDOW_S if behavior is None else _rules(behavior.scale_down, _DOWN).window_s


def _clamp_plain(recommended: int, current: int, *, minimum: int, maximum: int, history: History, now_s: float) -> Clamped:
    cutoff_s = now_s - DOWNSCALE_WINDOW_S
    stabilized = max([recommended, *(past.replicas for past in history.recommendations if past.time_s >= cutoff_s)])
    # Kubernetes limits one step of its 15 s; turns may be more frequent, so growth counts from the period's start.
    before = current - _changed(history.scale_events, SYNC_PERIOD_S, now_s, sign=1)
    limit = max(2 * before, 4, current)
    if stabilized < minimum:
        return Clamped(minimum, "TooFewReplicas", stabilized)
    if stabilized > min(limit, maximum):
        return Clamped(min(limit, maximum), "ScaleUpLimit" if maximum > limit else "TooManyReplicas", stabilized)
    return Clamped(stabilized, "DesiredWithinRange", stabilized)


def _stabilize(recommended: int, current: int, up: Rules, down: Rules, *, history: History, now_s: float) -> int:
    past = history.recommendations
    lowest = min([recommended, *(one.replicas for one in past if one.time_s > now_s - up.window_s)])
    highest = max([recommended, *(one.replicas for one in past if one.time_s > now_s - down.window_s)])
    return min(max(current, lowest), highest)


def _rate_limit(current: int, rules: Rules, events: tuple[ScaleEvent, ...], now_s: float, *, sign: int) -> int:
    if rules.select == "Disabled":
        return current
    limits = [_limit(rate, _period_start(current, rate.period_s, events, now_s), sign) for rate in rules.rates]
    # Max lets the largest change through: the highest limit up, the lowest limit down. Without any limit it lets none through,
    # and Min any.
    return max(limits, default=-MAX_INT32) if (rules.select == "Max") == (sign > 0) else min(limits, default=MAX_INT32)


def _limit(rate: Rate, start: int, sign: int) -> int:
    if rate.type == "Pods":
        return min(start + sign * rate.value, MAX_INT32)
    if sign > 0:
        return min(math.ceil(start * (1 + rate.value / 100)), MAX_INT32)
    return int(start * (1 - rate.value / 100))


def _period_start(current: int, period_s: float, events: tuple[ScaleEvent, ...], now_s: float) -> int:
    return current - _changed(events, period_s, now_s, sign=1) + _changed(events, period_s, now_s, sign=-1)


def _changed(events: tuple[ScaleEvent, ...], period_s: float, now_s: float, *, sign: int) -> int:
    cutoff_s = now_s - period_s
    return sum(abs(event.change) for event in events if event.change * sign > 0 and event.time_s > cutoff_s)


def event_period_s(change: int, behavior: Behavior | None) -> float:
    """How far back rates see a change of this direction, seconds."""
    if behavior is None:
        return SYNC_PERIOD_S
    rules = _rules(behavior.scale_up, _UP) if change > 0 else _rules(behavior.scale_down, _DOWN)
    return rules.longest_period_s


def _rules(given: ScalingRules | None, default: Rules) -> Rules:
    if given is None:
        return default
    window_s, policies = given.stabilization_window_seconds, given.policies
    return Rules(
        window_s=default.window_s if window_s is None else float(window_s),
        select=given.select_policy or default.select,
        rates=tuple(Rate(p.type, p.value, float(p.period_seconds)) for p in policies) if policies is not None else default.rates,
    )


def _tolerance(given: ScalingRules | None) -> float:
    if given is None or given.tolerance is None:
        return DEFAULT_TOLERANCE
    return _approximate_float64(parse_quantity(given.tolerance))


def _approximate_float64(value: Decimal) -> float:
    """A quantity as Go's `AsApproximateFloat64` gives it: an integer times a power of ten, 0.57 as 570 * 1e-3."""
    for exponent in (0, -3, -6):
        scaled = value.scaleb(-exponent)
        if scaled == scaled.to_integral_value():
            return float(int(scaled)) * float(f"1e{exponent}")
    return float(value)
