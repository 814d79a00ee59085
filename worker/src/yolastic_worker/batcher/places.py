"""Who holds how many places of the queue, and who gives one up when it is full."""

from collections.abc import Iterator

from yolastic_worker.types import Image


class Places:
    """Images of each source between their admission and their batch: still being decoded (expected), or queued."""

    def __init__(self) -> None:
        self._expected: dict[str, int] = {}
        self._queued: dict[str, int] = {}
        self.expected = 0
        self.queued = 0
        self._silent = 0

    @property
    def held(self) -> int:
        """Places taken."""
        return self.expected + self.queued

    def expect(self, source: str, images: int) -> None:
        """Images were accepted; each will be queued or given up."""
        self._expected[source] = self._expected.get(source, 0) + images
        self.expected += images

    def come(self, source: str) -> None:
        """An expected image does not stay expected: it is queued, or given up. One that nobody expected changes nothing."""
        if source in self._expected:
            self.expected -= 1
            _less(self._expected, source)

    def queue(self, image: Image) -> None:
        """An image is queued."""
        self._queued[image.source] = self._queued.get(image.source, 0) + 1
        self.queued += 1
        self._silent += image.silent

    def leave(self, image: Image) -> None:
        """A queued image leaves."""
        self.queued -= 1
        self._silent -= image.silent
        _less(self._queued, image.source)

    def held_by(self, source: str) -> int:
        """Places of one source."""
        return self._expected.get(source, 0) + self._queued.get(source, 0)

    def ahead_of(self, source: str, images: int, *, newest_first: bool) -> int:
        """Images that go before the last of so many newcomers whose patience is known: never more than are held.

        Of each other source as many as the newcomer's own will have, since sources take turns; `newest_first`: of silent clients
        as many as of the others, for the same reason. O(sources).
        """
        own = self.held_by(source)
        ahead = own + sum(min(held, own + images) for other, held in self._others(source))
        if newest_first:
            told = self.held - self._silent
            ahead = min(ahead, told + min(self._silent, told + images))
        return ahead

    def gives_up(self, source: str, images: int, *, own: bool) -> str | None:
        """The source that gives up so many places to newcomers of `source`; None when nobody should.

        The one that holds most, if it holds more than the newcomer's even after the exchange; `own`: else the newcomer's source
        itself. Only queued images can go. O(sources).
        """
        least = self.held_by(source) + 2 * images
        found = max(self._others(source), key=lambda other: other[1], default=("", 0))
        if found[1] >= least and self._queued.get(found[0], 0) >= images:
            return found[0]
        return source if own and self._queued.get(source, 0) >= images else None

    def _others(self, source: str) -> Iterator[tuple[str, int]]:
        for other in self._queued.keys() | self._expected.keys():
            if other != source:
                yield other, self.held_by(other)


def _less(counts: dict[str, int], source: str) -> None:
    counts[source] -= 1
    if not counts[source]:
        del counts[source]
