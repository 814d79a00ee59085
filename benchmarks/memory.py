"""Memory at rest, and what it takes to plan it."""

import time
from pathlib import Path

from benchmarks.client import ROOT, Target, closed_loop
from benchmarks.common import Row, random_jpegs, served

from yolastic_worker.memory.planner import plan


def resident_bytes(pid: int) -> int:
    """Resident set of a process, bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def worker_at_rest(model: Path | None = None) -> list[Row]:
    """Resident memory of a worker at rest after a little load, beyond the model's own arena (its weights and one batch)."""
    path = model or ROOT / "examples/models/shapes.onnx"
    with served(("--model", str(path), "--max-batch", "8")) as worker:
        closed_loop(Target(worker.url, random_jpegs(1, 640, 480)), 4, 3.0).clean()
        time.sleep(2.0)  # at rest: nothing runs any more
        resident = resident_bytes(worker.pid)
        fit = worker.state()["memory"]["fit"]
    arena = path.stat().st_size + max(0.0, fit["per_image"])
    beyond_mib = (resident - arena) / 2**20
    measured = f"{beyond_mib:.0f} MB ({resident / 2**20:.0f} MB in all)"
    figure = f"worker at rest, {path.stem}, beyond weights and one image"
    return [Row(figure, "<= 250 MB", measured, beyond_mib <= 250, "CPU runtime, --max-batch 8")]


def planning(model: Path) -> Row:
    """CPU time of a plan from the file alone: what starting without measured figures costs."""
    content, taken_s = model.read_bytes(), []
    for _ in range(7):
        began_s = time.process_time()
        plan(content)
        taken_s.append(time.process_time() - began_s)
    figure = f"memory of {model.stem} planned from its file, CPU time"
    return Row(figure, "<= 0.1 s", f"{min(taken_s):.3f} s", min(taken_s) <= 0.1, "best of 7")
