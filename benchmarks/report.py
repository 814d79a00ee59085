"""RESULTS.md and SETTINGS.md: tables made from what was measured."""

import datetime
import json
import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.client import ROOT, client_words
from benchmarks.common import Row, machine
from benchmarks.peer_processes import versions
from benchmarks.peer_settings import PEERS, Peer
from benchmarks.side_by_side import FIGURES, TUNED, Comparison, table

_BEGIN, _END = "<!-- measured -->", "<!-- /measured -->"


def rows_table(rows: Sequence[Row]) -> list[str]:
    """Markdown of the figures."""
    lines = ["| figure | reach | measured | | settings |", "|---|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row.figure} | {row.reach} | {row.measured} | {'yes' if row.held else '**no**'} | {row.settings} |")
    return lines


def write_results(rows: Sequence[Row], comparison: Comparison | None, plant: str | None) -> None:
    """Replace the measured part of RESULTS.md."""
    head = f"Measured {datetime.datetime.now(datetime.UTC):%Y-%m-%d} by `make bench` on: {machine()}."
    lines = [_BEGIN, "", head, "", *rows_table(rows), ""]
    if comparison is not None:
        lines += [
            "## Side by side",
            "",
            f"Medians of {comparison.repeats} rounds, everybody in turn. [SETTINGS.md](SETTINGS.md)",
            "",
        ]
        lines += [*table(comparison), ""]
    if plant is not None:
        lines += ["## The plant's day", "", "`yolastic simulate factory`:", "", "```", plant.rstrip(), "```", ""]
    path = ROOT / "benchmarks/RESULTS.md"
    text = path.read_text()
    path.write_text(text.split(_BEGIN)[0] + "\n".join([*lines, _END]) + text.split(_END)[1])


def _peer_section(peer: Peer, best: dict[str, str], tried: dict[str, dict[str, float]]) -> list[str]:
    lines = [f"## {peer.name} {versions(peer)}", "", f"A request is {peer.note}.", ""]
    lines += ["| setting | in words | " + " | ".join(figure.title for name, figure in FIGURES.items() if name != "told") + " |"]
    lines += ["|---|---|" + "---|" * (len(FIGURES) - 1)]
    for setting in peer.settings:
        cells = []
        for name, figure in FIGURES.items():
            if name == "told":
                continue
            value = tried.get(setting.name, {}).get(name)
            text = "" if value is None else figure.text(value)
            cells.append(f"**{text}**" if best.get(name) == setting.name else text)
        lines.append(f"| {setting.name} | {setting.words} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def write_settings() -> None:
    """Write SETTINGS.md from peers/tuned.json."""
    tuned = json.loads(TUNED.read_text())
    lines = (ROOT / "benchmarks/settings_head.md").read_text().rstrip().splitlines()
    tried = f"Tried by `python benchmarks/run.py --only tune` ({tuned['seconds']:g} s a load, once) on: {tuned['machine']}."
    lines += ["", f"{tried} In bold: what `make bench` runs for the figure, beside the default.", ""]
    for peer in PEERS:
        if peer.name in tuned["failures"]:
            lines += [f"{peer.name}: {tuned['failures'][peer.name]}", ""]
        lines += _peer_section(peer, tuned["best"].get(peer.name, {}), tuned["tried"].get(peer.name, {}))
    (ROOT / "benchmarks/SETTINGS.md").write_text("\n".join(lines))


def _finite(value: Any) -> Any:
    """JSON has no infinity: None instead."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def keep(rows: Sequence[Row], comparison: Comparison | None) -> Path:
    """All values of a run, as JSON in runs/."""
    path = ROOT / "runs" / f"bench-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}.json"
    path.parent.mkdir(exist_ok=True)
    found = {
        "machine": machine(),
        "kernel": platform.release(),
        "load_average": os.getloadavg(),
        "client": client_words(),
        "rows": [[row.figure, row.reach, row.measured, row.held, row.settings] for row in rows],
        "side_by_side": _finite(comparison.values) if comparison else None,
        "failures": comparison.failures if comparison else None,
    }
    path.write_text(json.dumps(found, indent=1) + "\n")
    return path
