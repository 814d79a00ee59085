"""The threads that decode. Small images and large ones have lanes of their own, so that bombs of pixels delay only each other."""

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

from yolastic_worker.decode.header import SMALL_PIXELS

logger = logging.getLogger(__name__)

_Task = tuple[Callable[..., None], tuple[Any, ...]]

_BYTES_A_PIXEL: Final = 12
"""At the decoder's worst: coefficients of a progressive JPEG (6), RGB (3), and its copy turned by EXIF (3)."""
_LARGE_NICENESS: Final = 5
"""A large image takes a core for half a second; the many small ones and the event loop come first on a full machine."""


def decoding_bytes(pixels: int) -> int:
    """Memory one image of so many pixels may take while it is decoded."""
    return pixels * _BYTES_A_PIXEL


class Lane:
    """Threads that run what is put before them. No futures: nobody asks them, and they cost CPU time.

    A task goes to the thread that became idle last, its caches are warm, and wakes no other. A `SimpleQueue` with several readers
    wakes a second one for each task, which finds nothing and stands in the way of the first at Python's lock.
    """

    def __init__(self, threads: int, name: str, begin: Callable[[], None] = lambda: None) -> None:
        self._lock = threading.Lock()
        self._tasks: deque[_Task] = deque()
        self._idle: list[SimpleQueue[_Task]] = []
        """The in-trays of idle threads; the last became idle last."""
        self._begin = begin
        for number in range(threads):
            threading.Thread(target=self._run, name=f"{name}_{number}", daemon=True).start()

    def put(self, task: Callable[..., None], *arguments: Any) -> None:
        """Run it soon."""
        with self._lock:
            if not self._idle:
                self._tasks.append((task, arguments))
                return
            tray = self._idle.pop()
        tray.put((task, arguments))

    @property
    def idle(self) -> int:
        """Threads that wait for a task."""
        return len(self._idle)

    def _run(self) -> None:
        self._begin()
        tray: SimpleQueue[_Task] = SimpleQueue()
        while True:
            with self._lock:
                waiting = self._tasks.popleft() if self._tasks else None
                if waiting is None:
                    self._idle.append(tray)
            task, arguments = waiting or tray.get()
            try:
                task(*arguments)
            except Exception:
                logger.exception("a decoding task failed")
            del task, arguments, waiting  # or an idle thread would hold the last body and its pixels


class DecodePool:
    """Runs decoding tasks in threads: one lane for small images, which never waits for memory, one for large ones, which does."""

    def __init__(self, threads: int, memory_bytes: int, most_large: int) -> None:
        """`memory_bytes`: of large images decoded at once; `most_large`: large images that may wait."""
        self._memory_bytes, self._most_large = memory_bytes, most_large
        self._small = Lane(threads, "decode")
        self._large = Lane(max(1, threads // 2), "decode-large", _yield_to_others)
        self._room = threading.Condition()
        self._taken_bytes = 0
        self._waiting = 0

    def submit(self, pixels: int, task: Callable[..., None], *arguments: Any) -> None:
        """Run `task` for an image of so many pixels; it must not raise."""
        if pixels <= SMALL_PIXELS:
            self._small.put(task, *arguments)
            return
        with self._room:
            self._waiting += 1
        self._large.put(self._run_large, decoding_bytes(pixels), task, arguments)

    def has_room(self, large: int) -> bool:
        """May so many large images more wait? They hold places of the queue, which small ones need too."""
        return not large or self._waiting + large <= self._most_large

    def _run_large(self, size: int, task: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        with self._room:
            while self._taken_bytes and self._taken_bytes + size > self._memory_bytes:  # alone, an image always may
                self._room.wait()
            self._taken_bytes += size
        try:
            task(*arguments)
        finally:
            with self._room:
                self._taken_bytes -= size
                self._waiting -= 1
                self._room.notify_all()


def _yield_to_others() -> None:
    """On Linux niceness is a thread's own."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LARGE_NICENESS)
