"""Demand over capacity: the load ratio of a worker."""

from yolastic_contract.state import Fit, LoadState


class LoadMeter:
    """Counts images and engine time over a sliding window of seconds."""

    def __init__(self, start_s: float, window_s: float = 15.0) -> None:
        self._start_s, self._window_s = start_s, window_s

    def arrived(self, now_s: float, images: int = 1) -> None:
        """Images that were accepted."""

    def refused(self, now_s: float, images: int = 1) -> None:
        """Images that were turned away."""

    def busy(self, start_s: float, end_s: float) -> None:
        """The engine ran from `start_s` to `end_s`."""

    def state(
        self, now_s: float, *, queue_images: int, queue_oldest_age_s: float, inflight_images: int, fit: Fit | None, ceiling: int
    ) -> LoadState:
        """Load over the window that ends now."""
        return LoadState(
            ratio=0, arrived_per_s=0, refused_per_s=0, capacity_per_s=0, queue_images=queue_images,
            queue_oldest_age_s=queue_oldest_age_s, inflight_images=inflight_images, busy_ratio=0,
        )  # fmt: skip
