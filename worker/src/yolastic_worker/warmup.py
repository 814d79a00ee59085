"""Warm-up: every bucket runs at least twice, ascending, before a worker is Ready.

It seeds the speed and memory fits, finds the largest batch that fits, and proves that each place of a batch gives the answer of
the image in it: once with the same image in all places, once with others beside it.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from yolastic_contract.names import buckets_up_to
from yolastic_contract.quantity import format_bytes
from yolastic_contract.state import Fit
from yolastic_worker.engine.agreement import Canary, observe, probe_images
from yolastic_worker.engine.base import Engine, Outputs
from yolastic_worker.engine.metadata import EXPORT_HINT
from yolastic_worker.memory.fit import fit_line
from yolastic_worker.types import DeviceLost, OutOfDeviceMemory, Pixels, TransientFailure, WorkerFailure

logger = logging.getLogger(__name__)

_RUNS = 2
"""The first run of a shape pays for choosing kernels; the second is what a batch takes."""
_PLAN_SURE = 0.8
"""Share of a plan that is certain: what is over the limit even then is not tried."""
_EXPORT = f"{EXPORT_HINT} nms=False"


@dataclass(frozen=True, slots=True)
class Warmth:
    """What warm-up found out."""

    buckets: tuple[int, ...]
    """Batch sizes that are warm, images."""
    speed: tuple[tuple[int, float], ...]
    """(images, seconds) of each bucket's second run."""
    memory: Fit | None
    """Bytes at the peak of a batch, measured; None when the device cannot be asked."""
    observed_peak_bytes: int | None
    limit_bytes: int | None
    limit_source: Literal["Declared", "Device"] | None
    device_bytes: int | None = None
    """Memory of the device, whatever this worker may use of it."""
    plan: Fit | None = None
    """Bytes at the peak of a batch, from the model's file alone, as it was known before anything ran."""
    canary: Canary | None = None
    """An image and what the model answers to it: `canary.differs(engine.run([canary.pixels])[0], head)` asks it again."""

    @property
    def largest(self) -> int:
        """The worker's own bound: the largest batch that fits, images."""
        return self.buckets[-1]


class _WarmUp:
    """One climb through the buckets."""

    def __init__(self, engine: Engine, declared_bytes: int | None, stopped: Callable[[], bool]) -> None:
        self._engine, self._stopped = engine, stopped
        self.plan = engine.plan()
        # Read in any case: the peak begins anew, so that loading the model is not counted as its first batch.
        self.device_bytes = device_bytes = engine.memory().limit_bytes
        self.limit_bytes = device_bytes if declared_bytes is None else declared_bytes
        self.limit_source: Literal["Declared", "Device"] | None = "Device" if device_bytes is not None else None
        if declared_bytes is not None:
            self.limit_source = "Declared"
        self.canaries: list[Canary] = []
        self.speed: list[tuple[int, float]] = []
        self.memory: list[tuple[int, int]] = []

    def try_bucket(self, images: int) -> bool:
        """Run a bucket and keep what it took; False when it does not fit.

        Raises:
            WorkerFailure: not even one image fits, or the answers are wrong.
        """
        expected = self._expected_bytes(images)
        if expected is not None and self.limit_bytes is not None and expected > self.limit_bytes:
            planned = expected if self.memory or self.plan is None else self.plan.at(images)
            return self._leave_out(images, f"would take {format_bytes(int(planned))}", int(planned))
        try:
            seconds = self._run(images)
        except OutOfDeviceMemory:
            planned = 0 if self.plan is None else int(self.plan.at(images))
            return self._leave_out(images, "is out of memory", max(planned, self._engine.memory().peak_bytes or 0))
        peak = self._engine.memory().peak_bytes
        if peak is not None and self.limit_bytes is not None and peak > self.limit_bytes:
            return self._leave_out(images, f"took {format_bytes(peak)}", peak)
        self.speed.append((images, seconds))
        if peak is not None:
            self.memory.append((images, peak))
        return True

    def _expected_bytes(self, images: int) -> float | None:
        """What the bucket will take at least: by what was measured, else by the plan, which may be too high."""
        if len(self.memory) > 1:
            fit = fit_line(self.memory)
            return None if fit is None else fit.at(images)
        if self.plan is None:
            return None
        if not self.memory:
            return _PLAN_SURE * self.plan.at(images)
        ((measured_images, measured_bytes),) = self.memory
        return measured_bytes + _PLAN_SURE * self.plan.per_image * (images - measured_images)

    def _leave_out(self, images: int, why: str, needed_bytes: int) -> bool:
        limit = "the device's memory" if self.limit_bytes is None else format_bytes(self.limit_bytes)
        if not self.speed:
            took = format_bytes(needed_bytes) if needed_bytes else "more"
            raise WorkerFailure("DoesNotFit", f"a batch of one image takes {took}, and the limit is {limit}")
        logger.info("a batch of %d %s, and the limit is %s: it is not used", images, why, limit)
        return False

    def _run(self, images: int) -> float:
        """Run it and look at the answers; seconds of the last run."""
        if images == 1:
            return self._first_answers()
        seconds = 0.0
        for apart in range(_RUNS):
            # The same image everywhere; then each beside others, so that an answer in the wrong place is seen, too.
            asked = [self.canaries[index % len(self.canaries) if apart else 0] for index in range(images)]
            outputs, seconds = self._timed([canary.pixels for canary in asked])
            for place, (canary, output) in enumerate(zip(asked, outputs, strict=True)):
                if (wrong := canary.differs(output, self._engine.info.head)) is not None:
                    where = f"in a batch of {images} the answer in place {place + 1} is not that of the image alone"
                    raise WorkerFailure("FixedBatch", f"{where} ({wrong}); {_EXPORT}")
            if self._stopped():
                break
        return seconds

    def _first_answers(self) -> float:
        """Alone each image's answer is right by definition; the one that shows most comes first."""
        info, seconds = self._engine.info, 0.0
        for pixels in probe_images(info.height, info.width):
            outputs, seconds = self._timed([pixels])
            if not np.isfinite(outputs[0]).all():
                raise WorkerFailure("UnsupportedModel", "the model answers numbers that are not finite")
            self.canaries.append(observe(pixels, outputs[0], info.head))
            if self._stopped():
                break
        self.canaries.sort(key=lambda canary: -float(canary.boxes[0, 4]) if len(canary.boxes) else 0.0)
        return seconds

    def _timed(self, images: list[Pixels]) -> tuple[Outputs, float]:
        """(answers, seconds)."""
        start_s = time.perf_counter()
        try:
            outputs = self._engine.run(images)
        except (OutOfDeviceMemory, DeviceLost, WorkerFailure):
            raise
        except TransientFailure:
            start_s = time.perf_counter()
            outputs = self._once_more(images)
        except Exception as error:
            first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            if len(images) == 1:
                raise WorkerFailure("UnsupportedModel", f"the model does not run: {first}") from error
            raise WorkerFailure("FixedBatch", f"the model fails with a batch of {len(images)} ({first}); {_EXPORT}") from error
        return outputs, time.perf_counter() - start_s

    def _once_more(self, images: list[Pixels]) -> Outputs:
        try:
            return self._engine.run(images)
        except TransientFailure as error:
            raise DeviceLost("what should have passed did not: the device is not ready") from error


def warm_up(engine: Engine, max_batch: int, declared_bytes: int | None, stopped: Callable[[], bool] = lambda: False) -> Warmth:
    """Run every bucket up to `max_batch`; stop before one whose predicted memory is over the limit.

    `declared_bytes`: the limit; None: the device's own. `stopped`: whether to end early, asked between runs.

    Raises:
        WorkerFailure: DoesNotFit, when not even one image fits; FixedBatch, when a batch fails or an answer in it is wrong;
            UnsupportedModel, when one image fails.
        DeviceLost: the device failed.
    """
    climb = _WarmUp(engine, declared_bytes, stopped)
    for images in buckets_up_to(max_batch):
        if not climb.try_bucket(images) or stopped():
            break
    engine.shrink()
    return Warmth(
        buckets=tuple(images for images, _ in climb.speed), speed=tuple(climb.speed), memory=fit_line(climb.memory),
        observed_peak_bytes=max((peak for _, peak in climb.memory), default=None), limit_bytes=climb.limit_bytes,
        limit_source=climb.limit_source, device_bytes=climb.device_bytes, plan=climb.plan, canary=climb.canaries[0],
    )  # fmt: skip
