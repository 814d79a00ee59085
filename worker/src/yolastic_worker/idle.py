"""What the engine thread does while it has no batch to run: one small task at a time, handed over directly.

The way of a lone image from the event loop over a decoding thread to the engine thread wakes two threads one after the other, and
while the second waits for Python's lock the first still holds it. An engine that idles can decode that image itself: measured
with 21 ms a batch on two cores, one client's p50 fell from 22.7 to 22.2 ms.
"""

from collections.abc import Callable

Task = Callable[[], None]


class IdleHands:
    """A place for one task. Not thread-safe: the caller holds one lock."""

    def __init__(self) -> None:
        self.idle = False
        """The engine thread waits, and will look here when it is woken."""
        self._task: Task | None = None

    def offer(self, task: Task) -> bool:
        """Put a task there; False when the thread does something, or is about to. It is to be woken then."""
        if not self.idle or self._task is not None:
            return False
        self._task = task
        return True

    def take(self) -> Task | None:
        """The task that was put there, once."""
        task, self._task = self._task, None
        return task
