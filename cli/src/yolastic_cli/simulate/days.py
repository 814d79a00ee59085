"""Whole days in a closed loop: Yolastic's own decisions beside Horizontal Pod Autoscalers, on the same workers and images."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from yolastic_cli.load import Phase
from yolastic_cli.simulate.arrivals import seconds_of, steps_s
from yolastic_cli.simulate.closed_loop import Run, Settings
from yolastic_cli.simulate.device import LARGE, T4, Device
from yolastic_cli.simulate.factory import Claim, percentile
from yolastic_cli.simulate.fleet import FleetRules
from yolastic_cli.simulate.sizing import Hpa, Oracle, OwnDecision, Sizing
from yolastic_cli.simulate.worker import WorkerRules
from yolastic_contract.inference import Autoscaling
from yolastic_contract.names import buckets_up_to
from yolastic_operator.policy.ceiling import efficiency_bound, latency_bound
from yolastic_operator.policy.objective import load_percent

START_S: Final = 40.0
_STEP_S: Final = 60.0
"""The first minute of a step: nobody's new workers are ready before most of it has passed."""


@dataclass(frozen=True, slots=True)
class Day:
    """Images over time, and the device they are for."""

    name: str
    about: str
    phases: tuple[Phase, ...]
    device: Device
    objective_s: float
    first: int = 1
    """Workers at the start."""
    fixed_devices: int | None = None
    """Devices that batches of one need at the peak, all day; None: not compared."""
    start_s: float = START_S
    """From the order of a worker to Ready."""
    autoscaling: dict[str, Any] = field(default_factory=lambda: {"minReplicas": 1, "maxReplicas": 12})
    """`spec.autoscaling`; the bounds are everybody's."""

    @property
    def rules(self) -> Autoscaling:
        """The same with its defaults."""
        return Autoscaling.model_validate(self.autoscaling)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one way of sizing comes to."""

    name: str
    misses: float
    """Share of the images that were not answered within the objective, refused ones included."""
    p95_s: float
    """Outside the first minute of every step."""
    device_hours: float
    """Starting and leaving workers included."""
    changes: int
    """Orders of another size."""
    most: int
    """The largest size ordered."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A day with everybody's outcome, Yolastic's first."""

    day: Day
    outcomes: tuple[Outcome, ...]
    best: Outcome
    """The other one with the fewest misses; of equals that with the fewest device hours."""
    oracle: Outcome
    """Of an order at the very instant the load changes, within the same behavior: the price of starting a worker."""
    claims: tuple[Claim, ...]
    images: int
    seed: int


DAYS: Final = {
    day.name: day
    for day in (
        Day(
            "plant", "the plant's day in 38 minutes: night, start of the shift, dip, a step to 1,200/s, night",
            (
                Phase("night", 600, 8, 8), Phase("starting up", 180, 8, 1000), Phase("early shift", 360, 1100, 1100),
                Phase("break", 120, 600, 600), Phase("late shift", 360, 1200, 1200), Phase("shutting down", 60, 1200, 8),
                Phase("night", 600, 8, 8),
            ),
            T4, 0.100, fixed_devices=7,
        ),
        Day(
            "rush-hours", "two rush hours with a dip between them",
            (
                Phase("night", 300, 2, 2), Phase("morning", 180, 2, 200), Phase("rush", 300, 220, 220),
                Phase("dip", 120, 120, 120), Phase("rush", 300, 240, 240), Phase("evening", 120, 240, 2),
                Phase("night", 400, 2, 2),
            ),
            LARGE, 0.500,
        ),
        Day(
            "spike", "ten times the load without a warning for two minutes, twice",
            (
                Phase("calm", 300, 20, 20), Phase("spike", 120, 200, 200), Phase("calm", 500, 20, 20),
                Phase("spike", 120, 200, 200), Phase("calm", 500, 20, 20),
            ),
            LARGE, 0.500,
        ),
        Day(
            "outage", "nearly all cameras are silent for eight minutes, later half of them for seven",
            (
                Phase("work", 300, 180, 180), Phase("outage", 480, 12, 12), Phase("work", 400, 180, 180),
                Phase("half", 420, 90, 90), Phase("work", 300, 180, 180),
            ),
            LARGE, 0.500, first=4,
        ),
    )
}  # fmt: skip


def baselines(day: Day) -> tuple[Sizing, ...]:
    """Autoscalers with the behavior that Kubernetes has by default, as the operator has it here."""
    rules = day.rules
    bounds = {"minimum": rules.min_replicas, "maximum": rules.max_replicas}
    busy = tuple(Hpa("busy", target, **bounds, behavior=None) for target in (0.6, 0.7, 0.8))
    queue = tuple(Hpa("queue", target, **bounds, behavior=None) for target in (2, 8))
    return (*busy, *queue, Hpa("total queue", 4, **bounds, behavior=None))


def play(day: Day, seed: int = 7, others: Sequence[Sizing] | None = None) -> Comparison:
    """Simulate the day once for each way of sizing, with the same images."""
    outcomes = []
    for sizing in (OwnDecision(), *(baselines(day) if others is None else others), oracle(day)):
        run = Run(_settings(day, seed), sizing).play()
        outcomes.append(_outcome(sizing.name, run, day))
        images = len(run.fleet.tally.latency_s)
    own, *rest, bound = outcomes
    best = min(rest, key=lambda outcome: (round(outcome.misses, 5), outcome.device_hours))
    return Comparison(day, (own, *rest), best, bound, claims(day, own, best), images, seed)


def oracle(day: Day) -> Oracle:
    """Who orders at the very instant, for the load the operator aims for at the ceiling it grants."""
    fit, largest = day.device.fit, WorkerRules(day.device).max_batch
    bounds = (latency_bound(fit, day.objective_s), efficiency_bound(fit), largest)
    ceiling = max(bucket for bucket in buckets_up_to(largest) if bucket <= min(bound for bound in bounds if bound is not None))
    rules = day.rules
    aimed_percent = min(rules.target_load_percent, load_percent(fit, ceiling, day.objective_s))
    per_worker_per_s = aimed_percent / 100 * ceiling / fit.at(ceiling)
    return Oracle(day.phases, per_worker_per_s, day.start_s, minimum=rules.min_replicas, maximum=rules.max_replicas)


def claims(day: Day, own: Outcome, best: Outcome) -> tuple[Claim, ...]:
    """What is asked of every day, and of the plant's."""
    hours = own.device_hours / best.device_hours
    found = [
        Claim(
            f"misses at most a fifth of the best other's: {own.misses:.2%} to {best.misses:.2%}", own.misses <= best.misses / 5
        ),
        Claim(f"device hours at most 0.85 of the best other's: {hours:.2f}", hours <= 0.85),
        Claim(f"no more scale events: {own.changes} to {best.changes}", own.changes <= best.changes),
    ]
    if day.fixed_devices is not None:
        share = own.device_hours * 3600 / (day.fixed_devices * seconds_of(day.phases))
        found += [
            Claim(f"at most 5 devices at the peak, where batches of one need {day.fixed_devices}: {own.most}", own.most <= 5),
            Claim(f"at most half the device hours of batches of one: {share:.0%}", share <= 0.5),
            Claim(
                f"p95 within {day.objective_s * 1e3:g} ms outside the first minute of a step: {own.p95_s * 1e3:.0f} ms",
                own.p95_s <= day.objective_s,
            ),
        ]
    return tuple(found)


def _settings(day: Day, seed: int) -> Settings:
    worker = WorkerRules(day.device, objective_s=day.objective_s, patience_s=day.objective_s)
    fleet = FleetRules(worker, start_s=day.start_s)
    return Settings(day.phases, fleet, day.first, autoscaling=day.autoscaling, seed=seed)


def _outcome(name: str, run: Run, day: Day) -> Outcome:
    latencies_s = run.latencies_s()
    return Outcome(
        name=name,
        misses=float(np.mean(~(latencies_s <= day.objective_s))),
        p95_s=percentile(_outside_steps(run, day), 95),
        device_hours=run.fleet.device_s(0.0, run.seconds) / 3600,
        changes=len(run.fleet.changes),
        most=max((size for _, size in run.fleet.changes), default=day.first),
    )


def _outside_steps(run: Run, day: Day) -> npt.NDArray[np.float64]:
    edges_s, parts = [0.0, *steps_s(day.phases), run.seconds], []
    for number, (from_s, to_s) in enumerate(pairwise(edges_s)):
        parts.append(run.latencies_s(from_s + (_STEP_S if number else 0.0), to_s))
    return np.concatenate(parts)
