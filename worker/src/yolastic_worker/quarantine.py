"""Images that alone made a batch fail: known again by their content, refused for a while. Bounded; the clock is passed in."""

from collections import OrderedDict
from math import inf
from typing import Final

EXPIRY_S: Final = 600.0
_MOST: Final = 1024
"""Entries of 16 bytes; the oldest gives way."""


class Quarantine:
    """Digests with the time they are held until. One thread adds, others may ask."""

    def __init__(self, expiry_s: float = EXPIRY_S, most: int = _MOST) -> None:
        self._expiry_s, self._most = expiry_s, most
        self._until_s: OrderedDict[bytes, float] = OrderedDict()
        self._all_over_s = -inf

    def add(self, digest: bytes, now_s: float) -> None:
        """Hold an image from now; one without a digest cannot be known again."""
        if not digest:
            return
        self._until_s[digest] = self._all_over_s = now_s + self._expiry_s
        self._until_s.move_to_end(digest)
        while len(self._until_s) > self._most:
            self._until_s.popitem(last=False)
        self._forget(now_s)

    def holds(self, digest: bytes, now_s: float) -> bool:
        """Is this image held? Being asked for does not lengthen it: after its time it gets another chance."""
        until_s = self._until_s.get(digest)
        return until_s is not None and now_s < until_s

    def held(self, now_s: float) -> int:
        """Images that are held."""
        return sum(now_s < until_s for until_s in list(self._until_s.values()))

    def over(self, now_s: float) -> bool:
        """None is held any more: nobody needs to ask, and no digest is to be computed."""
        return now_s >= self._all_over_s

    def _forget(self, now_s: float) -> None:
        """Every entry is held equally long, so the first is the oldest."""
        while self._until_s and next(iter(self._until_s.values())) <= now_s:
            self._until_s.popitem(last=False)
