"""`make bench`: measures the figures of RESULTS.md in one run, each with its settings, and writes them there. Ends by itself.

About 110 minutes in full on two cores, 30 of them the soak. `--only side_by_side cpu` runs some, `--quick` everything once and
briefly; both only print. `--only tune` tries every setting of every peer (half an hour) and keeps the best for the next runs.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import report
from benchmarks.abuse import abuse
from benchmarks.client import ROOT, client_words
from benchmarks.common import Row
from benchmarks.cpu import around_the_engine
from benchmarks.days import closed_loops
from benchmarks.elastic_step import elastic_step
from benchmarks.memory import planning, worker_at_rest
from benchmarks.operator_memory import operator_with_objects
from benchmarks.operator_scale import operator_at_scale
from benchmarks.overload import overload
from benchmarks.serving import real_model
from benchmarks.shared_device import lease_on_a_shared_device
from benchmarks.side_by_side import FIGURES, Comparison, compare, rows, tune
from benchmarks.soak import soak

_PLANT_LIMIT_S = 900.0


def yolo11n() -> Path | None:
    """YOLO11n built from its YAML (random weights: they do not matter for time), from the user's cache or made now."""
    path = Path.home() / ".cache/yolastic/models/yolo11n-640.onnx"
    if not path.exists():
        export = [os.environ.get("UV", "uv"), "run", "--isolated", "--package", "yolastic-cli", "--extra", "export", "python"]
        command = [*export, str(ROOT / "tools/build_model.py"), "yolo11n.yaml", str(path)]
        print("building YOLO11n with Ultralytics (the export extra, about 6 GB once) ...", flush=True)
        if subprocess.run(command, check=False).returncode != 0:
            return None
    return path


@dataclass(slots=True)
class Run:
    """One run's options, and what comes of it."""

    seconds: float
    repeats: int
    soak_minutes: float
    figures: Sequence[str] = tuple(FIGURES)
    rows: list[Row] = field(default_factory=list)
    comparison: Comparison | None = None
    plant: str | None = None

    def side_by_side(self) -> list[Row]:
        """Yolastic and its peers."""
        self.comparison = compare(self.seconds, self.repeats, self.figures)
        return rows(self.comparison)

    def overload(self) -> list[Row]:
        """Too many clients, and bursts."""
        return overload(self.seconds + 2, self.repeats)

    def abuse(self) -> list[Row]:
        """An honest client beside strangers who mean ill."""
        return abuse(self.seconds + 4, self.repeats)

    def real(self) -> list[Row]:
        """YOLO11n on the CPU."""
        model = yolo11n()
        figure = "real YOLO11n, 8 clients, share of a bare session loop"
        if model is None:
            return [Row(figure, ">= 0.92", "YOLO11n could not be built: the export extra is needed", False, "")]
        return real_model(model, 6 * self.seconds, self.repeats)

    def cpu(self) -> list[Row]:
        """CPU time of a request."""
        return around_the_engine(2 * self.seconds, self.repeats)

    def factory(self) -> list[Row]:
        """The plant's day."""
        began_s = time.monotonic()
        command = [sys.executable, "-m", "yolastic_cli", "simulate", "factory"]
        wide = {**os.environ, "COLUMNS": "120"}
        done = subprocess.run(command, env=wide, capture_output=True, text=True, check=False, timeout=_PLANT_LIMIT_S)
        self.plant = done.stdout
        print(done.stdout, flush=True)
        text = (
            f"below, in {time.monotonic() - began_s:.0f} s" if done.returncode == 0 else f"failed: {done.stderr[-300:].strip()}"
        )
        settings = "`yolastic simulate factory`"
        return [Row("the plant's day: the table, all three columns", "printed", text, done.returncode == 0, settings)]

    def memory(self) -> list[Row]:
        """Workers at rest, and their plans."""
        model = yolo11n()
        return [*worker_at_rest(), *([*worker_at_rest(model), planning(model)] if model else [])]

    def operator(self) -> list[Row]:
        """The operator with fifty objects."""
        return operator_with_objects()

    def lease(self) -> list[Row]:
        """A burst on a shared device."""
        return lease_on_a_shared_device(self.repeats)

    def scale(self) -> list[Row]:
        """The operator with five hundred objects and two thousand workers."""
        return operator_at_scale()

    def step(self) -> list[Row]:
        """From a step of load to the burst tier, and to more workers."""
        return elastic_step(self.repeats)

    def days(self) -> list[Row]:
        """Whole days beside other autoscalers."""
        return closed_loops()

    def soak(self) -> list[Row]:
        """Half an hour of everything."""
        return soak(self.soak_minutes) if self.soak_minutes else []

    def tune(self) -> list[Row]:
        """The peers' settings."""
        tune(self.seconds)
        report.write_settings()
        return []

    def one(self, name: str) -> None:
        """One benchmark: its rows, or the row that says why there are none."""
        began_s = time.monotonic()
        print(f"== {name}", flush=True)
        bench: Callable[[], list[Row]] = getattr(self, name)
        try:
            found = bench()
        except Exception as error:
            found = [Row(name, "", f"failed: {type(error).__name__}: {str(error)[-300:]}".replace("\n", " "), False, "")]
        self.rows += found
        for row in found:
            held = "yes" if row.held else "NO"
            print(f"{row.figure}: {row.measured} (reach {row.reach}: {held}) — {row.settings}", flush=True)
        print(f"== {name}: {time.monotonic() - began_s:.0f} s", flush=True)


_FULL = (
    "side_by_side", "overload", "abuse", "real", "cpu", "factory", "days", "step", "lease", "memory", "operator", "scale", "soak",
)  # fmt: skip


def _ended(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def main() -> int:
    """Run all benchmarks, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, help="length of one load, default 4")
    parser.add_argument("--repeats", type=int, help="rounds a figure is the median of, default 5")
    parser.add_argument("--soak-minutes", type=float, help="length of the soak, default 30; 0 leaves it out")
    parser.add_argument("--figures", nargs="+", choices=list(FIGURES), default=list(FIGURES), help="of the side by side")
    parser.add_argument("--quick", action="store_true", help="2 s a load, once, 1 minute of soak")
    parser.add_argument("--only", nargs="+", choices=[*_FULL, "tune"], default=None)
    options = parser.parse_args()
    seconds, repeats, minutes = (2.0, 1, 1.0) if options.quick else (4.0, 5, 30.0)
    run = Run(
        seconds if options.seconds is None else options.seconds,
        repeats if options.repeats is None else options.repeats,
        minutes if options.soak_minutes is None else options.soak_minutes,
        options.figures,
    )
    signal.signal(signal.SIGTERM, _ended)  # so that what was started is ended, too
    print(f"load: {client_words()}", flush=True)
    for name in options.only or _FULL:
        run.one(name)
    print(f"all values: {report.keep(run.rows, run.comparison).relative_to(ROOT)}", flush=True)
    if options.only is None and not options.quick:
        report.write_results(run.rows, run.comparison, run.plant)
    return 0 if all(row.held for row in run.rows) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; what was started is ended")
