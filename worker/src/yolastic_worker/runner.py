"""The engine thread: takes its next batch itself, runs it, hands results back in one call; saves what it can when one fails."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from yolastic_worker.batcher import Turn
from yolastic_worker.desk import Console, Desk, Run
from yolastic_worker.engine.agreement import Canary
from yolastic_worker.engine.base import Engine
from yolastic_worker.finisher import Deliver, Finisher, guarded
from yolastic_worker.housekeeping import Housekeeper
from yolastic_worker.metrics import WorkerMetrics
from yolastic_worker.quarantine import Quarantine
from yolastic_worker.recovery import Mishap, Rescue, Verdict
from yolastic_worker.slots import SlotPool
from yolastic_worker.types import DeviceLost, Image, Outcome, OutOfDeviceMemory, Quarantined, TransientFailure
from yolastic_worker.upkeep import Chore

logger = logging.getLogger(__name__)

_SMALL_BATCH: Final = 2
"""So few images the engine thread postprocesses itself when nobody waits for it: one change of threads less."""
_STUMBLES: Final = 20
"""So many turns in a row that fail outside the engine, and the worker ends: it would only turn in circles."""
_STUMBLE_PAUSE_S: Final = 0.05


class Runner:
    """Runs batches until there are no more, or the device is lost."""

    def __init__(
        self,
        engine: Engine,
        desk: Desk,
        slots: SlotPool,
        canary: Canary | None,
        quarantine: Quarantine,
        *,
        metrics: WorkerMetrics,
        deliver: Deliver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk, self._slots, self._quarantine = desk, slots, quarantine
        self._metrics, self._deliver, self._clock = metrics, guarded(deliver), clock
        self._console = Console(engine, desk, metrics, clock)
        self._house = Housekeeper(self._console, desk, canary, metrics, clock)
        self.finisher = Finisher(engine.info.head, deliver, desk.doubt, clock)

    def run(self) -> None:
        """Run batches and chores until the desk has no more.

        Raises:
            DeviceLost: the device is lost; the images of its last batch are answered.
            Exception: turn after turn failed outside the engine.
        """
        self.finisher.start()
        stumbles = 0
        try:
            while True:
                try:
                    work = self._desk.take()
                    if work is None:
                        return
                    self._do(work)
                    stumbles = 0
                except DeviceLost:
                    raise
                except Exception:
                    stumbles += 1
                    if stumbles >= _STUMBLES:
                        raise
                    logger.exception("a turn of the engine thread failed")
                    time.sleep(_STUMBLE_PAUSE_S)
        finally:
            self.finisher.stop()

    def fail(self, images: Sequence[Image], error: Exception) -> None:
        """Answer images that will never have boxes."""
        if not images:
            return
        for image in images:
            image.outcome, image.error = Outcome.FAILED, error
        self.hand_back(images)

    def _do(self, work: Turn | Chore) -> None:
        batch = () if isinstance(work, Chore) else work.batch
        try:
            if isinstance(work, Chore):
                self._house.do(work)
                return
            if work.dropped:
                self.hand_back(work.dropped)
            if batch:
                self._run_batch(batch)
        except Exception as error:
            if isinstance(error, DeviceLost):
                self._desk.lose(error)
            self.fail([image for image in batch if image.outcome is None and not image.inferred_s], error)
            raise

    def _run_batch(self, batch: tuple[Image, ...]) -> None:
        run = self._console.run([image.pixels for image in batch])
        if run.error is None:
            self._succeeded(batch, run)
        else:
            self._rescue(batch, run.error)
        self._house.look_sometimes()

    def _succeeded(self, batch: tuple[Image, ...], run: Run) -> None:
        assert run.outputs is not None
        self._metrics.batch_size.observe(len(batch))
        for image in batch:
            image.inferred_s = run.ended_s
        self._release(batch)
        if run.waiting or len(batch) > _SMALL_BATCH:
            self.finisher.put(batch, run.outputs)
        else:
            self.finisher.finish(batch, run.outputs)

    def _rescue(self, batch: tuple[Image, ...], error: Exception) -> None:
        """Run the parts of a failed batch until each image is answered: with its boxes, or with why not."""
        rescue = Rescue(len(batch), lambda index: batch[index].digest or index)
        part = rescue.next(len(batch))
        assert part is not None
        errors: dict[int, Exception] = {}
        self._note(rescue, part, error, errors)
        while (part := rescue.next(self._desk.limit())) is not None:
            present = self._without_the_gone(rescue, batch, part)
            if not present:
                continue
            images = tuple(batch[index] for index in present)
            self._metrics.batch_retries.inc()
            self._desk.begun(len(images))
            run = self._console.run([image.pixels for image in images])
            if run.error is None:
                rescue.answered(present)
                self._succeeded(images, run)
            else:
                self._note(rescue, present, run.error, errors)
        proven = rescue.needs_proof and self._house.ask_canary()
        verdicts = rescue.verdicts(proven=proven)
        if Verdict.FAILED in verdicts.values() and not proven:
            self._desk.doubt()
        for index, verdict in verdicts.items():
            if verdict is not Verdict.ANSWERED and batch[index].outcome is None:
                self.fail((batch[index],), self._blame(batch[index]) if verdict is Verdict.CULPRIT else errors[index])

    def _note(self, rescue: Rescue, part: tuple[int, ...], error: Exception, errors: dict[int, Exception]) -> None:
        """A part failed: what is remembered of it."""
        mishap = Mishap.OTHER
        if isinstance(error, OutOfDeviceMemory):
            mishap = Mishap.OUT_OF_MEMORY
            self._house.out_of_memory(len(part))
            if errors:  # for the second time in this batch: what the arena holds may be in the way
                self._house.shrink()
        else:
            logger.error("a batch of %d failed: %s", len(part), error)
            if isinstance(error, TransientFailure):
                mishap = Mishap.TRANSIENT
        errors.update(dict.fromkeys(part, error))
        rescue.failed(part, mishap)

    def _without_the_gone(self, rescue: Rescue, batch: tuple[Image, ...], part: tuple[int, ...]) -> tuple[int, ...]:
        """The images of a part whose clients still wait; the others are answered."""
        gone = tuple(index for index in part if batch[index].cancelled)
        if gone:
            rescue.left(gone)
            for index in gone:
                batch[index].outcome = Outcome.CANCELLED
            self.hand_back([batch[index] for index in gone])
        return tuple(index for index in part if index not in gone)

    def _blame(self, image: Image) -> Quarantined:
        """This image makes batches fail: the same content is refused for a while."""
        self._quarantine.add(image.digest, self._clock())
        self._metrics.quarantined.inc()
        logger.error("one image fails alone while others do not: its content is refused for a while")
        return Quarantined("the model fails on this image")

    def hand_back(self, images: Sequence[Image]) -> None:
        """Deliver images whose outcome is set; their slots are free."""
        self._release(images)
        self._deliver(images)

    def _release(self, images: Sequence[Image]) -> None:
        for image in images:
            self._slots.give(image.pixels)
