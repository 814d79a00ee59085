"""What is simulated fails in ONNX Runtime's own words, when it is told to."""

from pathlib import Path

import numpy as np
import pytest

from yolastic_worker.engine.simulated import SimulatedEngine, parse_simulation
from yolastic_worker.types import DeviceLost, OutOfDeviceMemory, TransientFailure

GREY = np.full((64, 64, 3), 114, np.uint8)
PACE = "fixed_ms=0,per_image_ms=0,memory_fixed_mib=100,memory_per_image_mib=10,memory_limit_mib=200"


def test_memory_goes_and_comes_back(tmp_path: Path) -> None:
    limit = tmp_path / "limit"
    engine = SimulatedEngine(parse_simulation(f"{PACE},memory_limit_file={limit}"), None, (64, 64))
    engine.run([GREY] * 10)
    limit.write_text("140")
    with pytest.raises(OutOfDeviceMemory) as failure:
        engine.run([GREY] * 5)
    assert "BFCArena::AllocateRawInternal" in str(failure.value.__cause__)
    assert len(engine.run([GREY] * 4)) == 4
    assert engine.memory().limit_bytes == 140 * 2**20
    limit.write_text("nonsense")
    assert len(engine.run([GREY] * 10)) == 10
    limit.unlink()
    assert len(engine.run([GREY] * 10)) == 10


def test_each_line_is_one_fault(tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    engine = SimulatedEngine(parse_simulation(f"{PACE},faults={faults}"), None, (64, 64))
    engine.run([GREY])
    faults.write_text(
        "CUDA failure 600: device not ready ; GPU=0\n\nGot invalid dimensions for input: images\nCUDA failure 2: out of memory\n"
        "CUDA failure 719: unspecified launch failure ; GPU=0\n"
    )
    for kind in (TransientFailure, RuntimeError, OutOfDeviceMemory, DeviceLost):
        with pytest.raises(kind):
            engine.run([GREY])
    assert len(engine.run([GREY])) == 1
    assert faults.read_text() == ""


def test_it_holds_what_its_largest_batch_took_until_it_shrinks() -> None:
    engine = SimulatedEngine(parse_simulation(PACE), None, (64, 64))
    assert engine.memory().peak_bytes == 100 * 2**20
    for images in (5, 8, 1):
        engine.run([GREY] * images)
    assert engine.memory().peak_bytes == 180 * 2**20
    engine.shrink()
    engine.run([GREY])
    assert engine.memory().peak_bytes == 110 * 2**20
