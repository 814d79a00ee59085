"""The way of an image through the worker: admitted, queued, batched, run, answered.

One engine thread takes its next batch itself. The event loop admits and gets results back in one call a batch; it is never
between two batches.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from yolastic_contract.state import CeilingGrant, CeilingState, Fit, LoadState
from yolastic_worker.admission import Accepted, Admission, Refused
from yolastic_worker.batcher import Batcher, BatchRules, Turn
from yolastic_worker.engine.base import Engine, Outputs
from yolastic_worker.load import LoadMeter
from yolastic_worker.metrics import WorkerMetrics
from yolastic_worker.postprocess import detect
from yolastic_worker.slots import SlotPool
from yolastic_worker.speed import SpeedModel
from yolastic_worker.tiers import TierController
from yolastic_worker.types import DeviceLost, Image, Outcome, OutOfDeviceMemory
from yolastic_worker.warmup import Warmth

logger = logging.getLogger(__name__)

Deliver = Callable[[Sequence[Image]], None]

_SMALL_BATCH = 2
"""So few images the engine thread postprocesses itself when nobody waits for it: one change of threads less."""


class BatchTooLarge(OutOfDeviceMemory):
    """Several images did not fit together; each alone may."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Is the engine getting on? For liveness."""

    waiting: int
    running: int
    last_s: float
    """Monotonic: when a batch last began or ended, or the wait for one began."""
    slowest_s: float
    """The slowest batch known, warm-up included."""


class Pipeline:
    """Everything between admission and delivery. Its lock guards the pure state machines; it is held for microseconds."""

    def __init__(
        self,
        engine: Engine,
        warmth: Warmth,
        rules: BatchRules,
        *,
        queue_length: int,
        metrics: WorkerMetrics,
        deliver: Deliver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine, self.warmth = engine, warmth
        self._metrics, self._deliver, self._clock = metrics, deliver, clock
        now_s = clock()
        self._changed = threading.Condition()
        self._batcher = Batcher(rules)
        self._admission = Admission(queue_length)
        self._tiers = TierController(warmth.largest, warmth.largest)
        self._speed = SpeedModel(warmth.speed)
        self._load = LoadMeter(now_s)
        self._own_bound = warmth.largest
        self._grant: CeilingGrant | None = None
        self._decoding = 0
        self._running = 0
        self._running_until_s: float | None = None
        self._last_s = now_s
        self._slowest_s = max((seconds for _, seconds in warmth.speed), default=0.0)
        self._stopping = False
        self._finished: queue.SimpleQueue[tuple[tuple[Image, ...], Outputs] | None] = queue.SimpleQueue()
        self.slots = SlotPool(queue_length + 2 * warmth.largest, engine.info.height, engine.info.width)
        self.inflight = 0
        """Accepted and not yet answered; only the event loop counts here."""
        self.lost: DeviceLost | None = None

    # --- the event loop's side

    def admit(self, images: int, deadline_s: float) -> Accepted | Refused:
        """May a request with so many images come in? Counts it either way."""
        now_s = self._clock()
        with self._changed:
            verdict = self._admission.decide(
                now_s, images=images, deadline_s=deadline_s, queue_images=self._decoding + self._batcher.waiting,
                running_until_s=self._running_until_s, limit=self._tiers.ceiling, fit=self._speed.fit,
            )  # fmt: skip
            if isinstance(verdict, Accepted):
                self._load.arrived(now_s, images)
                self._decoding += images
                self.inflight += images
            else:
                self._load.refused(now_s, images)
        return verdict

    def answered(self, images: Sequence[Image]) -> None:
        """Results arrived on the event loop: count them and finish each image."""
        self.inflight -= len(images)
        for image in images:
            if image.outcome is not None:
                self._metrics.images[image.outcome].inc()
            image.finish(image)

    def observe_late(self, predicted_s: float, actual_s: float) -> None:
        """An accepted request was answered: the margin learns from it."""
        with self._changed:
            self._admission.observe_late(predicted_s, actual_s)

    # --- the decode threads' side

    def offer(self, image: Image) -> None:
        """A decoded image in its slot joins the queue."""
        with self._changed:
            self._decoding -= 1
            if self.lost is None and not self._stopping:
                self._batcher.offer(image, self._clock())
                self._changed.notify()
                return
        self._fail((image,), self.lost or DeviceLost("the worker is stopping"))

    def abandon(self, image: Image) -> None:
        """An image whose decoding failed, or whose client has gone, leaves; its outcome is set."""
        with self._changed:
            self._decoding -= 1
        self._deliver((image,))

    # --- the engine thread

    def run(self) -> None:
        """Run batches until `stop`; ends early with `lost` set when the device is lost."""
        finisher = threading.Thread(target=self._finish, name="postprocess", daemon=True)
        finisher.start()
        try:
            while (turn := self._next()) is not None:
                if turn.dropped:
                    self._release(turn.dropped)
                    self._deliver(turn.dropped)
                if turn.batch:
                    self._run_batch(turn.batch, self._padded(len(turn.batch)))
        except DeviceLost as error:
            self.lost = error
            logger.critical("the device is lost: %s", error)
        finally:
            with self._changed:
                left = self._batcher.drain()
            self._fail(left, self.lost or DeviceLost("the worker is stopping"))
            self._finished.put(None)
            finisher.join(10)

    def stop(self) -> None:
        """Let `run` end after its batch; what still waits is answered as failed."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def _next(self) -> Turn | None:
        """Wait for work; None when stopping."""
        with self._changed:
            while not self._stopping:
                now_s = self._clock()
                limit = min(self._tiers.update(now_s, self._batcher.waiting), self._own_bound)
                turn = self._batcher.turn(now_s, limit, self._speed.seconds)
                if turn.batch or turn.dropped:
                    self._start(turn.batch, now_s)
                    return turn
                self._changed.wait(None if turn.wait_until_s is None else max(0.0, turn.wait_until_s - now_s))
        return None

    def _padded(self, images: int) -> int:
        """Images the engine runs: as many as there are, or up to a warm size where a new one costs."""
        if not self.engine.info.pad_to_buckets:
            return images
        return next((bucket for bucket in self.warmth.buckets if bucket >= images), images)

    def _start(self, batch: Sequence[Image], now_s: float) -> None:
        for image in batch:
            image.started_s = now_s
        self._running = len(batch)
        if batch:
            self._last_s = now_s
        seconds = self._speed.seconds(self._padded(len(batch)))
        self._running_until_s = None if seconds is None or not batch else now_s + seconds

    def _run_batch(self, batch: tuple[Image, ...], size: int) -> None:
        """`size`: images the engine runs, padding included."""
        start_s, error, outputs = self._clock(), None, None
        try:
            outputs = self.engine.run([image.pixels for image in batch], size)
        except DeviceLost as lost:
            self._end(start_s, self._clock(), None)
            self._fail(batch, lost)
            raise
        except Exception as failure:
            error = failure
        end_s = self._clock()
        waiting = self._end(start_s, end_s, size if error is None else None)
        self._metrics.ran(len(batch), end_s - start_s)
        if error is None and outputs is not None:
            self._release(batch)
            for image in batch:
                image.inferred_s = end_s
            if waiting or len(batch) > _SMALL_BATCH:
                self._finished.put((batch, outputs))
            else:
                self._postprocess(batch, outputs)
        else:
            self._failed_batch(batch, error or RuntimeError("no output"))

    def _end(self, start_s: float, end_s: float, learned_size: int | None) -> int:
        """A batch ended; the images that wait for the next one."""
        with self._changed:
            self._load.busy(start_s, end_s)
            self._running, self._running_until_s, self._last_s = 0, None, end_s
            if learned_size is not None:
                self._speed.observe(learned_size, end_s - start_s)
                self._slowest_s = max(self._slowest_s, end_s - start_s)
            return self._decoding + self._batcher.waiting

    def _failed_batch(self, batch: tuple[Image, ...], error: Exception) -> None:
        """One batch failed and the device lives: its images fail; out of memory lowers the worker's own bound for good."""
        if isinstance(error, OutOfDeviceMemory):
            self._metrics.out_of_memory.inc()
            with self._changed:
                smaller = [bucket for bucket in self.warmth.buckets if bucket < len(batch)]
                self._own_bound = min(self._own_bound, smaller[-1] if smaller else 1)
                self._lower_tiers()
            logger.error("out of memory with a batch of %d; from now on at most %d", len(batch), self._own_bound)
            error = error if len(batch) == 1 else BatchTooLarge(str(error))
        else:
            logger.error("a batch of %d failed: %s", len(batch), error)
        self._fail(batch, error)

    def _lower_tiers(self) -> None:
        """What was granted, or the worker's own start values, within the worker's own bound."""
        grant = self._grant
        if grant is None:
            self._tiers = TierController(self._own_bound, self._own_bound)
        else:
            self._tiers.grant(min(grant.base, self._own_bound), min(grant.ceiling, self._own_bound))

    def _fail(self, images: Sequence[Image], error: Exception) -> None:
        if not images:
            return
        self._release(images)
        for image in images:
            image.outcome, image.error = Outcome.FAILED, error
        self._deliver(images)

    def _release(self, images: Sequence[Image]) -> None:
        for image in images:
            self.slots.give(image.pixels)

    def _finish(self) -> None:
        """Postprocess in a thread of its own: 0.99 of the ideal with 30 boxes an image, 0.83 when the engine thread does it."""
        while (item := self._finished.get()) is not None:
            self._postprocess(*item)

    def _postprocess(self, batch: Sequence[Image], outputs: Outputs) -> None:
        """Boxes of a whole batch, delivered at once."""
        head = self.engine.info.head
        for image, output in zip(batch, outputs, strict=True):
            try:
                image.boxes = detect(output, head, image.thresholds, image.geometry)
                image.outcome = Outcome.OK if np.isfinite(image.boxes).all() else Outcome.FAILED
            except Exception as error:
                logger.exception("postprocessing failed")
                image.outcome, image.error = Outcome.FAILED, error
        self._deliver(batch)

    # --- what others may know; any thread

    def grant(self, grant: CeilingGrant) -> CeilingState:
        """The operator's tiers, never above the worker's own bound."""
        with self._changed:
            self._grant = grant
            self._lower_tiers()
            self._changed.notify()
            return self._tiers.state()

    def ceiling(self) -> tuple[CeilingState, CeilingGrant | None, int]:
        """(tiers, the last grant, the worker's own bound)."""
        with self._changed:
            return self._tiers.state(), self._grant, self._own_bound

    def load(self) -> LoadState:
        """Demand and what becomes of it, over 15 s."""
        now_s = self._clock()
        with self._changed:
            return self._load.state(
                now_s, queue_images=self._decoding + self._batcher.waiting, queue_oldest_age_s=self._batcher.oldest_age_s(now_s),
                inflight_images=max(0, self.inflight), fit=self._speed.fit, ceiling=self._tiers.ceiling,
            )  # fmt: skip

    @property
    def fit(self) -> Fit | None:
        """Seconds a batch takes."""
        with self._changed:
            return self._speed.fit

    def progress(self) -> Progress:
        """For liveness."""
        now_s = self._clock()
        with self._changed:
            oldest_s = now_s - self._batcher.oldest_age_s(now_s)
            last_s = self._last_s if self._running else max(self._last_s, oldest_s)
            return Progress(self._batcher.waiting, self._running, last_s, self._slowest_s)
