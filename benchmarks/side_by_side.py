"""Yolastic and its peers on the same simulated accelerator, under the same load, in turn: the figures that are compared."""

import json
import math
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.client import ROOT, Outcome, Target, client_words, closed_loop, open_loop
from benchmarks.common import SIMULATED, Row, machine, random_jpegs, served
from benchmarks.overload import CAPACITY_PER_S, OBJECTIVE_MS, PATIENCE_MS, PAUSE_MS, alone_ms
from benchmarks.peer_processes import PeerUnavailableError, serving, versions
from benchmarks.peer_settings import PEERS, Peer

TUNED = ROOT / "benchmarks/peers/tuned.json"
OPEN_SHARE = 0.8
_BASE_PER_S, _CALM_S, _BURST_S, _BURSTS = 200.0, 1.5, 2.0, 2
OURS = "Yolastic"


@dataclass(frozen=True, slots=True)
class Figure:
    """What is measured."""

    title: str
    text: Callable[[float], str]
    higher: bool = True
    """Is more better?"""

    def better(self, values: Sequence[float]) -> float:
        """The best of them."""
        return max(values) if self.higher else min(values)


FIGURES: Mapping[str, Figure] = {
    "share": Figure("64 clients, share of 615/s", lambda value: f"{value:.3f}"),
    "p50": Figure("1 client, p50", lambda value: f"{value:.1f} ms", higher=False),
    "open": Figure(
        "Poisson at 80 % of capacity, p99", lambda value: f"{value:.0f} ms" if value < 1e6 else "not all answered", higher=False
    ),
    "untold": Figure("512 clients, 500 ms patience, not told: useful answers, share of capacity", lambda value: f"{value:.3f}"),
    "told": Figure("the same, told by header", lambda value: f"{value:.3f}"),
    "back": Figure(
        "p50 of one client 1 s after the 512 left, times before",
        lambda value: f"{value:.1f}" if value < 1e6 else "no answer",
        higher=False,
    ),
    "burst": Figure("bursts x10: within 100 ms / answered", lambda value: f"{value:.3f}"),
    "burst_rate": Figure("bursts x10: within 100 ms, /s", lambda value: f"{value:.0f}"),
}
_LEADING = {"burst": "burst_rate", "back": "untold"}
"""Whose best setting decides."""
Values = dict[str, float]


def _settle(target: Target, normal_ms: float) -> None:
    """Let a server work off what an earlier load left, for 10 s at most."""
    deadline_s = time.monotonic() + 10
    while alone_ms(target, 0.0, 0.3) > 1.5 * normal_ms and time.monotonic() < deadline_s:
        time.sleep(0.3)


def _crowd(target: Target, seconds: float, normal_ms: float, *, told: bool) -> Values:
    """512 clients that wait 500 ms, hang up and come again; then one client after a second."""
    _settle(target, normal_ms)
    seen = closed_loop(target, 512, seconds, warm_s=1.0, patience_ms=PATIENCE_MS, told=told, pause_ms=PAUSE_MS)
    after_ms = alone_ms(target, 1.0, 1.0)
    return {"told" if told else "untold": seen.useful_per_s / CAPACITY_PER_S, "back": after_ms / normal_ms}


def _bursts(target: Target, seed: int) -> Values:
    phases = [(_BASE_PER_S, _CALM_S), (10 * _BASE_PER_S, _BURST_S)] * _BURSTS
    found = open_loop(target, phases, seed=seed, objective_ms=OBJECTIVE_MS)[1::2]
    useful, answered = sum(one.useful for one in found), sum(one.codes.get("200", 0) for one in found)
    return {"burst": useful / answered if answered else 0.0, "burst_rate": useful / (_BURSTS * _BURST_S)}


def _open(target: Target, seconds: float, seed: int) -> Values:
    rate = OPEN_SHARE * CAPACITY_PER_S
    found: Outcome = open_loop(target, [(rate, 1.0), (rate, seconds)], seed=seed)[-1]
    whole = found.p99_ms is not None and not found.unanswered and not found.lost and set(found.codes) == {"200"}
    return {"open": found.p99_ms if whole and found.p99_ms is not None else math.inf}


def measure(target: Target, wanted: set[str], seconds: float, seed: int, *, reads_patience: bool) -> Values:
    """The figures of one running server, the gentle loads first."""
    normal_ms = alone_ms(target, 0.5, max(1.5, seconds / 2))
    values: Values = {"p50": normal_ms}
    if "share" in wanted:
        values["share"] = closed_loop(target, 64, seconds, warm_s=1.0).ok_per_s / CAPACITY_PER_S
    if "open" in wanted:
        values |= _open(target, seconds, seed)
    if {"burst", "burst_rate"} & wanted:
        values |= _bursts(target, seed)
    if reads_patience and "told" in wanted:
        values |= _crowd(target, seconds, normal_ms, told=True)
    if {"untold", "back"} & wanted:
        values |= _crowd(target, seconds, normal_ms, told=False)
    return {name: value for name, value in values.items() if name in wanted}


@contextmanager
def _ours(image: bytes, *more: str) -> Iterator[Target]:
    with served((*SIMULATED, *more)) as worker:
        yield Target(worker.url, (image,))


@dataclass(slots=True)
class Comparison:
    """All that was measured: server, setting, figure -> one value a repeat."""

    seconds: float
    repeats: int
    values: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, server: str, setting: str, values: Values) -> None:
        """One repeat."""
        figures = self.values.setdefault(server, {}).setdefault(setting, {})
        for figure, value in values.items():
            figures.setdefault(figure, []).append(value)

    def median(self, server: str, setting: str, figure: str) -> float | None:
        """The median, or None where it was not measured."""
        found = self.values.get(server, {}).get(setting, {}).get(figure)
        return statistics.median(found) if found else None

    def best(self, server: str, figure: str) -> tuple[float, str] | None:
        """The median at the best of a server's settings, and its name; figures of one load share one setting."""
        leading = _LEADING.get(figure, figure)
        found = [
            (value, name) for name in self.values.get(server, {}) if (value := self.median(server, name, leading)) is not None
        ]
        if not found:
            return None
        best = FIGURES[leading].better([value for value, _ in found])
        name = next(name for value, name in found if value == best)
        value = self.median(server, name, figure)
        return None if value is None else (value, name)


def _say(server: str, setting: str, values: Values) -> None:
    told = ", ".join(f"{name} {FIGURES[name].text(value)}" for name, value in values.items())
    print(f"  {server} ({setting}): {told}", flush=True)


def _wanted(peer: Peer) -> dict[str, set[str]]:
    """The settings to run and the figures of each: everything at default, and each figure at its best known setting."""
    tuned: dict[str, str] = json.loads(TUNED.read_text())["best"].get(peer.name, {}) if TUNED.exists() else {}
    wanted: dict[str, set[str]] = {setting.name: set() for setting in peer.settings}
    for figure, setting in tuned.items():
        wanted.get(setting, set()).add(figure)
    return {**wanted, peer.settings[0].name: set(FIGURES) - {"told"}}


def _measure_peer(comparison: Comparison, peer: Peer, wanted: Mapping[str, set[str]], seed: int, image: bytes) -> None:
    for setting in peer.settings:
        figures = wanted.get(setting.name)
        if not figures or peer.name in comparison.failures:
            continue
        try:
            with serving(peer, setting, image) as target:
                values = measure(target, figures, comparison.seconds, seed, reads_patience=False)
        except PeerUnavailableError as error:
            comparison.failures[peer.name] = f"{setting.name}: {error}"
            print(f"  {peer.name} ({setting.name}): {error}", flush=True)
            continue
        comparison.add(peer.name, setting.name, values)
        _say(peer.name, setting.name, values)


def compare(seconds: float, repeats: int, figures: Collection[str] = tuple(FIGURES)) -> Comparison:
    """Everybody in turn, `repeats` times, for these figures: Yolastic, then each peer at its defaults and at its best."""
    comparison = Comparison(seconds, repeats)
    (image,) = random_jpegs(1, 160, 120, 85)
    wanted = {peer.name: {setting: found & set(figures) for setting, found in _wanted(peer).items()} for peer in PEERS}
    for repeat in range(repeats):
        print(f"side by side, round {repeat + 1} of {repeats}", flush=True)
        with _ours(image) as target:
            values = measure(target, set(figures) - {"burst", "burst_rate"}, seconds, 7 + repeat, reads_patience=True)
        if {"burst", "burst_rate"} & set(figures):
            with _ours(image, "--objective-ms", f"{OBJECTIVE_MS:.0f}") as target:
                told = Target(target.url, target.bodies, headers=(f"X-Request-Timeout-Ms: {OBJECTIVE_MS:.0f}",))
                values |= _bursts(told, 7 + repeat)
        comparison.add(OURS, "default", values)
        _say(OURS, "default", values)
        for peer in PEERS:
            _measure_peer(comparison, peer, wanted[peer.name], 7 + repeat, image)
    return comparison


def rows(comparison: Comparison) -> list[Row]:
    """The figures that are to be better than every peer's."""
    settings = (
        f"simulated 20 ms + 1 ms/image, limit 32, 160x120 JPEGs (ours letterboxes to 320x320), "
        f"{comparison.repeats} rounds of {comparison.seconds:.0f} s "
        f"a load in turn with the peers, medians; {client_words()}"
    )
    reaches: tuple[tuple[str, str, str, Callable[[float], bool]], ...] = (
        ("share", "64 clients, closed loop, share of the ideal 615/s", ">= 0.98, above every peer", lambda value: value >= 0.98),
        ("p50", "1 client, p50 (ideal 21 ms)", "<= 22.5 ms, below every peer", lambda value: value <= 22.5),
        ("open", "open loop (Poisson) at 80 % of capacity, p99", "below every peer", math.isfinite),
    )
    found = []
    for figure, title, reach, fine in reaches:
        mine = comparison.median(OURS, "default", figure)
        if mine is None:
            continue
        others = [(best[0], peer.name, best[1]) for peer in PEERS if (best := comparison.best(peer.name, figure))]
        held, text = fine(mine), FIGURES[figure].text
        measured = text(mine)
        if others:
            value = FIGURES[figure].better([one[0] for one in others])
            _, name, setting = next(one for one in others if one[0] == value)
            held = held and FIGURES[figure].better([mine, value]) == mine and mine != value
            measured += f"; best peer {text(value)} ({name}, {setting})"
        found.append(Row(title, reach, measured, held, settings))
    return found


def table(comparison: Comparison) -> list[str]:
    """Markdown: a line for Yolastic, and two for each peer."""
    lines = [
        "| server | settings | " + " | ".join(figure.title for figure in FIGURES.values()) + " |",
        "|---|---|" + "---|" * len(FIGURES),
    ]

    def line(server: str, settings: str, cells: Mapping[str, float | None]) -> str:
        told = [figure.text(value) if (value := cells[name]) is not None else "" for name, figure in FIGURES.items()]
        return f"| {server} | {settings} | " + " | ".join(told) + " |"

    lines.append(line(f"**{OURS}**", "default", {name: comparison.median(OURS, "default", name) for name in FIGURES}))
    for peer in PEERS:
        shown = f"{peer.name} {versions(peer)}"
        if peer.name in comparison.failures:
            lines.append(f"| {shown} | not measured in full: {comparison.failures[peer.name]} |" + " |" * len(FIGURES))
        default = {name: comparison.median(peer.name, "default", name) for name in FIGURES}
        best = {name: found[0] if (found := comparison.best(peer.name, name)) else None for name in FIGURES}
        lines.append(line(shown, "default", default))
        lines.append(line(shown, "best for each figure", best))
    return lines


def tune(seconds: float) -> None:
    """Try every setting of every peer once, and keep which is best for each figure in benchmarks/peers/tuned.json."""
    comparison = Comparison(seconds, 1)
    (image,) = random_jpegs(1, 160, 120, 85)
    for peer in PEERS:
        print(f"settings of {peer.name}", flush=True)
        _measure_peer(comparison, peer, {setting.name: set(FIGURES) - {"told"} for setting in peer.settings}, 7, image)
    best = {peer.name: {name: found[1] for name in FIGURES if (found := comparison.best(peer.name, name))} for peer in PEERS}
    tried = {
        server: {
            setting: {figure: _round(values[0]) for figure, values in figures.items()} for setting, figures in settings.items()
        }
        for server, settings in comparison.values.items()
    }
    kept = {"machine": machine(), "seconds": seconds, "best": best, "tried": tried, "failures": comparison.failures}
    TUNED.write_text(json.dumps(kept, indent=1) + "\n")


def _round(value: float) -> float:
    return round(value, 3) if math.isfinite(value) else 1e9
