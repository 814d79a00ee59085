"""What the workers' load asks for: the autoscaler's calculation on load ratios, and never a shrink on guesswork."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from yolastic_contract.inference import Autoscaling
from yolastic_operator.model import DemandSample, Fresh, Missing, Observation, Source, Step, WorkerView
from yolastic_operator.policy import second
from yolastic_operator.policy.behavior import tolerances
from yolastic_operator.policy.fall import Fall
from yolastic_operator.policy.forecast import Forecast
from yolastic_operator.policy.hpa import PodMetrics, Tolerances, replicas_for
from yolastic_operator.policy.second import UNKNOWN, Lone
from yolastic_operator.policy.workers import count, is_serving, is_starting

QUEUE_WINDOW_S: Final = 15.0
"""A queue counts as demand spread over this long, as in the load ratio."""
KEPT_S: Final = 3600.0
SAMPLE_EVERY_S: Final = 60.0


KNOWS_TOO_LITTLE: Final = frozenset({"PartialMetrics", "FleetUnconfirmed"})
"""Reasons of a size that is held because some do not tell: it is nobody's wish."""


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
    reserve: int = 0
    """So many of `replicas` beyond what the load alone asks for."""
    gives_way: bool = False
    """Another inference waits for a device: no window holds what was only a reserve."""
    steps: tuple[Step, ...] = ()
    """The sum so far, step by step."""


def propose(
    workers: Sequence[WorkerView],
    current: int,
    autoscaling: Autoscaling,
    *,
    why_less: str = "",
    ahead: Forecast | None = None,
    steady_per_s: float | None = None,
    looked: bool = True,
    swings: str = "",
    counted_per_s: float | None = None,
    carried_per_s: float | None = None,
    lone: Lone = UNKNOWN,
    fallen: Fall | None = None,
    unconfirmed: str = "",
) -> Proposal:
    """Proposal of the load, now or ahead: up on what is known, down only when every serving worker has fresh figures.

    Args:
        workers: all of them; draining, failed and terminating ones do not count.
        current: size ordered, starting workers included.
        autoscaling: targets and tolerances.
        why_less: why the targets are lower than the spec's, in words.
        ahead: demand to be ready for; the larger of the two proposals wins.
        steady_per_s: what the demand of a minute was at least, images/s; so does the one for this. None: that is not known.
        looked: False: demand has not been looked at often enough to tell a rise.
        swings: that it swings, in words: then half a minute of it told none.
        counted_per_s: demand of all workers together, images/s; what their own rates have above it does not count.
        carried_per_s: the same at its mean, with what was sent to workers that have gone since; nobody shrinks below it.
        lone: what counts for a second worker beside a lone one, besides the load.
        fallen: demand that fell at once and may come back so; the size is not made smaller than it needs.
        unconfirmed: why there may be others beside these workers (`Fleet.unconfirmed`); then nobody shrinks.
    """
    figures = _figures(workers, current, autoscaling)
    asked = figures.asked()
    if asked is None:
        why = no_figures(figures.serving, figures.pods.unready)
        return Proposal(None, "MetricsUnavailable", why, steps=(Step("Load", why),))
    load = figures.words(why_less)
    steps = [Step("Load", f"{load}: {count(asked)}")]
    wanted, twice = figures.counted_once(asked, counted_per_s)
    if wanted < asked:
        steps.append(Step("Load", f"{twice:.2f} of it is counted twice, by workers that have just come: {count(wanted)}"))
    size, survivors = figures.survivors(wanted, carried_per_s, fallen, unconfirmed)
    later, forecast = figures.later(ahead, twice, looked=looked, swings=swings)
    if ahead is not None and later > size.replicas:
        size = _Size(later, "ForecastAboveTarget", f", {ahead}")
    if steady_per_s is not None and (needed := figures.lasting(steady_per_s)) > size.replicas:
        why = f"demand has been at least {steady_per_s:.0f}/s for a minute"
        size, forecast = _Size(needed, "LoadAboveTarget", f", {why}"), f"{forecast}; {why}: {count(needed)}"
    beside, alone = [], size.replicas
    if size.replicas <= 1:
        size, text = figures.beside_a_lone_one(size, lone, carried_per_s)
        beside = [Step("Second", text)]
    message = f"{load}: {count(size.replicas)}{size.why}"
    steps += [Step("Survivors", survivors), Step("Forecast", forecast), *beside]
    return Proposal(
        size.replicas,
        size.reason,
        message,
        figures.mean,
        figures.source,
        reserve=size.replicas - max(alone, 1) if size.replicas > 1 else 0,
        gives_way=lone.gives_up == second.GIVES_WAY,
        steps=tuple(steps),
    )


class _Size(NamedTuple):
    replicas: int
    reason: str
    why: str
    """What the message says of it, after a comma."""


@dataclass(frozen=True, slots=True)
class _Figures:
    """What the sums of one proposal are made of."""

    current: int
    autoscaling: Autoscaling
    serving: Sequence[WorkerView]
    fresh: Sequence[tuple[WorkerView, float]]
    """Those of them whose load ratio may be acted on, with it."""
    pods: PodMetrics

    @property
    def mean(self) -> float:
        """Load ratio, over the fresh ones."""
        return sum(ratio for _, ratio in self.fresh) / len(self.fresh)

    @property
    def source(self) -> Source:
        """Where all of them came from, or the lesser of the two."""
        return "Prometheus" if all(view.load_source == "Prometheus" for view, _ in self.fresh) else "Workers"

    def words(self, why_less: str) -> str:
        """The figures in words."""
        target = f"target {self.autoscaling.target_load_percent / 100:.2f}" + (f" ({why_less})" if why_less else "")
        words = f"load ratio {self.mean:.2f} over {count(len(self.fresh))}, {target}"
        return f"{words}, {self.pods.unready} starting" if self.pods.unready else words

    def asked(self) -> int | None:
        """The calculation's size; None when there is nothing to compute from."""
        target = self.autoscaling.target_load_percent * 10
        result = replicas_for(self.current, target, tolerances(self.autoscaling.behavior), self.pods)
        if result is None:
            return None
        if result.replicas == self.current < len(self.serving):
            # Some could not be told to leave yet. What all carry is then what `current` would have to: its ratio says nothing.
            return max(min(math.ceil(sum(self.pods.values) / target), len(self.serving)), self.current)
        return result.replicas

    def counted_once(self, asked: int, counted_per_s: float | None) -> tuple[int, float]:
        """The size asked for, and what it is too high by: workers that have just come count what others were sent before them."""
        if asked <= self.current or counted_per_s is None or len(self.fresh) < len(self.serving):
            return asked, 0.0
        twice = max(self._above(counted_per_s), 0.0)
        return max(self._with(-twice, tolerances(self.autoscaling.behavior)), self.current), twice

    def survivors(self, wanted: int, carried_per_s: float | None, fallen: Fall | None, unconfirmed: str) -> tuple[_Size, str]:
        """The size that is left of what is wanted, so that nobody shrinks onto workers that would be too busy; and in words."""
        alone = sum(self.pods.values)
        total = self._total(carried_per_s)
        size = self._guarded(wanted, total, unconfirmed)
        if wanted >= self.current:
            return size, "the load does not ask for fewer"
        if size.replicas > self._guarded(wanted, alone, unconfirmed).replicas:
            size = size._replace(why=size.why + ", with what came to workers that have just gone")
        if (kept := self._kept(fallen)) > size.replicas:
            size = _Size(kept, "DemandFellAtOnce", f", {fallen}")
        if size.why:
            return size, f"{count(size.replicas)}{size.why}"
        if not size.replicas:
            return size, "none"
        each, below = total / 1000 / size.replicas, self.autoscaling.scale_down_load_percent / 100
        return size, f"{count(size.replicas)} would carry {each:.2f} each, below {below:.2f}"

    def later(self, ahead: Forecast | None, twice: float, *, looked: bool, swings: str) -> tuple[int, str]:
        """The size for what is ahead, 0 for nothing; and in words."""
        if self.autoscaling.forecast == "None":
            return 0, "not asked for (forecast: None)"
        if ahead is None:
            if not looked:
                return 0, "not known: demand was counted too few times lately"
            if swings:
                return 0, f"{swings}: half a minute tells no rise, and minutes show none"
            return 0, "demand does not rise beyond its noise"
        tolerance = tolerances(self.autoscaling.behavior)
        if ahead.is_trend:
            # The tolerance is there for noise, and a trend is beyond that: who waits for 10 % more has workers that are too busy.
            tolerance = replace(tolerance, up=0.0)
        replicas = self._with(max(-self._above(ahead.images_per_s), -twice), tolerance)
        return replicas, f"{ahead}: {count(replicas)}"

    def lasting(self, images_per_s: float) -> int:
        """The size for demand that lasts, 0 where nobody tells a speed: it is not the noise that a tolerance is for.

        Within the tolerance workers would stay too busy for as long as it lasts, and meet the next rise so.
        """
        if self.autoscaling.forecast == "None" or self._rates() is None:
            return 0
        rules = self.autoscaling.behavior
        tolerance = tolerances(rules)
        if rules is None or rules.scale_up is None or rules.scale_up.tolerance is None:  # who gave one of his own means it
            tolerance = replace(tolerance, up=0.0)
        return self._with(-self._above(images_per_s), tolerance)

    def beside_a_lone_one(self, size: _Size, lone: Lone, carried_per_s: float | None) -> tuple[_Size, str]:
        """The size with a second worker where a single one would be too busy to be alone; and in words."""
        rules, rates = self.autoscaling, self._rates()
        percent = rules.second_worker_load_percent
        if percent >= rules.target_load_percent or rules.max_replicas == 1:
            return size, "not asked for (secondWorkerLoadPercent, maxReplicas)"
        load = self._total(carried_per_s) / 1000
        each_per_s = None if rates is None else rates[1] / len(self.fresh)
        if lone.never:
            gives_up = self.current > 1 and lone.gives_up and second.is_kept(load, lone, each_per_s, percent)[0]
            return (_Size(size.replicas, lone.gives_up, f", {lone.never}") if gives_up else size), f"none: {lone.never}"
        if self.current > 1:
            is_more, why = second.is_kept(load, lone, each_per_s, percent)
        elif lone.not_now:
            return size, f"none: {lone.not_now}"
        elif lone.per_s is None or each_per_s is None:
            return size, "none: not known what came within a minute"
        else:
            is_more = second.is_due(load, lone.per_s, each_per_s, percent)
            carries = f"1 worker alone carries {load:.2f}, and {lone.per_s / each_per_s:.2f} for a minute"
            why = f"{carries}, {'' if is_more else 'not '}above {percent / 100:.2f} beyond noise"
        return (_Size(2, "SecondWorker", f", {why}") if is_more else size), f"{why}: {count(2 if is_more else size.replicas)}"

    def _total(self, carried_per_s: float | None) -> int:
        """The sum of the load ratios in thousandths, with what was sent to workers that have gone since."""
        return max(sum(self.pods.values), self._carried(carried_per_s))

    def _with(self, more: float, tolerance: Tolerances) -> int:
        """The calculation's size with every load ratio higher by `more`."""
        changed = tuple(max(value + round(more * 1000), 0) for value in self.pods.values)
        target = self.autoscaling.target_load_percent * 10
        found = replicas_for(self.current, target, tolerance, replace(self.pods, values=changed))
        return self.current if found is None else found.replicas

    def _kept(self, fallen: Fall | None) -> int:
        """The calculation's size for demand that may come back. Not more than there is: that it may orders nothing."""
        if fallen is None:
            return 0
        return min(self._with(-self._above(fallen.before_per_s), tolerances(self.autoscaling.behavior)), self.current)

    def _rates(self) -> tuple[float, float] | None:
        """(their own demand, their capacity) of all fresh ones, images/s; None when one of them does not tell."""
        loads = [view.state.value.load for view, _ in self.fresh if not isinstance(view.state, Missing)]
        capacity_per_s = sum(load.capacity_per_s for load in loads)
        if len(loads) < len(self.fresh) or any(load.capacity_per_s <= 0 for load in loads):
            return None
        return sum(load.arrived_per_s + load.refused_per_s for load in loads), capacity_per_s

    def _above(self, images_per_s: float) -> float:
        """By how much of a load ratio the workers' own rates are above this demand of all of them; 0 when that is not known."""
        rates = self._rates()
        return 0.0 if rates is None else (rates[0] - images_per_s) / rates[1]

    def _carried(self, images_per_s: float | None) -> int:
        """The sum of the load ratios if they were sent all of this demand, in thousandths; 0 when that is not known."""
        rates = self._rates()
        if images_per_s is None or rates is None:
            return 0
        return round(images_per_s * len(self.fresh) / rates[1] * 1000)

    def _guarded(self, replicas: int, total_milli: int, unconfirmed: str) -> _Size:
        """The calculation's result, kept from shrinking on partial data or onto survivors that would be too busy."""
        if replicas >= self.current:
            return _Size(replicas, "LoadAboveTarget" if replicas > self.current else self._why_as_it_is(), "")
        if unconfirmed:
            why = f", not shrinking while nobody tells whether these are all workers ({unconfirmed})"
            return _Size(self.current, "FleetUnconfirmed", why)
        unknown = [view for view in self.serving if not isinstance(view.load_ratio, Fresh)]
        if unknown:
            why = f", not shrinking without fresh figures of every worker ({why_not_fresh(unknown[0])})"
            return _Size(self.current, "PartialMetrics", why)
        below = self.autoscaling.scale_down_load_percent
        needed = survivors_needed(total_milli, below)
        if needed <= replicas:
            return _Size(replicas, "LoadBelowTarget", "")
        replicas = min(needed, self.current)
        fewer = replicas - 1
        why = f", {count(fewer)} would carry {total_milli / 1000 / fewer:.2f} each, not below {below / 100:.2f}" if fewer else ""
        held = "SurvivorsTooBusy" if fewer else "LastWorker"
        return _Size(replicas, "LoadBelowTarget" if replicas < self.current else held, why)

    def _why_as_it_is(self) -> str:
        """The reason of the calculation that asks for the size there is."""
        ratio = self.mean * 100 / self.autoscaling.target_load_percent
        if tolerances(self.autoscaling.behavior).covers(ratio):
            return "WithinTolerance"
        if ratio > 1.0 and self.pods.unready:
            return "EnoughStarting"
        if self.pods.missing:
            return "PartialMetrics"
        if ratio > 1.0 and len(self.serving) < self.current:
            return "EnoughOrdered"
        if ratio > 1.0:
            return "WithinTolerance"  # it is, without what is counted twice
        return "SurvivorsTooBusy" if self.current > 1 else "LastWorker"


def _figures(workers: Sequence[WorkerView], current: int, autoscaling: Autoscaling) -> _Figures:
    serving = [view for view in workers if is_serving(view)]
    fresh = [(view, view.load_ratio.value) for view in serving if isinstance(view.load_ratio, Fresh)]
    values = tuple(round(ratio * 1000) for _, ratio in fresh)
    # One that starts in the place of another, in a rollout, is no supply for more load.
    unready = min(sum(is_starting(view) for view in workers), max(current - len(serving), 0))
    return _Figures(current, autoscaling, serving, fresh, PodMetrics(values, len(serving) - len(fresh), unready))


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
