"""The nouns that pass between the rooms of a worker. Pure data; pixels are numpy arrays."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.float32]


class ShapeKey(NamedTuple):
    """Images of one key may share a batch."""

    height: int
    width: int
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a source image was letterboxed: enough to bring boxes back to source pixels."""

    source_height: int
    source_width: int
    scale: float
    """Input pixels a source pixel."""
    pad_left: int
    pad_top: int


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a client asks of the detections."""

    conf: float = 0.25
    iou: float = 0.7
    max_detections: int = 300


class Outcome(StrEnum):
    """How an accepted image ends; each ends in exactly one."""

    OK = "ok"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    FAILED = "failed"


def content_digest(body: bytes) -> bytes:
    """BLAKE2b-128 of an encoded image."""
    return blake2b(body, digest_size=16).digest()


@dataclass(slots=True, eq=False)
class Image:
    """One accepted image, from its slot to its answer.

    `pixels`: uint8 [H, W, 3] RGB, letterboxed. `finish(image)` is called once, on the event
    loop, after `outcome` is set.
    """

    key: ShapeKey
    pixels: Pixels
    geometry: Geometry
    thresholds: Thresholds
    arrived_s: float
    """Monotonic clock."""
    deadline_s: float
    """Monotonic clock; never run after it."""
    finish: "Callable[[Image], None]"
    source: str = ""
    """Camera or client, when it is told."""
    silent: bool = False
    """Its client did not tell its patience: `deadline_s` is a guess."""
    body: bytes = field(default=b"", repr=False)
    """As the client sent it, encoded; its request holds it until it is answered, so this costs nothing."""
    cancelled: bool = False
    """The client is gone."""
    queued_s: float = 0.0
    started_s: float = 0.0
    """Its batch began to run."""
    inferred_s: float = 0.0
    outcome: Outcome | None = None
    boxes: Boxes | None = None
    """float32 [M, 6] x1 y1 x2 y2 score class, source pixels, best first."""
    error: Exception | None = field(default=None, repr=False)

    @property
    def digest(self) -> bytes:
        """What the client sent, known again: BLAKE2b-128 of the body; empty without one. Computed when asked: few images are."""
        return content_digest(self.body) if self.body else b""


class WorkerFailure(Exception):  # noqa: N818 - it is the failure of a worker, not of a call
    """The worker cannot start, and a person must change something: exit 2. With the reason DeviceLost: it cannot go on, exit 3.

    `reason` is one of `yolastic_contract.failure.REASONS`; the message is a sentence that says what to do.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Displaced(Exception):  # noqa: N818 - what happened to one image
    """It gave up its place in a full queue to a newer image."""


class OutOfDeviceMemory(Exception):  # noqa: N818 - the field's name for it
    """The device has no memory for this batch."""


class DeviceLost(Exception):  # noqa: N818 - the field's name for it
    """The device will not answer again in this process: exit 3."""


class TransientFailure(Exception):  # noqa: N818 - as the others
    """One batch failed for a reason that passes (a timed-out or interrupted call); the same batch may be run once more."""


class Quarantined(Exception):  # noqa: N818 - as the others
    """The model fails on this image, alone; the same content is refused for a while."""
