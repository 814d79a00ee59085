"""What the engine thread sees of the rest, and how it runs the engine so that everybody knows."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from yolastic_worker.batcher import Turn
from yolastic_worker.engine.base import Engine, Outputs
from yolastic_worker.engine.errors import classify
from yolastic_worker.metrics import WorkerMetrics
from yolastic_worker.types import DeviceLost, OutOfDeviceMemory, Pixels, TransientFailure
from yolastic_worker.upkeep import Chore


class Desk(Protocol):
    """Where the engine thread gets its work, and tells how it went: the pipeline behind its lock."""

    def take(self) -> Turn | Chore | None:
        """Wait for work; what it gives has begun. None when stopping."""
        ...

    def padded(self, images: int) -> int:
        """Images the engine runs for a batch of so many."""
        ...

    def begun(self, images: int) -> None:
        """A run of so many begins that `take` did not give."""
        ...

    def ended(self, start_s: float, end_s: float, learned_size: int | None) -> int:
        """A run ended; the images that wait for the next one. `learned_size`: what it tells of the speed of so many."""
        ...

    def out_of_memory(self, images: int) -> int:
        """A batch of so many, padding included, did not fit; the worker's own bound from now on."""
        ...

    def limit(self) -> int:
        """The worker's own bound and the granted ceiling, the smaller: no batch above it."""
        ...

    def given_back(self) -> None:
        """Memory that only larger batches need is the device's again."""
        ...

    def trial(self) -> int | None:
        """The batch size to try; None when it may not be tried now."""
        ...

    def fitted(self, images: int) -> None:
        """A trial of so many images fitted."""
        ...

    def doubt(self) -> None:
        """An answer was none: the canary is to be asked."""
        ...

    def sang(self) -> None:
        """The canary was answered rightly."""
        ...

    def looked(self, used_bytes: int | None) -> None:
        """Memory in use; None when it cannot be read."""
        ...

    def lose(self, error: DeviceLost) -> None:
        """Nothing will run any more; told before anybody is answered so."""
        ...


@dataclass(frozen=True, slots=True)
class Run:
    """How a run ended."""

    outputs: Outputs | None
    error: Exception | None
    """OutOfDeviceMemory, TransientFailure, or any other; with no outputs."""
    ended_s: float
    waiting: int
    """Images that wait for the next one."""


class Console:
    """Runs the engine and tells the desk: progress, speed and busy time come from here."""

    def __init__(self, engine: Engine, desk: Desk, metrics: WorkerMetrics, clock: Callable[[], float] = time.monotonic) -> None:
        self.engine = engine
        self._desk, self._metrics, self._clock = desk, metrics, clock

    def run(self, pixels: list[Pixels], *, learn: bool = True) -> Run:
        """A run that has begun.

        Raises:
            DeviceLost: nothing will run here any more.
        """
        size, start_s = self._desk.padded(len(pixels)), self._clock()
        outputs: Outputs | None = None
        error: Exception | None = None
        try:
            outputs = self.engine.run(pixels, size)
            if outputs.shape[0] != len(pixels):
                error = RuntimeError(f"the engine gave {outputs.shape[0]} answers to {len(pixels)} images")
        except Exception as failure:
            error = known(failure)
        end_s = self._clock()
        waiting = self._desk.ended(start_s, end_s, size if learn and error is None else None)
        self._metrics.busy.inc(end_s - start_s)
        if isinstance(error, DeviceLost):
            raise error
        return Run(outputs if error is None else None, error, end_s, waiting)


def known(error: Exception) -> Exception:
    """The error by its class, also when the engine let a runtime's own through."""
    if isinstance(error, OutOfDeviceMemory | DeviceLost | TransientFailure):
        return error
    found = classify(error)
    if found is not None:
        found.__cause__ = error
    return found or error
