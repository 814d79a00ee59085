"""Which waiting images go next, and when. Knows no model, no HTTP, no clock; not thread-safe: the caller holds one lock."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from yolastic_worker.types import Image

SecondsOf = Callable[[int], float | None]
"""Predicted seconds of a batch of so many images; None while nothing is known."""


class Window(StrEnum):
    """When an idle engine waits for company."""

    ADAPTIVE = "adaptive"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True)
class BatchRules:
    """How batches are formed."""

    window: Window = Window.ADAPTIVE
    max_delay_s: float = 0.010
    """The longest an image waits for company while the engine is idle."""
    eager_size: int = 4
    """This many waiting: go at once."""
    shared: bool = False
    """Other workers use the device: waiting may save its time."""
    objective_s: float | None = None
    """Latency objective; adaptive waiting spends only its slack."""
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
    """The queue of one engine."""

    def __init__(self, rules: BatchRules) -> None:
        self._rules = rules
        self._images: list[Image] = []

    def offer(self, image: Image, now_s: float) -> None:
        """Queue an image; sets `queued_s`."""
        image.queued_s = now_s
        self._images.append(image)

    def turn(self, now_s: float, limit: int, seconds_of: SecondsOf) -> Turn:
        """The next batch of an idle engine, never more than `limit` images."""
        batch, self._images = tuple(self._images[:limit]), self._images[limit:]
        return Turn(batch)

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return len(self._images)

    def oldest_age_s(self, now_s: float) -> float:
        """How long the oldest image has waited; 0 when none does."""
        return 0.0

    def drain(self) -> tuple[Image, ...]:
        """Take everything out; the caller answers it."""
        images, self._images = tuple(self._images), []
        return images
