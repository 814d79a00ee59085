"""The simulated accelerator keeps its pace and its memory."""

import time

import numpy as np
import pytest

from yolastic_worker.engine.simulated import SimulatedEngine, Simulation, parse_simulation
from yolastic_worker.types import OutOfDeviceMemory, WorkerFailure

GREY = np.full((64, 64, 3), 114, np.uint8)


def test_parse() -> None:
    assert parse_simulation("") == Simulation()
    assert parse_simulation(" fixed_ms=2.6, per_image_ms=2.4 ,device=GPU-1") == Simulation(2.6, 2.4, device="GPU-1")
    for bad in ("fixed_ms", "fixed_ms=", "speed=1", "fixed_ms=fast", "fixed_ms=-1", "memory_limit_mib=nan", "fixed_ms=1e12"):
        with pytest.raises(WorkerFailure) as failure:
            parse_simulation(bad)
        assert failure.value.reason == "BadConfiguration"


def test_a_batch_takes_its_time() -> None:
    """Never less; how much more depends on the machine, so only the fastest of several is looked at."""
    engine = SimulatedEngine(Simulation(fixed_ms=5, per_image_ms=1), None, (64, 64))
    for images in (1, 8):
        taken = []
        for _ in range(8):
            start_s = time.perf_counter()
            assert engine.run([GREY] * images).shape == (images, 1, 6)
            taken.append(time.perf_counter() - start_s)
        assert (5 + images) / 1e3 <= min(taken) < (5 + images) / 1e3 + 0.005


def test_memory_is_its_own_and_the_limit_is_hard() -> None:
    simulation = Simulation(fixed_ms=0, per_image_ms=0, memory_fixed_mib=100, memory_per_image_mib=10, memory_limit_mib=150)
    engine = SimulatedEngine(simulation, None, (64, 64))
    engine.run([GREY] * 5)
    engine.run([GREY])
    reading = engine.memory()
    assert (reading.peak_bytes, reading.limit_bytes) == (150 * 2**20, 150 * 2**20)
    with pytest.raises(OutOfDeviceMemory):
        engine.run([GREY] * 6)
    with pytest.raises(OutOfDeviceMemory):
        engine.run([GREY] * 2, padded=8)


def test_it_says_what_it_is() -> None:
    info = SimulatedEngine(Simulation(device="GPU-3"), None, (64, 96)).info
    assert (info.backend, info.device_id, info.height, info.width) == ("Simulated", "GPU-3", 64, 96)
    assert info.simulated is not None
    assert "20 ms" in info.simulated
