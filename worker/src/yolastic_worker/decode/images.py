"""What an encoded image is, whether it may be decoded, and its pixels."""

from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np

from yolastic_worker.types import Pixels

cv2.setNumThreads(1)


class ImageFormat(StrEnum):
    """Formats that are served; recognised by content, never by name or content type."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    BMP = "bmp"


class ImageRefused(Exception):  # noqa: N818 - an answer, not an accident
    """This image will not be decoded. `status` is the HTTP status (400, 413 or 415), `code` a stable word."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What may be decoded at most."""

    max_pixels: int = 50_000_000
    max_side: int = 16384


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of an image tell, before anything is decoded; sides as stored, before EXIF orientation."""

    format: ImageFormat
    width: int
    height: int


DEFAULT_LIMITS = ImageLimits()


def read_header(body: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> Header:
    """Format and size of an image without decoding it.

    Raises:
        ImageRefused: 400 broken or empty, 413 too many pixels, 415 not a known format.
    """
    raise ImageRefused(415, "unknown_format", "the body is not a JPEG, PNG, WebP or BMP image")


def decode(body: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> Pixels:
    """RGB uint8 [h, w, 3] of an encoded image, EXIF orientation applied. Releases the GIL while it decodes.

    Raises:
        ImageRefused: as `read_header`; also 400 when the data are broken.
    """
    read_header(body, limits)
    return cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR_RGB)  # type: ignore[return-value]
