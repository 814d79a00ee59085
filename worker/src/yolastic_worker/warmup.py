"""Warm-up: every bucket runs twice, ascending, before a worker is Ready.

It seeds the speed and memory fits and finds the largest batch that fits.
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
from yolastic_worker.engine.agreement import Canary
from yolastic_worker.engine.base import Engine
from yolastic_worker.engine.metadata import EXPORT_HINT
from yolastic_worker.memory.fit import fit_line
from yolastic_worker.types import DeviceLost, OutOfDeviceMemory, WorkerFailure

logger = logging.getLogger(__name__)

_RUNS = 2
"""The first run of a shape pays for choosing kernels; the second is what a batch takes."""


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
    plan: Fit | None = None
    """Bytes at the peak of a batch, from the model's file alone, as it was known before anything ran."""
    canary: Canary | None = None
    """An image and what the model answers to it: `canary.differs(engine.run([canary.pixels])[0], head)` asks it again."""

    @property
    def largest(self) -> int:
        """The worker's own bound: the largest batch that fits, images."""
        return self.buckets[-1]


def _limit(engine: Engine, declared_bytes: int | None) -> tuple[int | None, Literal["Declared", "Device"] | None]:
    if declared_bytes is not None:
        return declared_bytes, "Declared"
    device_bytes = engine.memory().limit_bytes
    return device_bytes, None if device_bytes is None else "Device"


def warm_up(engine: Engine, max_batch: int, declared_bytes: int | None, stopped: Callable[[], bool] = lambda: False) -> Warmth:
    """Run every bucket up to `max_batch`; stop before one whose predicted memory is over the limit.

    Raises:
        WorkerFailure: DoesNotFit, when not even one image fits; FixedBatch, when only a batch of one works.
        DeviceLost: the device failed.
    """
    limit_bytes, source = _limit(engine, declared_bytes)
    speed: list[tuple[int, float]] = []
    memory: list[tuple[int, int]] = []
    for images in buckets_up_to(max_batch):
        fit = fit_line(memory)
        if limit_bytes is not None and fit is not None and len(memory) > 1 and fit.at(images) > limit_bytes:
            logger.info(
                "a batch of %d would take %s of %s: it is not used",
                images,
                format_bytes(int(fit.at(images))),
                format_bytes(limit_bytes),
            )
            break
        try:
            seconds = _run_bucket(engine, images, stopped)
        except OutOfDeviceMemory as error:
            if not speed:
                raise _does_not_fit(engine, limit_bytes) from error
            logger.info("a batch of %d is out of memory: it is not used", images)
            break
        peak = engine.memory().peak_bytes
        if peak is not None and limit_bytes is not None and peak > limit_bytes:
            if not speed:
                raise _does_not_fit(engine, limit_bytes, peak)
            logger.info("a batch of %d took %s of %s: it is not used", images, format_bytes(peak), format_bytes(limit_bytes))
            break
        speed.append((images, seconds))
        if peak is not None:
            memory.append((images, peak))
        if stopped():
            break
    engine.shrink()
    return Warmth(
        buckets=tuple(images for images, _ in speed), speed=tuple(speed), memory=fit_line(memory),
        observed_peak_bytes=max((peak for _, peak in memory), default=None), limit_bytes=limit_bytes, limit_source=source,
    )  # fmt: skip


def _run_bucket(engine: Engine, images: int, stopped: Callable[[], bool]) -> float:
    """Seconds of the last of the runs."""
    info = engine.info
    grey = [np.full((info.height, info.width, 3), 114, np.uint8)] * images
    seconds = 0.0
    for _ in range(_RUNS):
        start_s = time.perf_counter()
        try:
            engine.run(grey)
        except (OutOfDeviceMemory, DeviceLost, WorkerFailure):
            raise
        except Exception as error:
            first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            if images == 1:
                raise WorkerFailure("UnsupportedModel", f"the model does not run: {first}") from error
            raise WorkerFailure("FixedBatch", f"the model fails with a batch of {images} ({first}); {EXPORT_HINT}") from error
        seconds = time.perf_counter() - start_s
        if stopped():
            break
    return seconds


def _does_not_fit(engine: Engine, limit_bytes: int | None, needed_bytes: int | None = None) -> WorkerFailure:
    needed = needed_bytes if needed_bytes is not None else engine.memory().peak_bytes
    took = format_bytes(needed) if needed is not None else "more"
    limit = format_bytes(limit_bytes) if limit_bytes is not None else "the device's memory"
    return WorkerFailure("DoesNotFit", f"a batch of one image takes {took}, and the limit is {limit}")
