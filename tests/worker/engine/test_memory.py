"""Memory of a real session: what shrinking gives back, and an out-of-memory that is an answer. On the host, by its own word."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
START = """
import json, resource, sys
from pathlib import Path
import numpy as np
from yolastic_worker.engine.agreement import probe_images
from yolastic_worker.engine.onnxruntime import OnnxOptions, OnnxRuntimeEngine
from yolastic_worker.memory.probe import resident_bytes
from yolastic_worker.types import OutOfDeviceMemory
engine = OnnxRuntimeEngine(OnnxOptions(model=Path(sys.argv[1]), threads=1, max_batch=32, **json.loads(sys.argv[2])))
image = probe_images(engine.info.height, engine.info.width)[0]
first = engine.run([image])
"""
SHRINK = """
before = resident_bytes()
engine.run([image] * 32)
full = resident_bytes()
engine.memory()
engine.shrink()
after, told = resident_bytes(), engine.memory().peak_bytes
again = engine.run([image])
print(json.dumps({"before": before, "full": full, "after": after, "told": told, "same": bool(np.array_equal(first, again))}))
"""
OUT_OF_MEMORY = """
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (24 << 20),) * 2)
told = ""
try:
    engine.run([image] * 32)
except OutOfDeviceMemory as error:
    told = str(error.__cause__)
again = engine.run([image])
print(json.dumps({"told": told, "same": bool(np.array_equal(first, again))}))
"""
WAYS = [{}, {"pixel_input": True, "bound": True}]


def _child(program: str, way: dict[str, bool]) -> dict[str, object]:
    command = [sys.executable, "-c", START + program, str(ROOT / "examples/models/shapes.onnx"), json.dumps(way)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("way", WAYS, ids=["plain", "bound"])
def test_shrinking_gives_back_what_a_large_batch_took(way: dict[str, bool]) -> None:
    seen = _child(SHRINK, way)
    before, full, after = (int(str(seen[name])) for name in ("before", "full", "after"))
    assert full - before > 60 * 2**20
    assert full - after > 0.85 * (full - before)
    assert abs(int(str(seen["told"])) - after) < 16 * 2**20, "the engine tells what is left, not what was"
    assert seen["same"]


@pytest.mark.parametrize("way", WAYS, ids=["plain", "bound"])
def test_out_of_memory_is_an_answer_and_the_next_batch_is_right(way: dict[str, bool]) -> None:
    """The process's address space ends; the words are ONNX Runtime's own."""
    seen = _child(OUT_OF_MEMORY, way)
    assert "BFCArena::AllocateRawInternal" in str(seen["told"]) or "bad_alloc" in str(seen["told"])
    assert seen["same"]
