"""Overload: what is left for clients that wait only so long, when there are far too many of them."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import ROOT, Row, random_jpegs, served

_SIMULATED = ("--backend", "simulated", "--simulate", "fixed_ms=20,per_image_ms=1,memory_limit_mib=65536", "--max-batch", "32")
_CAPACITY_PER_S = 32 / (0.020 + 0.001 * 32)
_BACK_TO_NORMAL = 1.2
"""The p50 of one client counts as normal again at this many times what it was before."""


def _load(kind: str, url: str, image: bytes, options: dict[str, Any]) -> dict[str, Any]:
    """Run the clients in a process of their own; what they saw."""
    parts = urlsplit(url)
    with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
        file.write(image)
        file.flush()
        program = [sys.executable, str(ROOT / "benchmarks/overload_client.py"), kind, str(parts.hostname), str(parts.port)]
        told = subprocess.run([*program, file.name, json.dumps(options)], capture_output=True, text=True, check=True, timeout=180)
    print(f"  {kind} {options}: {told.stdout.strip()}", file=sys.stderr, flush=True)
    return dict(json.loads(told.stdout))


def crowd(seconds: float, repeats: int, *, tell: bool) -> list[Row]:
    """512 clients with 500 ms patience in a closed loop: useful answers a second, and how soon it is over when they go."""
    (image,) = random_jpegs(1, 160, 120, 85)
    options = {"clients": 512, "seconds": seconds, "patience_ms": 500, "tell": tell, "pause_s": 0.05}
    with served(_SIMULATED) as worker:
        seen = [_load("crowd", worker.url, image, options) for _ in range(repeats)]
    useful_per_s = statistics.median(one["useful_per_s"] for one in seen)
    share, reach = useful_per_s / _CAPACITY_PER_S, 0.90 if tell else 0.80
    back = statistics.median(one["after_p50_ms"] / one["before_p50_ms"] for one in seen)
    who = "512 clients with 500 ms patience, " + ("told by header" if tell else "not told: they hang up and come again")
    settings = f"simulated 20 ms + 1 ms/image, ceiling 32, 50 ms pause when refused, {repeats} runs of {seconds:.0f} s, median"
    return [
        Row(f"{who}: useful answers, share of capacity", f">= {reach:.2f}", f"{share:.3f} ({useful_per_s:.0f}/s)",
            share >= reach, settings),
        Row(f"{who}: p50 of one client 1 s after they left", f"<= {_BACK_TO_NORMAL} x before", f"{back:.2f} x",
            back <= _BACK_TO_NORMAL, settings),
    ]  # fmt: skip


def bursts(repeats: int) -> list[Row]:
    """Ten times the base rate for 2 s, clients that say 100 ms: who is answered is answered in time."""
    (image,) = random_jpegs(1, 160, 120, 85)
    options = {"base_per_s": 200, "bursts": 3, "period_s": 5.0, "objective_ms": 100}
    with served((*_SIMULATED, "--objective-ms", "100")) as worker:
        seen = [_load("bursts", worker.url, image, options) for _ in range(repeats)]
    share = statistics.median(one["within"] / max(1, one["answered"]) for one in seen)
    per_s = statistics.median(one["answered_per_s"] for one in seen)
    refused_ms = statistics.median(one["refused_p50_ms"] or 0.0 for one in seen)
    settings = f"simulated 20 ms + 1 ms/image, Poisson 200/s, 2,000/s for 2 s every 5 s, {repeats} runs of 3 bursts, median"
    text = f"{share:.4f} (answered {per_s:.0f}/s, refused after {refused_ms:.1f} ms at the median)"
    return [Row("bursts x10 on a 100 ms objective: in time / answered", ">= 0.99", text, share >= 0.99, settings)]


def overload(seconds: float, repeats: int) -> list[Row]:
    """All rows."""
    return [*crowd(seconds, repeats, tell=True), *crowd(seconds, repeats, tell=False), *bursts(repeats)]


def main() -> int:
    """Run alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=["told", "untold", "bursts"])
    options = parser.parse_args()
    rows: list[Row] = []
    if options.only in (None, "told"):
        rows += crowd(options.seconds, options.repeats, tell=True)
    if options.only in (None, "untold"):
        rows += crowd(options.seconds, options.repeats, tell=False)
    if options.only in (None, "bursts"):
        rows += bursts(options.repeats)
    for row in rows:
        print(f"{row.figure}: {row.measured} (reach {row.reach}: {'yes' if row.held else 'NO'}) — {row.settings}")
    return 0 if all(row.held for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
