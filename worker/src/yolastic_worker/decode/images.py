"""Pixels of an encoded image."""

import cv2
import numpy as np

from yolastic_worker.decode.header import Header, ImageRefused, read_header
from yolastic_worker.decode.png import PngRefused, tidy
from yolastic_worker.limits import DEFAULT_LIMITS, ImageFormat, Limits
from yolastic_worker.types import Pixels

cv2.setNumThreads(1)  # images are decoded in a pool of threads; threads inside one image would only get in their way
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # a broken body is an answer to its client, not a log line


def decode(body: bytes, limits: Limits = DEFAULT_LIMITS) -> Pixels:
    """RGB uint8 [h, w, 3] of an encoded image, EXIF orientation applied: what `cv2.imread` gives, in RGB.

    Grey becomes three equal channels, alpha is dropped, 16 bit become 8. Releases the GIL while it decodes.

    Raises:
        ImageRefused: as `read_header` and `decode_as`.
    """
    return decode_as(read_header(body, limits), body)


def decode_as(header: Header, body: bytes) -> Pixels:
    """As `decode`, for a body whose header has been read.

    Raises:
        ImageRefused: 400 when the data are broken or of a variant that is not supported.
    """
    if header.format is ImageFormat.PNG:
        try:
            body = tidy(body)
        except PngRefused as error:
            raise ImageRefused(400, "broken_image", f"the PNG image {error}") from error
    try:
        pixels = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR_RGB)
    except (cv2.error, MemoryError):
        pixels = None
    if pixels is None:
        raise ImageRefused(400, "broken_image", f"the {header.format.upper()} data are broken or of an unsupported variant")
    sides = (header.height, header.width)
    if pixels.shape[:2] not in (sides, sides[::-1]):  # turned by EXIF; anything else went past the limits
        raise ImageRefused(400, "broken_image", f"the {header.format.upper()} data do not match their header")
    return pixels.astype(np.uint8, copy=False)
