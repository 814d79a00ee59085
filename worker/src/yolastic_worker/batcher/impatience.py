"""Do clients leave because the queue is too long? Then the newest first; no clock."""

from typing import Final

_HALF_LIFE_S: Final = 1.0
"""What happened counts half after this time."""
_SOME: Final = 8.0
"""Fewer than this many lately may be anything."""
_SHARE: Final = 0.1
"""Of the images that ran; more hang-ups than this are an overload."""


class Impatience:
    """Images that ran, and images whose silent clients hung up before the answer; both fade."""

    def __init__(self) -> None:
        self._gone = self._ran = 0.0
        self._of_s = 0.0

    def hung_up(self, now_s: float) -> None:
        """A client that had not told its patience left while its image waited or ran."""
        self._fade(now_s)
        self._gone += 1.0

    def ran(self, now_s: float, images: int) -> None:
        """A batch of so many begins to run."""
        self._fade(now_s)
        self._ran += images

    def overloaded(self, now_s: float) -> bool:
        """Clients leave before it is their turn: what has waited longest is about to be in vain."""
        self._fade(now_s)
        return self._gone >= _SOME and self._gone > _SHARE * self._ran

    def _fade(self, now_s: float) -> None:
        if now_s > self._of_s:
            share = 0.5 ** ((now_s - self._of_s) / _HALF_LIFE_S)
            self._gone *= share
            self._ran *= share
            self._of_s = now_s
