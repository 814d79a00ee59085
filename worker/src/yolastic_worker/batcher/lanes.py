"""The waiting images of one shape key, in the order they should go."""

from collections import deque
from heapq import heapify, heappop, heappush
from typing import Final

from yolastic_worker.types import Image

_SLACK: Final = 64
"""Tickets of images that have left may outnumber those of waiting ones by this many."""


class _Ticket:
    """An image's place in every order at once; `image` is None once it has left, so that its pixels are free."""

    __slots__ = ("image",)

    def __init__(self, image: Image) -> None:
        self.image: Image | None = image


_ByDeadline = list[tuple[float, int, _Ticket]]
"""A heap of (deadline, number of arrival, ticket)."""


class Lane:
    """Round robin over sources; within one, the oldest deadline first, then the order of arrival.

    Images without a source share one place in the round. The orders (deadline, arrival, sources) hold the same tickets; an image
    that leaves by one is skipped by the others. Every operation is O(log n) amortised.
    """

    def __init__(self) -> None:
        self._arrivals = 0
        self._size = 0
        self._by_deadline: _ByDeadline = []
        self._by_arrival: deque[_Ticket] = deque()
        self._by_source: dict[str, _ByDeadline] = {}
        self._round: deque[str] = deque()

    def __len__(self) -> int:
        return self._size

    def add(self, image: Image) -> None:
        """Queue an image that arrives after all others."""
        self._compact()
        self._arrivals += 1
        self._size += 1
        ticket = _Ticket(image)
        place = (image.deadline_s, self._arrivals, ticket)
        self._by_arrival.append(ticket)
        heappush(self._by_deadline, place)
        waiting = self._by_source.get(image.source)
        if waiting is None:
            waiting = self._by_source[image.source] = []
            self._round.append(image.source)
        heappush(waiting, place)

    def pop(self) -> Image:
        """The next image.

        Raises:
            IndexError: none waits.
        """
        while True:
            source = self._round.popleft()
            image = self._pop_of(self._by_source[source])
            if self._by_source[source]:
                self._round.append(source)
            else:
                del self._by_source[source]
            if image is not None:
                return image

    def _pop_of(self, waiting: _ByDeadline) -> Image | None:
        """The next image of one source; None when all of its have left already."""
        while waiting:
            ticket = heappop(waiting)[2]
            if ticket.image is not None:
                return self._leave(ticket)
        return None

    def pop_expired(self, now_s: float) -> list[Image]:
        """Take out the images whose deadline has come."""
        expired = []
        while self._by_deadline and self._by_deadline[0][0] <= now_s:
            ticket = heappop(self._by_deadline)[2]
            if ticket.image is not None:
                expired.append(self._leave(ticket))
        return expired

    def waiting(self) -> list[Image]:
        """All that wait, in order of arrival."""
        return [ticket.image for ticket in self._by_arrival if ticket.image is not None]

    def oldest(self) -> Image:
        """The image that has waited longest.

        Raises:
            IndexError: none waits.
        """
        while (image := self._by_arrival[0].image) is None:
            self._by_arrival.popleft()
        return image

    def earliest_deadline_s(self) -> float:
        """The oldest deadline that waits.

        Raises:
            IndexError: none waits.
        """
        while self._by_deadline[0][2].image is None:
            heappop(self._by_deadline)
        return self._by_deadline[0][0]

    def _leave(self, ticket: _Ticket) -> Image:
        image, ticket.image = ticket.image, None
        assert image is not None
        self._size -= 1
        return image

    def _compact(self) -> None:
        """Throw out the tickets of those that left, once they outnumber those that wait."""
        most = 2 * self._size + _SLACK
        if len(self._by_deadline) > most:
            self._by_deadline = [place for place in self._by_deadline if place[2].image is not None]
            heapify(self._by_deadline)
        if len(self._by_arrival) > most:
            self._by_arrival = deque(ticket for ticket in self._by_arrival if ticket.image is not None)
