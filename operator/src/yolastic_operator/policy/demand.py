"""What the workers' load asks for: the autoscaler's calculation on load ratios, and never a shrink on guesswork."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from yolastic_contract.inference import Autoscaling
from yolastic_operator.model import DemandSample, Fresh, Missing, Observation, Source, Step, WorkerView
from yolastic_operator.policy.behavior import tolerances
from yolastic_operator.policy.fall import Fall
from yolastic_operator.policy.forecast import Forecast
from yolastic_operator.policy.hpa import PodMetrics, Tolerances, replicas_for
from yolastic_operator.policy.workers import count, is_serving, is_starting

QUEUE_WINDOW_S: Final = 15.0
"""A queue counts as demand spread over this long, as in the load ratio."""
KEPT_S: Final = 3600.0
SAMPLE_EVERY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the metrics alone ask for, before windows, rates and bounds."""

    replicas: int | None
    """None: nothing could be computed."""
    reason: str
    """CamelCase."""
    message: str
    load_ratio: float | None = None
    source: Source | None = None
    measured: bool = True
    """False: no figures stand behind it; it is the fallback's."""
    steps: tuple[Step, ...] = ()
    """The sum so far, step by step."""


def propose(
    workers: Sequence[WorkerView],
    current: int,
    autoscaling: Autoscaling,
    *,
    ahead: Forecast | None = None,
    counted_per_s: float | None = None,
    carried_per_s: float | None = None,
    fallen: Fall | None = None,
    unconfirmed: str = "",
) -> Proposal:
    """Proposal of the load, now or ahead: up on what is known, down only when every serving worker has fresh figures.

    Args:
        workers: all of them; draining, failed and terminating ones do not count.
        current: size ordered, starting workers included.
        autoscaling: targets and tolerances.
        ahead: demand to be ready for; the larger of the two proposals wins.
        counted_per_s: demand of all workers together, images/s; what their own rates have above it does not count.
        carried_per_s: the same at its mean, with what was sent to workers that have gone since; nobody shrinks below it.
        fallen: demand that fell at once and may come back so; the size is not made smaller than it needs.
        unconfirmed: why there may be others beside these workers (`Fleet.unconfirmed`); then nobody shrinks.
    """
    serving = [view for view in workers if is_serving(view)]
    fresh = [(view, view.load_ratio.value) for view in serving if isinstance(view.load_ratio, Fresh)]
    starting = sum(is_starting(view) for view in workers)
    values = tuple(round(ratio * 1000) for _, ratio in fresh)
    pods = PodMetrics(values, missing=len(serving) - len(fresh), unready=starting)
    target = autoscaling.target_load_percent * 10
    result = replicas_for(current, target, tolerances(autoscaling.behavior), pods)
    if result is None:
        why = no_figures(serving, starting)
        return Proposal(None, "MetricsUnavailable", why, steps=(Step("Load", why),))
    mean = sum(ratio for _, ratio in fresh) / len(fresh)
    source: Source = "Prometheus" if all(view.load_source == "Prometheus" for view, _ in fresh) else "Workers"
    load = f"load ratio {mean:.2f} over {count(len(fresh))}, target {target / 1000:.2f}"
    if starting:
        load += f", {starting} starting"
    wanted, too_much = result.replicas, 0.0
    if wanted == current < len(serving):
        # Some could not be told to leave yet. What all carry is then what `current` would have to: its ratio says nothing.
        wanted = max(min(math.ceil(sum(values) / target), len(serving)), current)
    asked = wanted
    steps = [Step("Load", f"{load}: {count(asked)}")]
    if wanted > current and counted_per_s is not None and len(fresh) == len(serving):
        # Workers that have just come count what the others were sent before them: order nothing for that.
        too_much = max(_above(fresh, counted_per_s), 0.0)
        wanted = max(_with(pods, -too_much, current, autoscaling, tolerances(autoscaling.behavior)), current)
        if wanted < asked:
            steps.append(Step("Load", f"{too_much:.2f} of it is counted twice, by workers that have just come: {count(wanted)}"))
    total = max(sum(values), _carried(fresh, carried_per_s))
    replicas, reason, why = _guarded(wanted, current, total, autoscaling, serving, unconfirmed)
    if wanted < current:
        if replicas > _guarded(wanted, current, sum(values), autoscaling, serving, unconfirmed)[0]:
            why += ", with what came to workers that have just gone"
        if (kept := _kept(fallen, pods, fresh, current, autoscaling)) > replicas:
            replicas, reason, why = kept, "DemandFellAtOnce", f", {fallen}"
        steps.append(Step("Survivors", _survivors(replicas, total, autoscaling, why)))
    else:
        steps.append(Step("Survivors", "the load does not ask for fewer"))
    if ahead is None:
        none = "demand does not rise beyond its noise" if autoscaling.forecast == "Trend" else "not asked for (forecast: None)"
        steps.append(Step("Forecast", none))
    else:
        more = max(-_above(fresh, ahead.images_per_s), -too_much)
        # The tolerance is there for noise, and a trend is beyond that: who waits for 10 % more has workers that are too busy.
        tolerance = replace(tolerances(autoscaling.behavior), up=0.0) if ahead.is_trend else tolerances(autoscaling.behavior)
        later = _with(pods, more, current, autoscaling, tolerance)
        if later > replicas:
            replicas, reason, why = later, "ForecastAboveTarget", f", {ahead}"
        steps.append(Step("Forecast", f"{ahead}: {count(later)}"))
    return Proposal(replicas, reason, f"{load}: {count(replicas)}{why}", mean, source, steps=tuple(steps))


def _survivors(replicas: int, total_milli: int, autoscaling: Autoscaling, why: str) -> str:
    """What the check on those that would be left came to."""
    if why:
        return f"{count(replicas)}{why}"
    below = autoscaling.scale_down_load_percent / 100
    return f"{count(replicas)} would carry {total_milli / 1000 / replicas:.2f} each, below {below:.2f}" if replicas else "none"


def _with(pods: PodMetrics, more: float, current: int, autoscaling: Autoscaling, tolerance: Tolerances) -> int:
    """The calculation's size with every load ratio higher by `more`."""
    changed = tuple(max(value + round(more * 1000), 0) for value in pods.values)
    target = autoscaling.target_load_percent * 10
    found = replicas_for(current, target, tolerance, replace(pods, values=changed))
    return current if found is None else found.replicas


def _kept(
    fallen: Fall | None, pods: PodMetrics, fresh: Sequence[tuple[WorkerView, float]], current: int, autoscaling: Autoscaling
) -> int:
    """The calculation's size for demand that may come back. Not more than there is: that it may orders nothing."""
    if fallen is None:
        return 0
    more = -_above(fresh, fallen.before_per_s)
    return min(_with(pods, more, current, autoscaling, tolerances(autoscaling.behavior)), current)


def _above(fresh: Sequence[tuple[WorkerView, float]], images_per_s: float) -> float:
    """By how much of a load ratio the workers' own rates are above this demand of all of them; 0 when that is not known."""
    loads = [view.state.value.load for view, _ in fresh if not isinstance(view.state, Missing)]
    capacity_per_s = sum(load.capacity_per_s for load in loads)
    if capacity_per_s <= 0 or len(loads) < len(fresh):
        return 0.0
    return (sum(load.arrived_per_s + load.refused_per_s for load in loads) - images_per_s) / capacity_per_s


def _carried(fresh: Sequence[tuple[WorkerView, float]], images_per_s: float | None) -> int:
    """The sum of the workers' load ratios if they were sent all of this demand, in thousandths; 0 when that is not known."""
    loads = [view.state.value.load for view, _ in fresh if not isinstance(view.state, Missing)]
    capacity_per_s = sum(load.capacity_per_s for load in loads)
    if images_per_s is None or capacity_per_s <= 0 or len(loads) < len(fresh):
        return 0
    return round(images_per_s * len(loads) / capacity_per_s * 1000)


def survivors_needed(total_milli: int, below_percent: int) -> int:
    """Smallest number of workers that would carry the whole load below the percentage each."""
    return total_milli // (below_percent * 10) + 1


def sample(observation: Observation, now_s: float) -> DemandSample | None:
    """Demand of all serving workers now; None unless each of them has fresh figures."""
    serving = [view for view in observation.workers if is_serving(view)]
    loads = [view.state.value.load for view in serving if isinstance(view.state, Fresh)]
    if not loads or len(loads) < len(serving):
        return None
    per_s = sum(load.arrived_per_s + load.refused_per_s + load.queue_images / QUEUE_WINDOW_S for load in loads)
    return DemandSample(now_s, per_s)


def remember(demand: tuple[DemandSample, ...], new: DemandSample | None, now_s: float) -> tuple[DemandSample, ...]:
    """The last hour's demand, one sample a minute: the largest seen in it."""
    kept = [past for past in demand if past.time_s >= now_s - KEPT_S]
    if new is None:
        return tuple(kept)
    if kept and new.time_s - kept[-1].time_s < SAMPLE_EVERY_S:
        last = kept.pop()
        new = DemandSample(last.time_s, max(last.images_per_s, new.images_per_s))
    return (*kept, new)


def why_not_fresh(view: WorkerView) -> str:
    """Why a worker's load cannot be acted on, in words."""
    match view.load_ratio:
        case Missing(reason=reason):
            return f"{view.worker.name}: {reason}"
        case reading:
            return f"{view.worker.name}: figures are {reading.age_s:.0f} s old"


def no_figures(serving: Sequence[WorkerView], starting: int) -> str:
    """Why there is nothing to compute from, in words."""
    if serving:
        return f"no fresh load figures from {count(len(serving))} ({why_not_fresh(serving[0])}): holding"
    return f"no worker is ready yet ({starting} starting): holding" if starting else "no worker is ready: holding"


def _guarded(  # noqa: PLR0917 - one step of a sum
    replicas: int, current: int, total_milli: int, autoscaling: Autoscaling, serving: Sequence[WorkerView], unconfirmed: str
) -> tuple[int, str, str]:
    """The calculation's result, kept from shrinking on partial data or onto survivors that would be too busy."""
    if replicas == current:
        return current, "WithinTolerance", ""
    if replicas > current:
        return replicas, "LoadAboveTarget", ""
    if unconfirmed:
        return current, "FleetUnconfirmed", f", not shrinking while nobody tells whether these are all workers ({unconfirmed})"
    unknown = [view for view in serving if not isinstance(view.load_ratio, Fresh)]
    if unknown:
        return current, "PartialMetrics", f", not shrinking without fresh figures of every worker ({why_not_fresh(unknown[0])})"
    below = autoscaling.scale_down_load_percent
    needed = survivors_needed(total_milli, below)
    if needed <= replicas:
        return replicas, "LoadBelowTarget", ""
    replicas = min(needed, current)
    fewer = replicas - 1
    why = f", {count(fewer)} would carry {total_milli / 1000 / fewer:.2f} each, not below {below / 100:.2f}" if fewer else ""
    held = "SurvivorsTooBusy" if fewer else "LastWorker"
    return replicas, "LoadBelowTarget" if replicas < current else held, why
