"""Whole days in a closed loop on a fast clock, beside autoscalers of other kinds: `yolastic simulate DAY` as rows."""

from benchmarks.common import Row

from yolastic_cli.simulate import days
from yolastic_cli.simulate.arrivals import seconds_of
from yolastic_cli.simulate.days import Comparison


def closed_loops() -> list[Row]:
    """Each day's misses, device hours and scale events, and what is asked of the plant's day beside."""
    return [row for name in days.DAYS for row in _rows(name, days.play(days.DAYS[name]))]


def _rows(name: str, found: Comparison) -> list[Row]:
    own, best, least = found.outcomes[0], found.best, found.oracle
    settings = (
        f"`yolastic simulate {name}`: {found.day.about}; {found.images:,} images, worker start {found.day.start_s:.0f} s, "
        f"Kubernetes' default behavior for all, seed {found.seed}; best other: {best.name}"
    )
    fewer, _, _, *of_the_plant = found.claims
    misses = (
        f"{own.misses:.2%}; best other {best.misses:.2%}; an order of the right number at the very instant of each change "
        f"{least.misses:.2%}"
    )
    hours, events = own.device_hours / best.device_hours, f"{own.changes}; best other {best.changes}"
    rows = [
        Row(f"{name}: misses", "<= 1/5 of the best other's", misses, fewer.held, settings),
        Row(f"{name}: device hours, share of the best other's", "<= 0.85", f"{hours:.2f}", hours <= 0.85, settings),
        Row(f"{name}: scale events", "no more", events, own.changes <= best.changes, settings),
    ]
    if found.day.fixed_devices is not None:
        share = own.device_hours * 3600 / (found.day.fixed_devices * seconds_of(found.day.phases))
        told = f"{own.most} devices at the peak, {share:.0%} of the device hours, p95 {own.p95_s * 1e3:.0f} ms"
        reach = f"4-5 devices where fixed batch 1 needs {found.day.fixed_devices}, <= 50 % of its hours, p95 <= 100 ms"
        held = all(claim.held for claim in of_the_plant)
        text = f"{settings}; p95 outside the first minute of a step"
        rows.append(Row("the plant's day in a closed loop", reach, told, held, text))
    return rows
