"""Which waiting images go next, and when. Knows no model, no HTTP, no clock; not thread-safe: the caller holds one lock."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from yolastic_worker.batcher.lanes import Lane
from yolastic_worker.types import Image, Outcome, ShapeKey

SecondsOf = Callable[[int], float | None]
"""Predicted seconds of a batch of so many images; None while nothing is known."""


class Window(StrEnum):
    """When an idle engine waits for company."""

    ADAPTIVE = "adaptive"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True)
class BatchRules:
    """How batches are formed (decisions §1)."""

    window: Window = Window.ADAPTIVE
    max_delay_s: float = 0.010
    """The longest an image waits for company while the engine is idle."""
    eager_size: int = 4
    """This many waiting: go at once."""
    shared: bool = False
    """Other workers use the device: waiting may save its time."""
    objective_s: float | None = None
    """Latency objective; adaptive waiting spends only its slack. None: only the images' deadlines count."""
    pad_to_buckets: bool = False
    """A new shape costs on this device: batches follow n/t(bucket)."""
    buckets: tuple[int, ...] = ()
    """Warm batch sizes, ascending; used with `pad_to_buckets`."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What the engine does now."""

    batch: tuple[Image, ...] = ()
    dropped: tuple[Image, ...] = ()
    """Expired or cancelled, `outcome` set; the caller finishes them."""
    wait_until_s: float | None = None
    """With an empty batch: come back then or at the next offer; None: at the next offer."""


class Batcher:
    """The queue of one engine. A turn costs about O(batch), however many wait."""

    def __init__(self, rules: BatchRules) -> None:
        self._rules = rules
        self._lanes: dict[ShapeKey, Lane] = {}
        self._waiting = 0

    def offer(self, image: Image, now_s: float) -> None:
        """Queue an image; sets `queued_s`."""
        image.queued_s = now_s
        lane = self._lanes.get(image.key)
        if lane is None:
            lane = self._lanes[image.key] = Lane()
        lane.add(image)
        self._waiting += 1

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return self._waiting

    def oldest_age_s(self, now_s: float) -> float:
        """How long the oldest image has waited; 0 when none does."""
        oldest_s = min((lane.oldest().queued_s for lane in self._lanes.values()), default=now_s)
        return max(0.0, now_s - oldest_s)

    def drain(self) -> tuple[Image, ...]:
        """Take everything out, oldest deadline first; the caller answers it."""
        images = [image for lane in self._lanes.values() for image in lane.waiting()]
        self._lanes.clear()
        self._waiting = 0
        return tuple(sorted(images, key=lambda image: image.deadline_s))

    def turn(self, now_s: float, limit: int, seconds_of: SecondsOf) -> Turn:
        """The next batch of an idle engine: one key, never more than `limit` images, none that is expired or cancelled.

        Of the keys that may go now, the one with the oldest deadline goes. `seconds_of` is the speed at these sizes.
        """
        limit = max(1, limit)
        dropped = self._drop_expired(now_s)
        while self._lanes:
            ready: list[Lane] = []
            wake_s = []
            for lane in self._lanes.values():
                start_s = self._start_s(lane, limit, seconds_of)
                if start_s <= now_s:
                    ready.append(lane)
                else:
                    wake_s.append(min(start_s, lane.earliest_deadline_s()))
            if not ready:
                return Turn(dropped=tuple(dropped), wait_until_s=min(wake_s))
            lane = min(ready, key=Lane.earliest_deadline_s)
            batch = self._take(lane, limit, seconds_of, dropped)
            self._forget_empty_lanes()
            if batch:
                return Turn(tuple(batch), tuple(dropped))
        return Turn(dropped=tuple(dropped))

    def _drop_expired(self, now_s: float) -> list[Image]:
        dropped = []
        for lane in self._lanes.values():
            for image in lane.pop_expired(now_s):
                image.outcome = Outcome.CANCELLED if image.cancelled else Outcome.EXPIRED
                dropped.append(image)
        self._waiting -= len(dropped)
        self._forget_empty_lanes()
        return dropped

    def _start_s(self, lane: Lane, limit: int, seconds_of: SecondsOf) -> float:
        """When this lane's batch should start; the past means now."""
        rules = self._rules
        if rules.window is Window.ADAPTIVE and not rules.shared:
            return float("-inf")
        enough = min(rules.eager_size, limit)
        if len(lane) >= enough:
            return float("-inf")
        oldest = lane.oldest()
        start_s = oldest.queued_s + rules.max_delay_s
        if rules.window is Window.FIXED:
            return start_s
        batch_s = seconds_of(enough)
        if batch_s is None:  # no speed, no slack to spend
            return float("-inf")
        start_s = min(start_s, lane.earliest_deadline_s() - batch_s)
        if rules.objective_s is not None:
            start_s = min(start_s, oldest.arrived_s + rules.objective_s - batch_s)
        return start_s

    def _take(self, lane: Lane, limit: int, seconds_of: SecondsOf, dropped: list[Image]) -> list[Image]:
        """Images of the next batch; cancelled ones met on the way go to `dropped`."""
        wanted = self._size(min(len(lane), limit), limit, seconds_of)
        batch: list[Image] = []
        while len(batch) < wanted and lane:
            image = lane.pop()
            self._waiting -= 1
            if image.cancelled:
                image.outcome = Outcome.CANCELLED
                dropped.append(image)
            else:
                batch.append(image)
        return batch

    def _size(self, available: int, limit: int, seconds_of: SecondsOf) -> int:
        """How many of `available` <= `limit` images to take: what fills the bucket with the most useful images per second.

        The engine pads a batch to the smallest bucket that holds it; no bucket above the limit is considered.
        """
        if not self._rules.pad_to_buckets:
            return available
        best, best_rate = 0, 0.0
        for bucket in self._rules.buckets:
            if bucket > limit:
                break
            useful = min(available, bucket)
            batch_s = seconds_of(bucket)
            rate = useful / batch_s if batch_s else float(useful)  # nothing is known yet: as many as there are
            if rate >= best_rate:
                best, best_rate = useful, rate
            if bucket >= available:
                break
        return best or available

    def _forget_empty_lanes(self) -> None:
        for key in [key for key, lane in self._lanes.items() if not lane]:
            del self._lanes[key]
