"""The engine thread: takes its next batch itself, runs it, hands results back in one call a batch."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from yolastic_worker.batcher import Turn
from yolastic_worker.engine.base import Engine, Outputs
from yolastic_worker.finisher import Deliver, Finisher
from yolastic_worker.metrics import WorkerMetrics
from yolastic_worker.slots import SlotPool
from yolastic_worker.types import DeviceLost, Image, Outcome, OutOfDeviceMemory

logger = logging.getLogger(__name__)

_SMALL_BATCH = 2
"""So few images the engine thread postprocesses itself when nobody waits for it: one change of threads less."""


class BatchTooLarge(OutOfDeviceMemory):
    """Several images did not fit together; each alone may."""


class Desk(Protocol):
    """Where the engine thread gets its work, and tells how it went: the pipeline behind its lock."""

    def take(self) -> Turn | None:
        """Wait for work; None when stopping."""
        ...

    def padded(self, images: int) -> int:
        """Images the engine runs for a batch of so many."""
        ...

    def ended(self, start_s: float, end_s: float, learned_size: int | None) -> int:
        """A batch ended; the images that wait for the next one."""
        ...

    def out_of_memory(self, images: int) -> int:
        """A batch of so many did not fit; the worker's own bound from now on."""
        ...


class Runner:
    """Runs batches until there are no more, or the device is lost."""

    def __init__(
        self,
        engine: Engine,
        desk: Desk,
        slots: SlotPool,
        *,
        metrics: WorkerMetrics,
        deliver: Deliver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._desk, self._slots = engine, desk, slots
        self._metrics, self._deliver, self._clock = metrics, deliver, clock
        self._finisher = Finisher(engine.info.head, deliver)

    def start(self) -> None:
        """Before the first batch."""
        self._finisher.start()

    def stop(self) -> None:
        """After the last batch."""
        self._finisher.stop()

    def run(self) -> None:
        """Run batches until the desk has no more.

        Raises:
            DeviceLost: the device is lost; the images of its last batch are answered.
        """
        while (turn := self._desk.take()) is not None:
            if turn.dropped:
                self._release(turn.dropped)
                self._deliver(turn.dropped)
            if turn.batch:
                self._run_batch(turn.batch, self._desk.padded(len(turn.batch)))

    def fail(self, images: Sequence[Image], error: Exception) -> None:
        """Answer images that will never have boxes."""
        if not images:
            return
        self._release(images)
        for image in images:
            image.outcome, image.error = Outcome.FAILED, error
        self._deliver(images)

    def _run_batch(self, batch: tuple[Image, ...], size: int) -> None:
        """`size`: images the engine runs, padding included."""
        start_s, error, outputs = self._clock(), None, None
        try:
            outputs = self._engine.run([image.pixels for image in batch], size)
        except DeviceLost as lost:
            self._desk.ended(start_s, self._clock(), None)
            self.fail(batch, lost)
            raise
        except Exception as failure:
            error = failure
        end_s = self._clock()
        waiting = self._desk.ended(start_s, end_s, size if error is None else None)
        self._metrics.ran(len(batch), end_s - start_s)
        if error is None and outputs is not None:
            self._succeeded(batch, outputs, end_s, waiting)
        else:
            self._failed_batch(batch, error or RuntimeError("no output"))

    def _succeeded(self, batch: tuple[Image, ...], outputs: Outputs, end_s: float, waiting: int) -> None:
        self._release(batch)
        for image in batch:
            image.inferred_s = end_s
        if waiting or len(batch) > _SMALL_BATCH:
            self._finisher.put(batch, outputs)
        else:
            self._finisher.finish(batch, outputs)

    def _failed_batch(self, batch: tuple[Image, ...], error: Exception) -> None:
        """One batch failed and the device lives: its images fail; out of memory lowers the worker's own bound for good."""
        if isinstance(error, OutOfDeviceMemory):
            self._metrics.out_of_memory.inc()
            bound = self._desk.out_of_memory(len(batch))
            logger.error("out of memory with a batch of %d; from now on at most %d", len(batch), bound)
            error = error if len(batch) == 1 else BatchTooLarge(str(error))
        else:
            logger.error("a batch of %d failed: %s", len(batch), error)
        self.fail(batch, error)

    def _release(self, images: Sequence[Image]) -> None:
        for image in images:
            self._slots.give(image.pixels)
