"""`make bench`: measures the figures of RESULTS.md in one run and writes them there. Ends by itself in a few minutes."""

import argparse
import datetime
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import ROOT, Row, machine
from benchmarks.memory import worker_at_rest
from benchmarks.operator_memory import operator_with_objects
from benchmarks.serving import real_model, simulated_accelerator

_BEGIN, _END = "<!-- measured -->", "<!-- /measured -->"


def yolo11n() -> Path | None:
    """YOLO11n built from its YAML (random weights: they do not matter for time), from the user's cache or made now."""
    path = Path.home() / ".cache/yolastic/models/yolo11n-640.onnx"
    if not path.exists():
        export = ["uv", "run", "--isolated", "--package", "yolastic-cli", "--extra", "export", "python"]
        command = [*export, str(ROOT / "tools/build_model.py"), "yolo11n.yaml", str(path)]
        print("building YOLO11n with Ultralytics (the export extra, about 6 GB once) ...", flush=True)
        if subprocess.run(command, check=False).returncode != 0:
            return None
    return path


def write(rows: list[Row]) -> None:
    """Replace the measured table of RESULTS.md."""
    table = ["| figure | reach | measured | | settings |", "|---|---|---|---|---|"]
    table += [
        f"| {row.figure} | {row.reach} | {row.measured} | {'yes' if row.held else '**no**'} | {row.settings} |" for row in rows
    ]
    head = f"Measured {datetime.datetime.now(datetime.UTC):%Y-%m-%d} by `make bench` on: {machine()}."
    path = ROOT / "benchmarks/RESULTS.md"
    text = path.read_text()
    before, after = text.split(_BEGIN)[0], text.split(_END)[1]
    path.write_text("\n".join([before + _BEGIN, "", head, "", *table, "", _END + after]))


def main() -> int:
    """Run all benchmarks, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of one closed loop")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=["simulated", "real", "memory", "operator"], default=None)
    options = parser.parse_args()
    model = yolo11n() if options.only is None or {"real", "memory"} & set(options.only) else None
    benches: dict[str, Callable[[], list[Row]]] = {
        "simulated": lambda: simulated_accelerator(options.seconds, options.repeats),
        "real": lambda: real_model(model, options.seconds, options.repeats) if model else [],
        "memory": lambda: [*worker_at_rest(), *(worker_at_rest(model) if model else [])],
        "operator": operator_with_objects,
    }
    rows = []
    for name, bench in benches.items():
        if options.only is None or name in options.only:
            found = bench()
            rows += found
            for row in found:
                print(
                    f"{row.figure}: {row.measured} (reach {row.reach}: {'yes' if row.held else 'NO'}) — {row.settings}",
                    flush=True,
                )
    if options.only is None:
        write(rows)
    return 0 if all(row.held for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
