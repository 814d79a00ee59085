"""The way of an image through the worker: admitted, queued, batched, run, answered.

Here is the event loop's side, and behind one lock the state that both sides share. The engine thread (`runner`) takes its next
batch itself and hands results back in one call a batch; the event loop is never between two batches.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from yolastic_contract.state import CeilingGrant, CeilingState, Fit, LoadState
from yolastic_worker.admission import Accepted, Admission, Refused
from yolastic_worker.batcher import Batcher, BatchRules, Turn
from yolastic_worker.engine.base import Engine
from yolastic_worker.finisher import Deliver
from yolastic_worker.load import LoadMeter
from yolastic_worker.metrics import WorkerMetrics
from yolastic_worker.runner import BatchTooLarge, Runner
from yolastic_worker.slots import SlotPool
from yolastic_worker.speed import SpeedModel
from yolastic_worker.tiers import TierController
from yolastic_worker.types import DeviceLost, Image
from yolastic_worker.warmup import Warmth

__all__ = ["BatchTooLarge", "Pipeline", "Progress"]

logger = logging.getLogger(__name__)


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
        self.slots = SlotPool(queue_length + 2 * warmth.largest, engine.info.height, engine.info.width)
        self._runner = Runner(engine, self, self.slots, metrics=metrics, deliver=deliver, clock=clock)
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
        self._runner.fail((image,), self.lost or DeviceLost("the worker is stopping"))

    def abandon(self, image: Image) -> None:
        """An image whose decoding failed, or whose client has gone, leaves; its outcome is set."""
        with self._changed:
            self._decoding -= 1
        self._deliver((image,))

    # --- the engine thread, or whoever calls `run`

    def run(self) -> None:
        """Run batches until `stop`; ends early with `lost` set when the device is lost."""
        runner = self._runner
        runner.start()
        try:
            runner.run()
        except DeviceLost as error:
            self.lost = error
            logger.critical("the device is lost: %s", error)
        finally:
            with self._changed:
                left = self._batcher.drain()
            runner.fail(left, self.lost or DeviceLost("the worker is stopping"))
            runner.stop()

    def stop(self) -> None:
        """Let `run` end after its batch; what still waits is answered as failed."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def take(self) -> Turn | None:
        """As `Desk.take`."""
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

    def padded(self, images: int) -> int:
        """As `Desk.padded`: as many as there are, or up to a warm size where a new one costs."""
        if not self.engine.info.pad_to_buckets:
            return images
        return next((bucket for bucket in self.warmth.buckets if bucket >= images), images)

    def _start(self, batch: Sequence[Image], now_s: float) -> None:
        for image in batch:
            image.started_s = now_s
        self._running = len(batch)
        if batch:
            self._last_s = now_s
        seconds = self._speed.seconds(self.padded(len(batch)))
        self._running_until_s = None if seconds is None or not batch else now_s + seconds

    def ended(self, start_s: float, end_s: float, learned_size: int | None) -> int:
        """As `Desk.ended`."""
        with self._changed:
            self._load.busy(start_s, end_s)
            self._running, self._running_until_s, self._last_s = 0, None, end_s
            if learned_size is not None:
                self._speed.observe(learned_size, end_s - start_s)
                self._slowest_s = max(self._slowest_s, end_s - start_s)
            return self._decoding + self._batcher.waiting

    def out_of_memory(self, images: int) -> int:
        """As `Desk.out_of_memory`."""
        with self._changed:
            smaller = [bucket for bucket in self.warmth.buckets if bucket < images]
            self._own_bound = min(self._own_bound, smaller[-1] if smaller else 1)
            self._lower_tiers()
            return self._own_bound

    def _lower_tiers(self) -> None:
        """What was granted, or the worker's own start values, within the worker's own bound."""
        grant = self._grant
        if grant is None:
            self._tiers = TierController(self._own_bound, self._own_bound)
        else:
            self._tiers.grant(min(grant.base, self._own_bound), min(grant.ceiling, self._own_bound))

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
