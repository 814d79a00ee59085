"""What a simulation found, for people and as JSON."""

from collections.abc import Callable
from dataclasses import asdict
from math import isfinite
from typing import Any

from rich.console import Console
from rich.table import Table

from yolastic_cli.simulate.days import Comparison
from yolastic_cli.simulate.factory import OBJECTIVE_S, PEAK_PER_S, Claim, Column, Factory


def as_json(found: Any) -> dict[str, Any]:
    """Every number; what is infinite (an image without an answer) is null."""
    plain = _finite(asdict(found))
    assert isinstance(plain, dict)
    return plain


def show_factory(found: Factory, console: Console) -> None:
    """The table and what it must show."""
    device = found.device
    console.print(
        f"A plant with 16 cameras: two shifts of 1,000 to 1,200 images/s, 8/s at night; objective {_ms(OBJECTIVE_S)} at p95.\n"
        f"Simulated device: {device.fixed_s * 1e3:g} ms + {device.per_image_s * 1e3:g} ms an image.\n"
        f"The worker's own batcher, admission, tiers and speed model, on a clock on which an hour takes {found.hour_s:g} s "
        f"({found.images:,} images a column, seed {found.seed}).\nHTTP, decoding and postprocessing take no time here; the sizes "
        "are planned, workers are there when they are wanted.",
        highlight=False,
        soft_wrap=True,
    )
    baseline_hours = found.columns[0].device_hours
    rows: tuple[tuple[str, Callable[[Column], str]], ...] = (
        ("latency of one image, day mean", lambda column: _ms(column.mean_s)),
        ("latency of one image, day p95", lambda column: _ms(column.p95_s)),
        ("latency at night, mean", lambda column: _ms(column.night_s)),
        ("images without an answer", lambda column: f"{column.unanswered}"),
        ("busy while the plant works", lambda column: f"{column.busy:.0%}"),
        ("busy at night", lambda column: f"{column.night_busy:.1%}"),
        ("devices in this day", lambda column: f"{column.devices_at_peak} at the peak"),
        (f"devices needed at {PEAK_PER_S:,.0f}/s", _needed),
        ("device hours", lambda column: f"{column.device_hours:.0f} ({column.device_hours / baseline_hours:.0%})"),
    )
    table = Table()
    table.add_column("")
    for column in found.columns:
        table.add_column(column.name, no_wrap=True)
    for name, cell in rows:
        table.add_row(name, *(cell(column) for column in found.columns))
    console.print(table)
    show_claims(found.claims, console)


def show_day(found: Comparison, console: Console) -> None:
    """Everybody's outcome and what was asked of it."""
    device, day = found.day.device, found.day
    console.print(
        f"{day.name}: {day.about}.\nSimulated device: {device.fixed_s * 1e3:g} ms + {device.per_image_s * 1e3:g} ms an image; "
        f"clients wait {day.objective_s * 1e3:g} ms, the objective; {found.images:,} images, seed {found.seed}.\n"
        f"A worker is ready {day.start_s:g} s after its order. The worker's own state machines; the operator's own loop,\n"
        "every 5 s; the others every 15 s, for the same workers with the same batches. HTTP and decoding take no time here.",
        highlight=False,
        soft_wrap=True,
    )
    table = Table()
    for name in ("sized by", "misses", "p95", "device hours", "scale events", "most workers"):
        table.add_column(name, no_wrap=True)
    for one in (*found.outcomes, found.oracle):
        best = " (best other)" if one is found.best else ""
        table.add_row(
            one.name + best, f"{one.misses:.3%}", _ms(one.p95_s), f"{one.device_hours:.2f}", f"{one.changes}", f"{one.most}"
        )
        if one is found.outcomes[-1]:
            table.add_section()
    console.print(table)
    own, other, least = found.outcomes[0].misses, found.best.misses, found.oracle.misses
    console.print(
        f"{found.oracle.name.capitalize()} the load changes, of the right number, with the same start and behavior, misses "
        f"{least:.2%}: the price of starting a worker.\nBeyond it: Yolastic {max(own - least, 0):.2%}, the best other "
        f"{max(other - least, 0):.2%}.",
        highlight=False,
        soft_wrap=True,
    )
    show_claims(found.claims, console)


def show_claims(claims: tuple[Claim, ...], console: Console) -> None:
    """One line each."""
    for claim in claims:
        console.print(f"{'  ok' if claim.held else 'FAIL'}  {claim.text}", highlight=False, markup=False, soft_wrap=True)


def _needed(column: Column) -> str:
    if column.needed is None:
        return f"none (p95 {_ms(column.needed_p95_s)})"
    return f"{column.needed} (p95 {_ms(column.needed_p95_s)})"


def _ms(seconds: float) -> str:
    if not isfinite(seconds):
        return "no answer"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _finite(value: Any) -> Any:
    match value:
        case float() if not isfinite(value):
            return None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value
