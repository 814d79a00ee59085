"""Warm-up finds what fits, and says what does not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from yolastic_contract.state import Fit
from yolastic_worker.engine.base import EngineInfo
from yolastic_worker.engine.simulated import SimulatedEngine, Simulation
from yolastic_worker.memory.probe import MemoryReading
from yolastic_worker.postprocess import HeadKind
from yolastic_worker.types import DeviceLost, OutOfDeviceMemory, TransientFailure, WorkerFailure
from yolastic_worker.warmup import warm_up

INFO = EngineInfo("Fake", "none", "none", "", "Detect", ("object",), 32, 32, "FP32", HeadKind.END_TO_END)


@dataclass
class FakeEngine:
    """Fails from a batch size on; counts its runs."""

    fails_from: int = 1000
    error: Exception = field(default_factory=lambda: RuntimeError("cannot reshape"))
    peak_bytes: int | None = None
    info: EngineInfo = INFO
    ran: list[int] = field(default_factory=list)
    shrunk: int = 0
    planned: Fit | None = None

    def run(self, images: Sequence[Any], padded: int = 0) -> Any:
        self.ran.append(len(images))
        if len(images) >= self.fails_from:
            raise self.error
        return np.zeros((len(images), 1, 6), np.float32)

    def plan(self) -> Fit | None:
        return self.planned

    def memory(self) -> MemoryReading:
        return MemoryReading(self.peak_bytes, 1000)

    def shrink(self) -> None:
        self.shrunk += 1


def _simulated(**told: float) -> SimulatedEngine:
    simulation = Simulation(fixed_ms=0, per_image_ms=0, memory_fixed_mib=100, memory_per_image_mib=10, **told)
    return SimulatedEngine(simulation, None, (32, 32))


def test_every_bucket_twice_ascending() -> None:
    engine = FakeEngine()
    warmth = warm_up(engine, 12, None)
    assert engine.ran == [1, 1, 1, 2, 2, 4, 4, 8, 8, 12, 12]
    assert engine.shrunk == 1
    assert warmth.buckets == (1, 2, 4, 8, 12)
    assert warmth.largest == 12
    assert [images for images, _ in warmth.speed] == [1, 2, 4, 8, 12]
    assert (warmth.memory, warmth.observed_peak_bytes, warmth.limit_bytes) == (None, None, 1000)


@pytest.mark.parametrize(
    ("limit_mib", "declared_mib", "buckets"),
    [
        (1000, None, (1, 2, 4, 8, 16, 32)),
        (270, None, (1, 2, 4, 8, 16)),
        (4096, 185, (1, 2, 4, 8)),
        (115, None, (1,)),
        (125, None, (1, 2)),
    ],
)
def test_what_fits(limit_mib: float, declared_mib: int | None, buckets: tuple[int, ...]) -> None:
    warmth = warm_up(_simulated(memory_limit_mib=limit_mib), 32, None if declared_mib is None else declared_mib * 2**20)
    assert warmth.buckets == buckets
    assert warmth.limit_source == ("Device" if declared_mib is None else "Declared")
    assert warmth.memory is not None
    if len(buckets) > 1:
        assert warmth.memory.fixed == pytest.approx(100 * 2**20)
        assert warmth.memory.per_image == pytest.approx(10 * 2**20)


def test_not_even_one_image_fits() -> None:
    for engine, declared in ((_simulated(memory_limit_mib=105), None), (_simulated(memory_limit_mib=4096), 105 * 2**20)):
        with pytest.raises(WorkerFailure, match="takes 110Mi, and the limit is 105Mi") as failure:
            warm_up(engine, 32, declared)
        assert failure.value.reason == "DoesNotFit"


@pytest.mark.parametrize(("fails_from", "reason"), [(1, "UnsupportedModel"), (2, "FixedBatch"), (4, "FixedBatch")])
def test_a_model_that_fails(fails_from: int, reason: str) -> None:
    with pytest.raises(WorkerFailure) as failure:
        warm_up(FakeEngine(fails_from), 8, None)
    assert failure.value.reason == reason
    assert "cannot reshape" in str(failure.value)


def test_out_of_memory_ends_the_climb_and_a_lost_device_the_worker() -> None:
    assert warm_up(FakeEngine(4, OutOfDeviceMemory("no")), 8, None).buckets == (1, 2)
    with pytest.raises(DeviceLost):
        warm_up(FakeEngine(4, DeviceLost("gone")), 8, None)


def test_a_stop_is_heeded() -> None:
    engine = FakeEngine()
    assert warm_up(engine, 256, None, lambda: True).buckets == (1,)
    assert engine.ran == [1]


@pytest.mark.parametrize(
    ("fixed", "per_image", "ran"),
    [
        (100, 10, [1, 1, 1, 2, 2, 4, 4, 8, 8]),
        (1100, 100, [1, 1, 1, 2, 2, 4, 4, 8, 8]),  # 1,200 for one image, but a plan may be a fifth too high
        (0, 1000, [1, 1, 1]),  # 500 were measured for one; a second would take 800 more at least
    ],
)
def test_a_plan_spares_what_cannot_fit(fixed: float, per_image: float, ran: list[int]) -> None:
    """The limit is 1,000 and every batch takes 500: from the second measurement on that counts, and the plan no more."""
    engine = FakeEngine(peak_bytes=500, planned=Fit(fixed=fixed, per_image=per_image))
    warmth = warm_up(engine, 8, None)
    assert engine.ran == ran
    assert warmth.plan == engine.planned


def test_a_model_that_cannot_fit_is_refused_before_it_runs() -> None:
    engine = FakeEngine(peak_bytes=500, planned=Fit(fixed=3 * 2**30, per_image=2**30))
    with pytest.raises(WorkerFailure, match="a batch of one image takes 4096Mi, and the limit is 2048Mi") as failure:
        warm_up(engine, 8, 2 * 2**30)
    assert failure.value.reason == "DoesNotFit"
    assert engine.ran == []


def test_out_of_memory_alone_tells_both_numbers() -> None:
    engine = FakeEngine(1, OutOfDeviceMemory("no"), peak_bytes=300, planned=Fit(fixed=800, per_image=300))
    with pytest.raises(WorkerFailure, match="a batch of one image takes 1100, and the limit is 1000"):
        warm_up(engine, 8, None)


def test_what_passes_is_tried_once_more() -> None:
    engine = FakeEngine(4, TransientFailure("not now"))
    with pytest.raises(DeviceLost, match="not ready"):
        warm_up(engine, 8, None)
    assert engine.ran[-2:] == [4, 4]


def test_answers_that_are_no_numbers() -> None:
    class Broken(FakeEngine):
        def run(self, images: Sequence[Any], padded: int = 0) -> Any:
            return super().run(images, padded) * np.nan

    with pytest.raises(WorkerFailure, match="not finite"):
        warm_up(Broken(), 8, None)
