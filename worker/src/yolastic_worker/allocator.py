"""How the C library keeps freed memory: decoded pixels come and go with every image."""

import ctypes
import logging
from typing import Final

logger = logging.getLogger(__name__)

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 8 << 20
"""Holds the pixels of a 1920 x 1080 frame. Larger blocks go back to the system at once, and so does what a thread's heap has
beyond this: the cost is at most so much for each decoding thread."""


def keep_freed_memory() -> None:
    """Let freed blocks of a decoded image's size stay with the process (mallopt(3)); a no-op where the C library is not glibc.

    By default glibc gives them back to the system after each image and takes them again for the next: 570 page faults and
    1.6 ms of CPU time for one 640 x 640 JPEG, as much as decoding it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
        if mallopt(parameter, _KEPT_BYTES) != 1:
            logger.warning("the C library refuses mallopt(%d): decoding takes more CPU time", parameter)
