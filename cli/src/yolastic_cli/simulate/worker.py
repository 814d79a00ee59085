"""A worker on a fast clock: the state machines of the real one, put together as its pipeline does, around a simulated device.

What is not there: HTTP, decoding and postprocessing take no time, and every client waits for its answer.
"""

from array import array
from dataclasses import dataclass, field
from math import inf
from typing import Final

import numpy as np

from yolastic_cli.simulate.device import Device
from yolastic_contract.names import buckets_up_to
from yolastic_contract.state import CeilingGrant, CeilingState, Fit, LoadState
from yolastic_worker.admission import Admission, Refused
from yolastic_worker.batcher import Batcher, BatchRules, Turn, Window
from yolastic_worker.load import LoadMeter
from yolastic_worker.speed import SpeedModel
from yolastic_worker.tiers import TierController
from yolastic_worker.types import Geometry, Image, Outcome, ShapeKey, Thresholds

_KEY: Final = ShapeKey(640, 640)
_NO_PIXELS: Final = np.zeros((0, 0, 3), np.uint8)
_GEOMETRY: Final = Geometry(640, 640, 1.0, 0, 0)
_THRESHOLDS: Final = Thresholds()


@dataclass(frozen=True, slots=True)
class WorkerRules:
    """How a simulated worker is set up."""

    device: Device
    max_batch: int = 32
    window: Window = Window.ADAPTIVE
    eager_size: int = 4
    max_delay_s: float = 0.010
    objective_s: float | None = 0.100
    patience_s: float = 0.500
    """What every client says it waits."""
    queue_length: int = 256

    def batch_rules(self) -> BatchRules:
        """For the batcher."""
        return BatchRules(
            window=self.window,
            max_delay_s=self.max_delay_s,
            eager_size=self.eager_size,
            objective_s=self.objective_s,
            pad_to_buckets=self.device.pads,
            buckets=buckets_up_to(self.max_batch) if self.device.pads else (),
        )


@dataclass(slots=True)
class Tally:
    """What became of the images of all workers: times of arrival and latencies, seconds."""

    arrived_s: "array[float]" = field(default_factory=lambda: array("d"))
    latency_s: "array[float]" = field(default_factory=lambda: array("d"))
    """Beside `arrived_s`; infinite: refused, expired or lost."""
    refused: int = 0
    expired: int = 0

    def answered(self, arrived_s: float, now_s: float) -> None:
        """An answer left."""
        self.arrived_s.append(arrived_s)
        self.latency_s.append(now_s - arrived_s)

    def turned_away(self, arrived_s: float) -> None:
        """Nobody took it."""
        self.refused += 1
        self.arrived_s.append(arrived_s)
        self.latency_s.append(inf)

    def too_late(self, arrived_s: float) -> None:
        """It was taken and never run."""
        self.expired += 1
        self.arrived_s.append(arrived_s)
        self.latency_s.append(inf)


@dataclass(slots=True, eq=False)
class _SimulatedImage(Image):
    predicted_s: float | None = None


def _finish(image: Image) -> None:
    """Nobody waits on an event loop here."""


class SimulatedWorker:
    """Takes arrivals and the ends of its own batches; `wake_s` is when it wants to be woken next."""

    def __init__(self, rules: WorkerRules, tally: Tally, start_s: float) -> None:
        self._rules, self._tally, self._device = rules, tally, rules.device
        self._batcher = Batcher(rules.batch_rules())
        self._admission = Admission(rules.queue_length)
        self._tiers = TierController(rules.max_batch, rules.max_batch)
        self._speed = SpeedModel(rules.device.seed(rules.max_batch))
        self._fit: Fit | None = self._speed.fit
        self._load = LoadMeter(start_s)
        self._buckets = buckets_up_to(rules.max_batch)
        self._batch: tuple[Image, ...] = ()
        self._batch_from_s = 0.0
        self._running_until_s: float | None = None
        self.wake_s = inf
        self.inflight = 0
        self.busy_s = 0.0
        """Time the device ran, in all."""
        self.batches = 0
        self.images = 0
        """Images the device ran."""

    def arrive(self, now_s: float) -> None:
        """An image comes in, or is refused."""
        deadline_s = now_s + self._rules.patience_s
        verdict = self._admission.decide(
            now_s, images=1, deadline_s=deadline_s, queue_images=self._batcher.held, running_until_s=self._running_until_s,
            limit=self._tiers.ceiling, fit=self._fit, line=self._batcher,
        )  # fmt: skip
        if isinstance(verdict, Refused):
            self._load.refused(now_s)
            self._tally.turned_away(now_s)
            return
        for displaced in self._batcher.displace("", verdict.displaces, drop_oldest=False) if verdict.displaces else ():
            self.inflight -= 1
            self._tally.turned_away(displaced.arrived_s)
        self._batcher.expect("", 1)
        self._load.arrived(now_s)
        self.inflight += 1
        image = _SimulatedImage(
            _KEY, _NO_PIXELS, _GEOMETRY, _THRESHOLDS, now_s, deadline_s, _finish, predicted_s=verdict.predicted_s
        )
        self._batcher.offer(image, now_s)
        if not self._batch:
            self._next(now_s)

    def wake(self, now_s: float) -> None:
        """A batch ended, or waiting for company did."""
        if self._batch:
            self._end(now_s)
        self._next(now_s)

    def grant(self, grant: CeilingGrant) -> None:
        """The operator's tiers, never above the worker's own bound."""
        self._tiers.grant(min(grant.base, self._rules.max_batch), min(grant.ceiling, self._rules.max_batch))

    def load(self, now_s: float) -> LoadState:
        """Demand and what becomes of it, over 15 s."""
        return self._load.state(
            now_s, queue_images=self._batcher.held, queue_oldest_age_s=self._batcher.oldest_age_s(now_s),
            inflight_images=self.inflight, fit=self._fit, ceiling=self._tiers.ceiling,
        )  # fmt: skip

    def tiers(self, now_s: float) -> CeilingState:
        """What it works with."""
        return self._tiers.state(now_s)

    @property
    def fit(self) -> Fit | None:
        """Seconds a batch takes, as learned."""
        return self._fit

    @property
    def buckets(self) -> tuple[int, ...]:
        """Batch sizes that are warm."""
        return self._buckets

    def _next(self, now_s: float) -> None:
        while True:
            turn = self._batcher.turn(now_s, self._tiers.update(now_s, self._batcher.waiting), self._speed.seconds)
            self._drop(turn)
            if turn.batch:
                self._start(turn.batch, now_s)
                return
            if not turn.dropped:
                self.wake_s = inf if turn.wait_until_s is None else turn.wait_until_s
                return

    def _drop(self, turn: Turn) -> None:
        for image in turn.dropped:
            self.inflight -= 1
            self._tally.too_late(image.arrived_s)
            self._learn(image, image.deadline_s)

    def _start(self, batch: tuple[Image, ...], now_s: float) -> None:
        size = self._padded(len(batch))
        seconds = self._speed.seconds(size)
        self._admission.started()
        self._batch, self._batch_from_s = batch, now_s
        self._running_until_s = None if seconds is None else now_s + seconds
        self.wake_s = now_s + self._device.seconds(size)

    def _end(self, now_s: float) -> None:
        batch, self._batch = self._batch, ()
        seconds = now_s - self._batch_from_s
        self._load.busy(self._batch_from_s, now_s)
        self._speed.observe(self._padded(len(batch)), seconds)
        self._fit = self._speed.fit
        self._running_until_s = None
        self.busy_s += seconds
        self.batches += 1
        self.images += len(batch)
        self.inflight -= len(batch)
        for image in batch:
            image.outcome = Outcome.OK
            self._tally.answered(image.arrived_s, now_s)
            self._learn(image, now_s)

    def _learn(self, image: Image, end_s: float) -> None:
        if isinstance(image, _SimulatedImage) and image.predicted_s is not None:
            self._admission.observe_late(image.predicted_s, end_s - image.arrived_s)

    def _padded(self, images: int) -> int:
        if not self._device.pads:
            return images
        return next((bucket for bucket in self._buckets if bucket >= images), images)
