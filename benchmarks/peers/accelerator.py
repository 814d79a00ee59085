"""The simulated accelerator every peer gets: 20 ms + 1 ms an image, one batch at a time, the GIL free while it runs.

As precise as the one of Yolastic's simulated backend: it sleeps all but the last 0.2 ms, since the system wakes a sleeper late.
"""

import threading
import time

FIXED_S, PER_IMAGE_S, LIMIT = 0.020, 0.001, 32
_WAKES_LATE_S = 0.0002
_busy = threading.Lock()


def run(images: int) -> int:
    """Be busy for a batch of `images`; gives it back.

    Raises:
        ValueError: more than the limit, as a device without memory for them would.
    """
    if images > LIMIT:
        raise ValueError(f"{images} images, the limit is {LIMIT}")
    with _busy:
        end_s = time.perf_counter() + FIXED_S + PER_IMAGE_S * images
        time.sleep(max(0.0, end_s - time.perf_counter() - _WAKES_LATE_S))
        while time.perf_counter() < end_s:
            time.sleep(0)
    return images
