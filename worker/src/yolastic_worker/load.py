"""Demand over capacity: the load ratio of a worker (decisions §5)."""

from collections import deque
from typing import Final

from yolastic_contract.state import Fit, LoadState

MIN_ELAPSED_S: Final = 5.0
"""A younger worker is measured as if it were this old: what waited for it to start is not a flood."""
_GRAIN_S: Final = 0.01
"""Events this close count as one: bounds the memory whatever the rate."""


class LoadMeter:
    """Counts images and engine time over a sliding window of seconds; not thread-safe."""

    def __init__(self, start_s: float, window_s: float = 15.0) -> None:
        self._start_s = start_s
        self._window_s = window_s
        self._arrived = _Counter(window_s)
        self._refused = _Counter(window_s)
        self._busy: deque[tuple[float, float]] = deque()
        self._busy_s = 0.0
        """The sum of these, kept so that whoever asks does not hold the lock for thousands of batches."""
        self._demand = 0

    def arrived(self, now_s: float, images: int = 1) -> None:
        """Images that were accepted."""
        self._demand += images
        self._arrived.add(now_s, images)

    def refused(self, now_s: float, images: int = 1) -> None:
        """Images that were turned away."""
        self._demand += images
        self._refused.add(now_s, images)

    def busy(self, start_s: float, end_s: float) -> None:
        """The engine ran from `start_s` to `end_s`."""
        self._busy.append((start_s, end_s))
        self._busy_s += end_s - start_s
        self._forget_busy(end_s)

    def state(
        self, now_s: float, *, queue_images: int, queue_oldest_age_s: float, inflight_images: int, fit: Fit | None, ceiling: int
    ) -> LoadState:
        """Load over the window that ends now. Without a fit the capacity is unknown: it and the ratio are 0."""
        elapsed_s = min(self._window_s, max(MIN_ELAPSED_S, now_s - self._start_s))
        arrived_per_s = self._arrived.total(now_s) / elapsed_s
        refused_per_s = self._refused.total(now_s) / elapsed_s
        batch_s = fit.at(ceiling) if fit else 0.0
        capacity_per_s = ceiling / batch_s if batch_s > 0 else 0.0
        demand_per_s = arrived_per_s + refused_per_s + queue_images / self._window_s
        return LoadState(
            ratio=demand_per_s / capacity_per_s if capacity_per_s > 0 else 0.0,
            arrived_per_s=arrived_per_s,
            refused_per_s=refused_per_s,
            capacity_per_s=capacity_per_s,
            queue_images=queue_images,
            queue_oldest_age_s=queue_oldest_age_s,
            inflight_images=inflight_images,
            busy_ratio=min(1.0, self._busy_lately_s(now_s) / elapsed_s),
            demand_images=self._demand,
        )

    def _busy_lately_s(self, now_s: float) -> float:
        self._forget_busy(now_s)
        too_early_s = max(0.0, now_s - self._window_s - self._busy[0][0]) if self._busy else 0.0  # runs follow each other
        return self._busy_s - too_early_s

    def _forget_busy(self, now_s: float) -> None:
        while self._busy and self._busy[0][1] <= now_s - self._window_s:
            start_s, end_s = self._busy.popleft()
            self._busy_s = self._busy_s - (end_s - start_s) if self._busy else 0.0


class _Counter:
    """A running sum over a sliding window."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._events: deque[list[float]] = deque()
        self._sum = 0

    def add(self, now_s: float, images: int) -> None:
        self._sum += images
        if self._events and now_s - self._events[-1][0] < _GRAIN_S:
            self._events[-1][1] += images
        else:
            self._events.append([now_s, images])
            self._forget(now_s)

    def total(self, now_s: float) -> int:
        self._forget(now_s)
        return self._sum

    def _forget(self, now_s: float) -> None:
        while self._events and self._events[0][0] <= now_s - self._window_s:
            self._sum -= int(self._events.popleft()[1])
