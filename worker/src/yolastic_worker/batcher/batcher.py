"""Which waiting images go next, and when. Knows no model, no HTTP, no clock; not thread-safe: the caller holds one lock."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Final

from yolastic_worker.batcher.impatience import Impatience
from yolastic_worker.batcher.lanes import Lane
from yolastic_worker.batcher.places import Places
from yolastic_worker.types import Displaced, Image, Outcome, ShapeKey

SecondsOf = Callable[[int], float | None]
"""Predicted seconds of a batch of so many images; None while nothing is known."""

_PAYS: Final = 0.9
"""Waiting for company pays when the batch takes at most this share of what its images would take alone."""


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
    """The queue of one engine. A turn costs about O(batch), however many wait.

    Within a source the oldest deadline goes first. That is right for clients that tell their patience: admission lets in
    only what can be done in time. Clients that tell nothing have a deadline that is only a guess; in an overload the oldest
    of them are about to hang up, and first come, first served would run each just as its client leaves. So while such clients
    do hang up, the newest of theirs goes first, in turn with the images whose patience is known. 512 silent clients with
    500 ms at five times the capacity, on a fake clock (tests/worker/test_overload.py): with 100 ms on the way in and out of the
    engine 0.36 of the capacity was useful in order of arrival, 0.99 newest first; with 50 ms 0.64 and 0.99; with 20 ms 0.95,
    and nobody hangs up.
    """

    def __init__(self, rules: BatchRules) -> None:
        self._rules = rules
        self._lanes: dict[ShapeKey, Lane] = {}
        self._places = Places()
        self._impatience = Impatience()
        self._newest_first = False
        self.overtaking_s = -inf
        """When newer images of silent clients last had precedence over older ones."""

    def expect(self, source: str, images: int) -> None:
        """Images were accepted and are being decoded: they hold places in the queue from now on."""
        self._places.expect(source, images)

    def give_up(self, source: str) -> None:
        """An expected image will not come."""
        self._places.come(source)

    def offer(self, image: Image, now_s: float) -> None:
        """Queue an image; sets `queued_s`."""
        image.queued_s = now_s
        lane = self._lanes.get(image.key)
        if lane is None:
            lane = self._lanes[image.key] = Lane()
        lane.add(image)
        self._places.come(image.source)
        self._places.queue(image)

    def leave(self, image: Image, now_s: float) -> bool:
        """The client of an image has gone before its answer. True: it waited here, and is out; the caller finishes it."""
        image.cancelled = True
        if image.silent:
            self._impatience.hung_up(now_s)
        if not self._remove(image):
            return False
        image.outcome = Outcome.CANCELLED
        return True

    def displace(self, source: str, images: int, *, drop_oldest: bool) -> tuple[Image, ...]:
        """Take so many images out for newcomers of `source`, `outcome` set; the caller finishes them.

        Of the source that holds most: the newest, that would have been refused had they come later; `drop_oldest`: the oldest.
        """
        victim = self._places.gives_up(source, images, own=drop_oldest)
        taken: list[Image] = []
        while victim is not None and len(taken) < images:
            ends = [lane.oldest(victim) if drop_oldest else lane.newest(victim) for lane in self._lanes.values()]
            found = [image for image in ends if image is not None]
            image = min(found, key=_queued_s) if drop_oldest else max(found, key=_queued_s)
            self._remove(image)
            image.outcome, image.error = Outcome.REJECTED, Displaced()
            taken.append(image)
        return tuple(taken)

    def yields(self, source: str, images: int, *, drop_oldest: bool) -> bool:
        """May newcomers of `source` have the places of so many that wait? Their fair share, or with `drop_oldest` their own."""
        return self._places.gives_up(source, images, own=drop_oldest) is not None

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return self._places.queued

    @property
    def held(self) -> int:
        """Places of the queue that are taken: by images in it, and by accepted ones that are being decoded."""
        return self._places.held

    def ahead_of(self, source: str, images: int) -> int:
        """Images that go before the last of so many newcomers of `source` whose patience is known."""
        return self._places.ahead_of(source, images, newest_first=self._newest_first)

    @property
    def newest_first(self) -> bool:
        """Silent clients were hanging up when the last batch was formed."""
        return self._newest_first

    def oldest_age_s(self, now_s: float) -> float:
        """How long the oldest image has waited; 0 when none does."""
        oldest = [image.queued_s for lane in self._lanes.values() if (image := lane.oldest()) is not None]
        return max(0.0, now_s - min(oldest, default=now_s))

    def drain(self) -> tuple[Image, ...]:
        """Take everything out, oldest deadline first; the caller answers it."""
        images = [image for lane in self._lanes.values() for image in lane.waiting()]
        self._lanes.clear()
        for image in images:
            self._places.leave(image)
        return tuple(sorted(images, key=lambda image: image.deadline_s))

    def turn(self, now_s: float, limit: int, seconds_of: SecondsOf) -> Turn:
        """The next batch of an idle engine: one key, never more than `limit` images, none that is expired or cancelled.

        Of the keys that may go now, the one with the oldest deadline goes. `seconds_of` is the speed at these sizes.
        """
        limit = max(1, limit)
        self._newest_first = self._impatience.overloaded(now_s)
        if self._newest_first:
            self.overtaking_s = now_s
        dropped = self._drop_dead(now_s, limit, seconds_of)
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
                self._impatience.ran(now_s, len(batch))
                return Turn(tuple(batch), tuple(dropped))
        return Turn(dropped=tuple(dropped))

    def _remove(self, image: Image) -> bool:
        lane = self._lanes.get(image.key)
        if lane is None or not lane.remove(image):
            return False
        self._places.leave(image)
        self._forget_empty_lanes()
        return True

    def _drop_dead(self, now_s: float, limit: int, seconds_of: SecondsOf) -> list[Image]:
        """Images whose deadline has come; and, where more wait than fit, those that the next full batch would answer too late.

        As many as fit stay, however late: an estimate that is wrong heals only by running.
        """
        batch_s = seconds_of(limit) or 0.0
        dropped = []
        for lane in self._lanes.values():
            dead = lane.pop_expired(now_s, len(lane))
            dead += lane.pop_expired(now_s + batch_s, len(lane) - limit)
            for image in dead:
                image.outcome = Outcome.CANCELLED if image.cancelled else Outcome.EXPIRED
                self._places.leave(image)
            dropped += dead
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
        assert oldest is not None
        start_s = oldest.queued_s + rules.max_delay_s
        if rules.window is Window.FIXED:
            return start_s
        alone_s, batch_s = seconds_of(1), seconds_of(enough)
        if alone_s is None or batch_s is None:  # no speed, no slack to spend
            return float("-inf")
        if batch_s > _PAYS * enough * alone_s:  # company saves the device no time
            return float("-inf")
        start_s = min(start_s, lane.earliest_deadline_s() - batch_s)
        if rules.objective_s is not None:
            start_s = min(start_s, oldest.arrived_s + rules.objective_s - batch_s)
        return start_s

    def _take(self, lane: Lane, limit: int, seconds_of: SecondsOf, dropped: list[Image]) -> list[Image]:
        """Images of the next batch; cancelled ones met on the way go to `dropped`."""
        newest_first = self._newest_first and len(lane) > limit
        wanted = self._size(min(len(lane), limit), limit, seconds_of)
        batch: list[Image] = []
        while len(batch) < wanted and lane:
            image = lane.pop(newest_first=newest_first)
            self._places.leave(image)
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


def _queued_s(image: Image) -> float:
    return image.queued_s
