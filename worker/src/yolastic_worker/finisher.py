"""Raw outputs become boxes, in a thread of their own.

0.99 of the ideal throughput with 30 boxes an image; 0.83 when the engine thread does it.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from yolastic_worker.engine.base import Outputs
from yolastic_worker.postprocess import HeadKind, detect
from yolastic_worker.types import Image, Outcome

logger = logging.getLogger(__name__)

Deliver = Callable[[Sequence[Image]], None]

_SAMPLE: Final = 64
"""Every so many candidates of an output are looked at for numbers that are none: a device that goes wrong spoils them all."""
_AHEAD: Final = 2
"""Batches that may wait for their boxes. Raw outputs are large (90 MB for 32 images at 640 px), and images that wait behind them
are in no queue that admission sees: an engine that is faster than this thread waits for it."""
_END_S: Final = 10.0


def guarded(deliver: Deliver) -> Deliver:
    """`deliver` that costs its own images at most, never the thread that calls it."""

    def _call(images: Sequence[Image]) -> None:
        try:
            deliver(images)
        except Exception:
            logger.exception("%d answers could not be delivered", len(images))

    return _call


class Finisher:
    """Postprocesses batches and delivers them; the engine thread hands them over, or finishes a small one itself."""

    def __init__(
        self, head: HeadKind, deliver: Deliver, doubt: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`doubt`: called when an output is no answer at all."""
        self._head, self._deliver, self._doubt, self._clock = head, guarded(deliver), doubt, clock
        self._finished: queue.Queue[tuple[tuple[Image, ...], Outputs] | None] = queue.Queue(_AHEAD)
        self._thread = threading.Thread(target=self._run, name="postprocess", daemon=True)
        self.busy_since_s: float | None = None
        """Monotonic: when the batch began that is being postprocessed; for liveness."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what was handed over, then end."""
        with contextlib.suppress(queue.Full):  # it hangs: the process ends without it
            self._finished.put(None, timeout=_END_S)
            self._thread.join(_END_S)

    def put(self, batch: tuple[Image, ...], outputs: Outputs) -> None:
        """Hand a batch over; returns at once unless the engine is too far ahead."""
        self._finished.put((batch, outputs))

    def finish(self, batch: Sequence[Image], outputs: Outputs) -> None:
        """Boxes of a whole batch, delivered at once; in the caller's thread."""
        for image, output in zip(batch, outputs, strict=True):
            try:
                self._box(image, output)
            except Exception as error:
                logger.exception("postprocessing failed")
                image.boxes, image.outcome, image.error = None, Outcome.FAILED, error
        self._deliver(batch)

    def _box(self, image: Image, output: Outputs) -> None:
        raw = self._head is HeadKind.RAW
        if np.isfinite(output[:, ::_SAMPLE] if raw else output).all():
            image.boxes = detect(output, self._head, image.thresholds, image.geometry)
        if image.boxes is not None and (not raw or np.isfinite(image.boxes).all()):
            image.outcome = Outcome.OK
        else:
            logger.error("the engine answered with numbers that are not finite")
            image.boxes, image.outcome = None, Outcome.FAILED
            self._doubt()

    def _run(self) -> None:
        while (item := self._finished.get()) is not None:
            self.busy_since_s = self._clock()
            batch, outputs = item
            try:
                self.finish(batch, outputs)
            except Exception as error:
                logger.exception("a batch could not be finished")
                for image in batch:
                    image.boxes, image.outcome, image.error = None, Outcome.FAILED, error
                self._deliver(batch)
            self.busy_since_s = None
