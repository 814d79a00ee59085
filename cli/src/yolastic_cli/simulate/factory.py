"""The plant with 16 cameras: one day with fixed batches of 1, fixed batches of 32, and elastic ones, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import Final

import numpy as np
import numpy.typing as npt

from yolastic_cli.load import Phase, rate_at
from yolastic_cli.simulate.arrivals import seconds_of
from yolastic_cli.simulate.closed_loop import Run, Settings
from yolastic_cli.simulate.device import T4, Device
from yolastic_cli.simulate.fleet import FleetRules
from yolastic_cli.simulate.sizing import Plan
from yolastic_cli.simulate.worker import WorkerRules
from yolastic_worker.batcher import Window

OBJECTIVE_S: Final = 0.100
HOUR_S: Final = 20.0
"""Simulated seconds an hour of the day takes: the queues live in milliseconds, they do not notice."""
PLANNED_PER_S: Final = 250.0
"""Images/s a device the elastic fleet is planned for: the peak of 1,200/s takes 5."""
PEAK_PER_S: Final = 1200.0
TRIAL_S: Final = 60.0
_MOST_DEVICES: Final = 10
_NEVER_S: Final = 1e6
_UNBOUNDED: Final = 10**9

_HOURS: Final = (
    Phase("night", 5.75, 8, 8),
    Phase("starting up", 0.5, 8, 1000),
    Phase("early shift", 3.75, 1000, 1100),
    Phase("break", 0.5, 600, 600),
    Phase("early shift", 3.25, 1100, 1100),
    Phase("handover", 0.5, 700, 700),
    Phase("late shift", 5.5, 1200, 1200),
    Phase("shutting down", 0.5, 1200, 8),
    Phase("night", 3.75, 8, 8),
)
"""Hours and images/s."""


@dataclass(frozen=True, slots=True)
class Column:
    """What a way of batching comes to over the day."""

    name: str
    mean_s: float
    """Mean latency of an image over the day."""
    p95_s: float
    night_s: float
    """Mean latency at night."""
    unanswered: int
    busy: float
    """Busy share of the fleet while the plant works."""
    night_busy: float
    devices_at_peak: int
    """In this day."""
    needed: int | None
    """Devices that carry 1,200/s with p95 within the objective; None: no number does, of those tried."""
    needed_p95_s: float
    """The p95 with so many; the best there was when none suffices."""
    device_hours: float


@dataclass(frozen=True, slots=True)
class Claim:
    """What the table must show, and whether it does."""

    text: str
    held: bool


@dataclass(frozen=True, slots=True)
class Factory:
    """The whole table."""

    columns: tuple[Column, Column, Column]
    claims: tuple[Claim, ...]
    images: int
    hour_s: float
    seed: int
    device: Device


def day(hour_s: float) -> tuple[Phase, ...]:
    """The plant's day with hours of so many seconds."""
    return tuple(replace(phase, seconds=phase.seconds * hour_s) for phase in _HOURS)


def play(seed: int = 7, hour_s: float = HOUR_S, *, trial_s: float = TRIAL_S, device: Device = T4) -> Factory:
    """Simulate the three columns; `trial_s`: how long each number of devices is tried."""
    patient = {"objective_s": None, "patience_s": _NEVER_S, "queue_length": _UNBOUNDED}
    ones = WorkerRules(device, max_batch=1, **patient)  # type: ignore[arg-type]
    full = WorkerRules(device, max_batch=32, window=Window.FIXED, eager_size=32, max_delay_s=_NEVER_S, **patient)  # type: ignore[arg-type]
    elastic = WorkerRules(device, max_batch=32, objective_s=OBJECTIVE_S, patience_s=5 * OBJECTIVE_S)
    phases = day(hour_s)
    columns = []
    for name, rules in (("fixed batch 1", ones), ("fixed batch 32", full), ("elastic 1..32", elastic)):
        needed, p95_s = devices_needed(rules, PEAK_PER_S, seed, trial_s)
        sizes = elastic_sizes(phases) if rules is elastic else ((0.0, needed or _stable(rules, PEAK_PER_S) + 1),)
        columns.append(_column(name, rules, phases, sizes, needed=(needed, p95_s), seed=seed, hour_s=hour_s))
    first, second, third = columns
    images = int(sum((phase.from_per_s + phase.to_per_s) / 2 * phase.seconds for phase in phases))
    return Factory((first, second, third), claims(first, second, third), images, hour_s, seed, device)


def elastic_sizes(phases: Sequence[Phase], step_s: float = 1.0) -> tuple[tuple[float, int], ...]:
    """(from second, workers): never more than 250 images/s a device, changed as the rate changes."""
    sizes: list[tuple[float, int]] = []
    for at_s in np.arange(0.0, seconds_of(phases), step_s).tolist():
        expected_per_s = max(rate_at(phases, at_s), rate_at(phases, at_s + step_s))
        size = max(ceil(expected_per_s / PLANNED_PER_S), 1)
        if not sizes or sizes[-1][1] != size:
            sizes.append((at_s, size))
    return tuple(sizes)


def devices_needed(rules: WorkerRules, rate_per_s: float, seed: int, trial_s: float = TRIAL_S) -> tuple[int | None, float]:
    """The smallest number of devices with p95 within the objective, and that p95; (None, the best p95) when none has.

    Tried from as many as carry the rate at all, up to ten. The devices are alike and each sees its share as Poisson
    arrivals, so one is simulated.
    """
    best_s = inf
    for devices in range(_stable(rules, rate_per_s), _MOST_DEVICES + 1):
        phases = (Phase("trial", trial_s, rate_per_s / devices, rate_per_s / devices),)
        run = Run(_settings(rules, phases, 1, seed), Plan("trial", ((0.0, 1),))).play()
        p95_s = percentile(run.latencies_s(trial_s / 12), 95)
        if p95_s <= OBJECTIVE_S:
            return devices, p95_s
        best_s = min(best_s, p95_s)
    return None, best_s


def percentile(latencies_s: npt.NDArray[np.float64], percent: float) -> float:
    """Nearest rank; images without an answer count as infinitely late."""
    return float(np.percentile(latencies_s, percent, method="inverted_cdf")) if len(latencies_s) else 0.0


def claims(ones: Column, full: Column, elastic: Column) -> tuple[Claim, ...]:
    """What the design promises of this table."""
    share = elastic.device_hours / ones.device_hours
    return (
        Claim(
            f"mean latency of the day at most 15 ms with {elastic.devices_at_peak} devices at the peak",
            elastic.mean_s <= 0.015 and elastic.devices_at_peak <= 5 and not elastic.unanswered,
        ),
        Claim("at night an image takes the engine's own 5 ms", elastic.night_s <= 0.0055),
        Claim("at least 70 % busy while the plant works", elastic.busy >= 0.70),
        Claim("4 devices suffice at 1,200/s with p95 within 100 ms", elastic.needed == 4),
        Claim("fixed batches of 1 need 7", ones.needed == 7),
        Claim("with fixed batches of 32 no number of devices suffices", full.needed is None),
        Claim("fixed batches of 32 take over 120 ms, and seconds at night", full.mean_s > 0.120 and full.night_s > 1.0),
        Claim(f"at most half the device hours of fixed batches of 1: {share:.1%}", share <= 0.50),
    )


def _stable(rules: WorkerRules, rate_per_s: float) -> int:
    """Devices whose full batches carry the rate at all."""
    return ceil(rate_per_s * rules.device.seconds(rules.max_batch) / rules.max_batch)


def _settings(rules: WorkerRules, phases: tuple[Phase, ...], first: int, seed: int) -> Settings:
    # The sizes are planned: workers are there when they are wanted, and their devices are free at once after it.
    fleet = FleetRules(rules, start_s=0.0, leave_s=0.0)
    return Settings(phases, fleet, first, fixed_batches=rules.objective_s is None, seed=seed)


def _column(
    name: str, rules: WorkerRules, phases: tuple[Phase, ...], sizes: Sequence[tuple[float, int]],
    *, needed: tuple[int | None, float], seed: int, hour_s: float,
) -> Column:  # fmt: skip
    whole_s, work_from_s, work_to_s = seconds_of(phases), phases[0].seconds, seconds_of(phases) - phases[-1].seconds
    run = Run(_settings(rules, phases, sizes[0][1], seed), Plan(name, sizes)).play((work_from_s, work_to_s))
    everyone, early, late = run.latencies_s(), run.latencies_s(0.0, work_from_s), run.latencies_s(work_to_s, whole_s)
    night = np.concatenate((early, late))
    device_s, work_s = run.fleet.device_s(0.0, whole_s), run.fleet.device_s(work_from_s, work_to_s)
    night_busy_s = run.busy_s(0.0, work_from_s) + run.busy_s(work_to_s, whole_s)
    return Column(
        name=name,
        mean_s=float(np.mean(everyone[np.isfinite(everyone)])),
        p95_s=percentile(everyone, 95),
        night_s=float(np.mean(night[np.isfinite(night)])),
        unanswered=int(np.count_nonzero(~np.isfinite(everyone))),
        busy=run.busy_s(work_from_s, work_to_s) / work_s,
        night_busy=night_busy_s / (device_s - work_s),
        devices_at_peak=max(size for _, size in sizes),
        needed=needed[0],
        needed_p95_s=needed[1],
        device_hours=device_s / hour_s,
    )
