"""The picture of a run: load, replicas, ceiling and batch, latency over time."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from yolastic_cli.demo.samples import Run, sent_per_s

_INK, _BLUE, _ORANGE, _GREY = "#1b1f24", "#0969da", "#d9480f", "#8c959f"


def draw(run: Run, title: str, path: Path) -> None:
    """Write a PNG of the run, 1500 x 1000 pixels.

    Raises:
        OSError: the file cannot be written.
    """
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": _GREY}):
        figure = Figure(figsize=(10, 6.67), dpi=150, layout="constrained")
        load, workers, batch, latency = figure.subplots(4, 1, sharex=True)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=_INK)
        at = [sample.at_s for sample in run.samples]
        sent = sent_per_s(run.answers, int(at[-1]) if at else 0)
        load.fill_between(range(len(sent)), sent, color=_BLUE, alpha=0.25, lw=0, label="images sent a second")
        load.plot(at, [sample.answered_per_s for sample in run.samples], color=_BLUE, lw=1.2, label="answered")
        workers.step(
            at, [sample.desired for sample in run.samples], where="post", color=_GREY, lw=1.2, ls="--", label="workers wanted"
        )
        workers.step(at, [sample.ready for sample in run.samples], where="post", color=_INK, lw=1.8, label="workers ready")
        ceilings = [(sample.at_s, sample.ceiling) for sample in run.samples if sample.ceiling is not None]
        batch.step(*_columns(ceilings), where="post", color=_GREY, lw=1.2, ls="--", label="batch ceiling")
        batches = [(sample.at_s, sample.batch) for sample in run.samples if sample.batch is not None]
        batch.plot(*_columns(batches), color=_ORANGE, lw=1.5, label="mean batch")
        for name, style, pick in (("p50", "-", "p50_s"), ("p95", ":", "p95_s")):
            points = [(s.at_s, getattr(s, pick) * 1000) for s in run.samples if getattr(s, pick) is not None]
            latency.plot(*_columns(points), color=_BLUE, lw=1.3, ls=style, label=f"latency {name}, ms")
        latency.set_xlabel("seconds")
        for axes in (load, workers, batch, latency):
            axes.set_ylim(bottom=0)
            axes.margins(x=0)
            axes.grid(axis="y", color=_GREY, alpha=0.25, lw=0.6)
            axes.legend(loc="lower left", bbox_to_anchor=(0, 0.98), borderaxespad=0, frameon=False, ncols=2, fontsize=9)
        workers.yaxis.get_major_locator().set_params(integer=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]
