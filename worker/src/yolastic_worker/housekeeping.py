"""What the engine thread does between batches: memory back, the question with the known answer, a larger batch tried again."""

import logging
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from yolastic_worker.desk import Console, Desk, known
from yolastic_worker.engine.agreement import Canary
from yolastic_worker.metrics import WorkerMetrics
from yolastic_worker.types import DeviceLost, OutOfDeviceMemory
from yolastic_worker.upkeep import Chore

logger = logging.getLogger(__name__)

_TRIES: Final = 2
"""A canary without an answer is asked again: what fails twice does not pass. A trial runs twice: the second run may take more."""
_LOOK_EVERY_S: Final = 3.0


class Housekeeper:
    """Carries the chores out; all calls come from the engine thread."""

    def __init__(
        self,
        console: Console,
        desk: Desk,
        canary: Canary | None,
        metrics: WorkerMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._desk, self._canary = console, desk, canary
        self._metrics, self._clock = metrics, clock
        self._looked_s = clock()
        self._alone_told = False

    def do(self, chore: Chore) -> None:
        """One chore.

        Raises:
            DeviceLost: the device is lost, or answers wrongly.
        """
        if chore is Chore.SHRINK:
            if self.shrink():
                self._desk.given_back()
            self.look()
        elif chore is Chore.CANARY:
            self.ask_canary()
        else:
            self._try_larger()

    def ask_canary(self) -> bool:
        """Was the image with the known answer answered, and rightly? False: it got no answer for want of memory.

        Raises:
            DeviceLost: the answer is wrong, or there is none twice.
        """
        if self._canary is None:
            return False
        error: Exception | None = None
        for _ in range(_TRIES):
            self._desk.begun(1)
            run = self._console.run([self._canary.pixels], learn=False)
            if run.outputs is not None:
                wrong = self._canary.differs(run.outputs[0], self._console.engine.info.head)
                if wrong is not None:
                    raise DeviceLost(f"the device gives wrong answers: in that to an image it answered before, {wrong}")
                self._desk.sang()
                return True
            error = run.error
            if isinstance(error, OutOfDeviceMemory):
                self.out_of_memory(1)
                return False
        raise DeviceLost("the device does not answer any more to an image it answered before") from error

    def out_of_memory(self, images: int) -> None:
        """A batch of so many, without padding, did not fit: count it, and lower the bound."""
        self._metrics.out_of_memory.inc()
        bound = self._desk.out_of_memory(self._desk.padded(images))
        # Where not even one image fits every request comes here: the counter tells how many, the log that it is so.
        level = logging.DEBUG if images == 1 and self._alone_told else logging.ERROR
        self._alone_told = images == 1
        logger.log(level, "out of memory with a batch of %d; now at most %d", images, bound)

    def shrink(self) -> bool:
        """Memory that only larger batches need goes back to the device; False when it could not.

        Raises:
            DeviceLost: the device is lost.
        """
        self._desk.begun(1)
        start_s = self._clock()
        try:
            self._console.engine.shrink()
        except Exception as error:
            if isinstance(known(error), DeviceLost):
                raise known(error) from error
            logger.warning("memory could not be given back: %s", error)
            return False
        finally:
            self._desk.ended(start_s, self._clock(), None)
        return True

    def look(self) -> None:
        """Read what is in use now: the first reading is the peak since the last one, the second what remains of it."""
        self._console.engine.memory()
        self._desk.looked(self._console.engine.memory().peak_bytes)
        self._looked_s = self._clock()

    def look_sometimes(self) -> None:
        """Read what is in use when the last reading is old."""
        if self._clock() - self._looked_s >= _LOOK_EVERY_S:
            self._looked_s = self._clock()
            self._desk.looked(self._console.engine.memory().peak_bytes)

    def _try_larger(self) -> None:
        """Run the next size with images that nobody waits for; proven twice, it may be used again."""
        images = self._desk.trial()
        if images is None:
            return
        info = self._console.engine.info
        pixels = self._canary.pixels if self._canary is not None else np.full((info.height, info.width, 3), 114, np.uint8)
        for _ in range(_TRIES):
            self._desk.begun(images)
            error = self._console.run([pixels] * images).error
            if isinstance(error, OutOfDeviceMemory):
                self.out_of_memory(images)
                self.shrink()
                return
            if error is not None:
                logger.warning("a batch of %d was tried and failed: %s", images, error)
                return
        self._desk.fitted(images)
        logger.info("a batch of %d fits again", images)
        if self.shrink():
            self._desk.given_back()
        self.look()
