"""The waiting images of one shape key, in the order they should go."""

from collections import deque
from heapq import heapify, heappop, heappush
from typing import Final

from yolastic_worker.types import Image

_SLACK: Final = 64
"""Tickets of images that have left may outnumber those of waiting ones by this many."""


class _Ticket:
    """An image's place in every order at once; `image` is None once it has left, so that its pixels are free."""

    __slots__ = ("image", "number", "orders")

    def __init__(self, image: Image, number: int, orders: "tuple[_Order, ...]") -> None:
        self.image: Image | None = image
        self.number = number
        self.orders = orders


class _Order:
    """Tickets by deadline and by arrival. Those of images that have left are skipped, and thrown out when they are too many."""

    __slots__ = ("_by_arrival", "_by_deadline", "live")

    def __init__(self) -> None:
        self._by_deadline: list[tuple[float, int, _Ticket]] = []
        self._by_arrival: deque[_Ticket] = deque()
        self.live = 0

    def add(self, ticket: _Ticket, deadline_s: float) -> None:
        """Queue a ticket that arrives after all others."""
        most = 2 * self.live + _SLACK
        if len(self._by_deadline) > most:
            self._by_deadline = [place for place in self._by_deadline if place[2].image is not None]
            heapify(self._by_deadline)
        if len(self._by_arrival) > most:
            self._by_arrival = deque(ticket for ticket in self._by_arrival if ticket.image is not None)
        heappush(self._by_deadline, (deadline_s, ticket.number, ticket))
        self._by_arrival.append(ticket)
        self.live += 1

    def soonest(self) -> tuple[float, int, _Ticket] | None:
        """(deadline, number, ticket) of the oldest deadline; None when nothing waits."""
        places = self._by_deadline
        while places and places[0][2].image is None:
            heappop(places)
        return places[0] if places else None

    def oldest(self) -> _Ticket | None:
        """The first to arrive; None when nothing waits."""
        tickets = self._by_arrival
        while tickets and tickets[0].image is None:
            tickets.popleft()
        return tickets[0] if tickets else None

    def newest(self) -> _Ticket | None:
        """The last to arrive; None when nothing waits."""
        tickets = self._by_arrival
        while tickets and tickets[-1].image is None:
            tickets.pop()
        return tickets[-1] if tickets else None

    def waiting(self) -> list[Image]:
        """All that wait, in order of arrival."""
        return [ticket.image for ticket in self._by_arrival if ticket.image is not None]


class _Source:
    """The images of one camera or client, those whose patience is told apart from those of silent clients."""

    __slots__ = ("silent", "silent_next", "told")

    def __init__(self) -> None:
        self.told, self.silent = _Order(), _Order()
        self.silent_next = False

    @property
    def live(self) -> int:
        """Images that wait."""
        return self.told.live + self.silent.live

    def next(self, *, newest_first: bool) -> _Ticket | None:
        """Oldest deadline first; `newest_first`: of the silent ones the newest, in turn with the others."""
        told, silent = self.told.soonest(), self.silent.soonest()
        if told is None or silent is None:
            one = told or silent
            if one is None or told is not None or not newest_first:
                return None if one is None else one[2]
            return self.silent.newest()
        if not newest_first:
            return min(told, silent)[2]
        silent_next, self.silent_next = self.silent_next, not self.silent_next
        return self.silent.newest() if silent_next else told[2]

    def oldest(self) -> _Ticket | None:
        """The first to arrive."""
        found = [ticket for ticket in (self.told.oldest(), self.silent.oldest()) if ticket is not None]
        return min(found, key=lambda ticket: ticket.number, default=None)

    def newest(self) -> _Ticket | None:
        """The last to arrive."""
        found = [ticket for ticket in (self.told.newest(), self.silent.newest()) if ticket is not None]
        return max(found, key=lambda ticket: ticket.number, default=None)


class Lane:
    """Round robin over sources; within one, the oldest deadline first, then the order of arrival.

    Images without a source share one place in the round. The orders hold the same tickets; an image that leaves by one is skipped
    by the others. Every operation is O(log n) amortised.
    """

    def __init__(self) -> None:
        self._arrivals = 0
        self._all = _Order()
        self._tickets: dict[Image, _Ticket] = {}
        self._sources: dict[str, _Source] = {}
        self._round: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._tickets)

    def add(self, image: Image) -> None:
        """Queue an image that arrives after all others."""
        self._arrivals += 1
        source = self._sources.get(image.source)
        if source is None:
            source = self._sources[image.source] = _Source()
            self._round.append(image.source)
        own = source.silent if image.silent else source.told
        ticket = self._tickets[image] = _Ticket(image, self._arrivals, (self._all, own))
        for order in ticket.orders:
            order.add(ticket, image.deadline_s)

    def pop(self, *, newest_first: bool = False) -> Image:
        """The next image; `newest_first`: of clients that did not tell their patience, the last to arrive.

        Raises:
            IndexError: none waits.
        """
        while True:
            name = self._round.popleft()
            source = self._sources[name]
            ticket = source.next(newest_first=newest_first)
            image = None if ticket is None else self._leave(ticket)
            if source.live:
                self._round.append(name)
            else:
                del self._sources[name]
            if image is not None:
                return image

    def remove(self, image: Image) -> bool:
        """Take one image out; False when it does not wait here."""
        ticket = self._tickets.get(image)
        if ticket is None:
            return False
        self._leave(ticket)
        return True

    def pop_expired(self, now_s: float, most: int) -> list[Image]:
        """Take out images whose deadline has come by `now_s`, at most so many, the oldest deadlines first."""
        expired: list[Image] = []
        while len(expired) < most and (place := self._all.soonest()) is not None and place[0] <= now_s:
            expired.append(self._leave(place[2]))
        return expired

    def waiting(self) -> list[Image]:
        """All that wait, in order of arrival."""
        return self._all.waiting()

    def oldest(self, source: str | None = None) -> Image | None:
        """The image that has waited longest, of one source or of all; None when none waits."""
        return self._image((self._all if source is None else self._sources.get(source, _NOBODY)).oldest())

    def newest(self, source: str) -> Image | None:
        """The last image of a source; None when none waits."""
        return self._image(self._sources.get(source, _NOBODY).newest())

    def earliest_deadline_s(self) -> float:
        """The oldest deadline that waits.

        Raises:
            IndexError: none waits.
        """
        place = self._all.soonest()
        if place is None:
            raise IndexError("none waits")
        return place[0]

    @staticmethod
    def _image(ticket: _Ticket | None) -> Image | None:
        return None if ticket is None else ticket.image

    def _leave(self, ticket: _Ticket) -> Image:
        image, ticket.image = ticket.image, None
        assert image is not None
        for order in ticket.orders:
            order.live -= 1
        del self._tickets[image]
        return image


_NOBODY: Final = _Source()
