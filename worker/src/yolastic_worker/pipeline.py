"""The way of an image through the worker: admitted, queued, batched, run, answered.

Here is the event loop's side, and behind one lock the state that both sides share. The engine thread (`runner`) takes its next
batch itself and hands results back in one call a batch; the event loop is never between two batches.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from math import inf

from yolastic_contract.state import CeilingGrant, CeilingState, Fit, HealthState, LoadState
from yolastic_worker.admission import Accepted, Admission, Refused
from yolastic_worker.batcher import Batcher, BatchRules, Turn
from yolastic_worker.engine.base import Engine
from yolastic_worker.finisher import Deliver
from yolastic_worker.health import Progress
from yolastic_worker.idle import IdleHands, Task
from yolastic_worker.load import LoadMeter
from yolastic_worker.metrics import WorkerMetrics
from yolastic_worker.runner import Runner
from yolastic_worker.slots import SlotPool
from yolastic_worker.speed import SpeedModel
from yolastic_worker.tiers import TierController
from yolastic_worker.types import DeviceLost, Image, Outcome
from yolastic_worker.upkeep import Chore
from yolastic_worker.warmup import Warmth
from yolastic_worker.wellbeing import Wellbeing

logger = logging.getLogger(__name__)


class Pipeline:
    """Everything between admission and delivery. Its lock guards the pure state machines; it is held for microseconds."""

    def __init__(
        self,
        engine: Engine,
        warmth: Warmth,
        rules: BatchRules,
        *,
        queue_length: int,
        drop_oldest: bool = False,
        metrics: WorkerMetrics,
        deliver: Deliver,
        failed: Callable[[str], None] = lambda reason: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`failed` is told why no batch will run any more, before anybody is answered so."""
        self.engine, self.warmth = engine, warmth
        self._metrics, self._deliver, self._failed, self._clock = metrics, deliver, failed, clock
        now_s = clock()
        self._changed = threading.Condition()
        self._batcher = Batcher(rules)
        self._admission = Admission(queue_length, drop_oldest=drop_oldest)
        self._tiers = TierController(warmth.largest, warmth.largest)
        self._speed = SpeedModel(warmth.speed)
        self._load = LoadMeter(now_s)
        self._well = Wellbeing(
            warmth.buckets, now_s, canary=warmth.canary is not None, fit=warmth.memory, peak_bytes=warmth.observed_peak_bytes
        )
        self.quarantine = self._well.quarantine
        self._grant: CeilingGrant | None = None
        self._running = 0
        self._held = 0
        """The largest batch since memory was given back: what it took may still be held."""
        self._running_until_s: float | None = None
        self._last_s = now_s
        self._slowest_s = max((seconds for _, seconds in warmth.speed), default=0.0)
        self._stopping = False
        self._hands = IdleHands()
        self.slots = SlotPool(queue_length + 2 * warmth.largest, engine.info.height, engine.info.width)
        self._runner = Runner(
            engine, self, self.slots, warmth.canary, self.quarantine, metrics=metrics, deliver=deliver, clock=clock
        )
        self.inflight = 0
        """Accepted and not yet answered; only the event loop counts here."""
        self.lost: DeviceLost | None = None

    # --- the event loop's side

    def admit(self, images: int, deadline_s: float, source: str = "") -> Accepted | Refused:
        """May a request with so many images come in? Counts it either way."""
        now_s = self._clock()
        displaced: tuple[Image, ...] = ()
        with self._changed:
            verdict = self._admission.decide(
                now_s, images=images, deadline_s=deadline_s, queue_images=self._batcher.held,
                running_until_s=self._running_until_s, limit=self._tiers.ceiling, fit=self._speed.fit, source=source,
                line=self._batcher,
            )  # fmt: skip
            if isinstance(verdict, Accepted):
                if verdict.displaces:
                    displaced = self._batcher.displace(source, verdict.displaces, drop_oldest=self._admission.drop_oldest)
                self._batcher.expect(source, images)
                self._load.arrived(now_s, images)
                self.inflight += images
            elif verdict.retry_after_s is not None:  # else no worker could take it: that is no demand
                self._load.refused(now_s, images)
        if displaced:
            self._put_out(displaced)
        return verdict

    def do_while_idle(self, task: Task) -> bool:
        """Have an idle engine thread decode the only image there is; False when it is busy, or more come. Short tasks only."""
        with self._changed:
            if self._batcher.held > 1 or not self._hands.offer(task):
                return False
            self._changed.notify()
            return True

    def leave(self, images: Sequence[Image]) -> None:
        """The client of these images has gone: those that wait make room at once."""
        now_s = self._clock()
        with self._changed:
            left = [image for image in images if self._batcher.leave(image, now_s)]
        self._put_out(left)

    def _put_out(self, images: Sequence[Image]) -> None:
        """Images that left the queue without a batch; their outcome is set."""
        for image in images:
            self.slots.give(image.pixels)
        self.answered(images)

    def answered(self, images: Sequence[Image]) -> None:
        """Results arrived on the event loop: count them and finish each image."""
        self.inflight -= len(images)
        for image in images:
            try:
                if image.outcome is not None:
                    self._metrics.images[image.outcome].inc()
                image.finish(image)
            except Exception:  # one request's, not the whole batch's
                logger.exception("an answer could not be given")

    def observe_late(self, predicted_s: float, actual_s: float, *, silent: bool) -> None:
        """An accepted request was answered: the margin learns from it, unless newer ones were let go before it on purpose."""
        with self._changed:
            if not silent or self._batcher.overtaking_s < self._clock() - actual_s:
                self._admission.observe_late(predicted_s, actual_s)

    # --- the decode threads' side

    def offer(self, image: Image) -> None:
        """A decoded image in its slot joins the queue."""
        error: Exception | None = None
        with self._changed:
            try:
                if image.cancelled:  # its client left while it was decoded: in the queue it would hold a place for nobody
                    image.outcome = Outcome.CANCELLED
                    self._batcher.give_up(image.source)
                elif self.lost is None and not self._stopping:
                    self._batcher.offer(image, self._clock())
                    self._changed.notify()
                    return
                else:
                    self._batcher.give_up(image.source)
                    error = self.lost or DeviceLost("the worker is stopping")
            except Exception as failure:
                logger.exception("an image could not be queued")
                error = failure
        if error is not None:
            self._runner.fail((image,), error)
        else:
            self._runner.hand_back((image,))

    def abandon(self, image: Image) -> None:
        """An image whose decoding failed, or whose client has gone, leaves; its outcome is set."""
        with self._changed:
            self._batcher.give_up(image.source)
        self._deliver((image,))

    # --- the engine thread

    def run(self) -> None:
        """Run batches until `stop`; ends early with `lost` set when the device is lost."""
        runner = self._runner
        try:
            runner.run()
        except DeviceLost:
            pass  # told by `lose`
        except Exception:
            self._failed("the engine thread ended")
            raise
        finally:
            with self._changed:
                self._stopping = True
                task, left = self._hands.take(), self._batcher.drain()
            if task is not None:
                task()
            runner.fail(left, self.lost or DeviceLost("the worker is stopping"))

    def stop(self) -> None:
        """Let `run` end after its batch; what still waits is answered as failed."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def take(self) -> Turn | Chore | None:
        """As `Desk.take`."""
        with self._changed:
            while not self._stopping:
                task = self._hands.take()
                if task is not None:
                    self._aside(task)
                    continue
                now_s, waiting = self._clock(), self._batcher.waiting
                chore = self._well.next_chore(now_s, idle=not waiting)
                if chore is not None:
                    return chore
                limit = min(self._tiers.update(now_s, waiting), self._well.cap.limit)
                turn = self._batcher.turn(now_s, limit, self._speed.seconds)
                if turn.batch or turn.dropped:
                    self._start(turn.batch, now_s)
                    return turn
                wake_s = turn.wait_until_s if waiting else self._well.wake_s()
                self._hands.idle = True
                self._changed.wait(None if wake_s is None or wake_s == inf else max(0.0, wake_s - now_s))
                self._hands.idle = False
        return None

    def _aside(self, task: Task) -> None:
        """Do a task without the lock, which is held here."""
        self._changed.release()
        try:
            task()
        finally:
            self._changed.acquire()

    def padded(self, images: int) -> int:
        """As `Desk.padded`: as many as there are, or up to a warm size where a new one costs."""
        if not self.engine.info.pad_to_buckets:
            return images
        return next((bucket for bucket in self.warmth.buckets if bucket >= images), images)

    def begun(self, images: int) -> None:
        """As `Desk.begun`."""
        with self._changed:
            self._expect(images, self._clock())

    def _start(self, batch: Sequence[Image], now_s: float) -> None:
        for image in batch:
            image.started_s = now_s
        if not batch:
            return
        try:
            self._expect(len(batch), now_s)
            self._admission.started()
        except Exception:  # these images have left the queue: whatever happens, they must run
            logger.exception("a batch begins that could not be announced")

    def _expect(self, images: int, now_s: float) -> None:
        self._running, self._last_s, self._running_until_s = images, now_s, None
        self._held = max(self._held, self.padded(images))
        seconds = self._speed.seconds(self.padded(images))
        self._running_until_s = None if seconds is None else now_s + seconds

    def ended(self, start_s: float, end_s: float, learned_size: int | None) -> int:
        """As `Desk.ended`."""
        with self._changed:
            self._load.busy(start_s, end_s)
            self._running, self._running_until_s, self._last_s = 0, None, end_s
            if learned_size is not None:
                self._speed.observe(learned_size, end_s - start_s)
                self._slowest_s = max(self._slowest_s, end_s - start_s)
            return self._batcher.held

    def limit(self) -> int:
        """As `Desk.limit`."""
        with self._changed:
            return min(self._well.cap.limit, self._tiers.ceiling)

    def out_of_memory(self, images: int) -> int:
        """As `Desk.out_of_memory`."""
        with self._changed:
            self._well.cap.out_of_memory(self._clock(), images)
            self._set_tiers()
            return self._well.cap.limit

    def given_back(self) -> None:
        """As `Desk.given_back`."""
        with self._changed:
            self._held = 0

    def trial(self) -> int | None:
        """As `Desk.trial`."""
        with self._changed:
            images = self._well.trial(self._clock())
            self._held = max(self._held, images or 0)  # at once: it is going to be taken
            return images

    def fitted(self, images: int) -> None:
        """As `Desk.fitted`."""
        with self._changed:
            self._well.cap.fitted(self._clock(), images)
            self._set_tiers()

    def doubt(self) -> None:
        """As `Desk.doubt`; any thread."""
        with self._changed:
            self._well.upkeep.doubt()
            self._changed.notify()

    def sang(self) -> None:
        """As `Desk.sang`."""
        with self._changed:
            self._well.upkeep.sang(self._clock())

    def looked(self, used_bytes: int | None) -> None:
        """As `Desk.looked`."""
        with self._changed:
            self._well.looked(used_bytes)

    def lose(self, error: DeviceLost) -> None:
        """As `Desk.lose`."""
        self._failed(str(error))
        self.lost = error
        logger.critical("the device is lost: %s", error)

    def _set_tiers(self) -> None:
        """What was granted, or the worker's own start values, within the worker's own bound."""
        grant, bound = self._grant, self._well.cap.limit
        if grant is None:
            self._tiers = TierController(bound, bound)
        else:
            self._tiers.grant(min(grant.base, bound), min(grant.ceiling, bound))

    # --- what others may know; any thread

    def grant(self, grant: CeilingGrant) -> CeilingState:
        """The operator's tiers, never above the worker's own bound; they count from the next batch on.

        A smaller budget than before, or than what is in use, gives memory back before that batch.
        """
        with self._changed:
            if not self._is_late(grant):
                self._well.budget(grant.budget_bytes)
                if grant.budget_bytes is not None and self._held > grant.ceiling:
                    self._well.upkeep.want_shrink()  # it may not have worked before
                self._grant = grant
                self._set_tiers()
                self._changed.notify()
            return self._tiers_state()

    def _is_late(self, grant: CeilingGrant) -> bool:
        """It was overtaken: what it grants may have been granted to another since."""
        last = None if self._grant is None else self._grant.serial
        return last is not None and grant.serial is not None and grant.serial < last

    def ceiling(self) -> tuple[CeilingState, CeilingGrant | None, int]:
        """(tiers, the last grant, the worker's own bound)."""
        with self._changed:
            return self._tiers_state(), self._grant, self._well.cap.limit

    def _tiers_state(self) -> CeilingState:
        now_s, grant = self._clock(), self._grant
        self._tiers.update(now_s, self._batcher.waiting)  # an idle engine takes no turns: its burst is over nevertheless
        state = self._tiers.state(now_s)
        if grant is None:
            return state
        came = {"budget_bytes": grant.budget_bytes, "reachable": grant.reachable, "wanted": grant.wanted, "serial": grant.serial}
        return state.model_copy(update=came)

    @property
    def held_images(self) -> int:
        """The largest batch whose memory may still be held."""
        with self._changed:
            return self._held

    def memory_in_use(self) -> tuple[int | None, int | None]:
        """Bytes (at the last look, the most ever seen); None where the device does not tell."""
        with self._changed:
            return self._well.used_bytes, self._well.peak_bytes

    def health(self) -> HealthState:
        """What went wrong lately, and since when all is known to be well."""
        now_s = self._clock()
        with self._changed:
            return self._well.state(now_s)

    def load(self) -> LoadState:
        """Demand and what becomes of it, over 15 s."""
        now_s = self._clock()
        with self._changed:
            return self._load.state(
                now_s, queue_images=self._batcher.held, queue_oldest_age_s=self._batcher.oldest_age_s(now_s),
                inflight_images=max(0, self.inflight), fit=self._speed.fit, ceiling=self._reachable(),
            )  # fmt: skip

    def _reachable(self) -> int:
        """The ceiling that the load is measured against: on a shared device the one that it is lent when it needs it."""
        reachable = None if self._grant is None else self._grant.reachable
        return max(self._tiers.ceiling, min(reachable or 1, self._well.cap.limit))

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
            finishing_since_s = self._runner.finisher.busy_since_s
            return Progress(self._batcher.waiting, self._running, last_s, self._slowest_s, finishing_since_s)
