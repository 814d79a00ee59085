"""May this image still make its deadline?"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, inf
from typing import Final, Protocol

from yolastic_contract.state import Fit

_LEARNING: Final = 0.4
"""Share of what an answer was later than expected that the margin takes over at once."""
_HALF_LIFE_S: Final = 5.0
"""The margin halves in this time unless late answers hold it up: it settles near the latest percent of the answers."""
_MAX_MARGIN: Final = 0.5
"""Most of a client's patience that the margin may take: an idle worker never refuses for old lateness alone."""
_PROBE_EVERY_S: Final = 0.5
"""When nothing was accepted for this long, one request is, whatever the estimate says."""
_MAX_RETRY_AFTER_S: Final = 60
_LEAST_MARGIN: Final = 0.2
"""Share of a client's patience kept as margin where there is work ahead, learned or not: a burst is too short to learn from."""
_LEAST_MARGIN_S: Final = 0.050
"""The most that this may be."""


class Line(Protocol):
    """What admission asks of the queue."""

    def ahead_of(self, source: str, images: int) -> int:
        """Images that go before the last of so many newcomers of `source`."""
        ...

    def yields(self, source: str, images: int, *, drop_oldest: bool) -> bool:
        """May newcomers of `source` have the places of so many that wait?"""
        ...


@dataclass(frozen=True, slots=True)
class Accepted:
    """Come in."""

    predicted_s: float | None
    """Seconds from now within which the answer is expected; None while nothing is known. For `observe_late`."""
    probe: bool = False
    """Let through against the estimate, so that a bad estimate heals."""
    displaces: int = 0
    """So many waiting images give up their places first."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Turned away on arrival."""

    status: int
    """429; 504 when the deadline has already passed; 413 when the request is larger than the whole queue."""
    retry_after_s: int | None
    """Whole seconds, >= 1: the estimate of when the queue is drained; None: trying again is no use."""
    message: str
    code: str = "overloaded"


class Admission:
    """Bounded queue and deadline check with a learned safety margin (decisions §2); the clock is passed in; not thread-safe."""

    def __init__(self, queue_length: int, *, drop_oldest: bool = False) -> None:
        """`drop_oldest`: a newcomer that finds the queue too long takes the place of the oldest (for live cameras)."""
        self._queue_length, self.drop_oldest = queue_length, drop_oldest
        self._margin_s = 0.0
        self._margin_of_s: float | None = None
        self._accepted_s = -inf
        self._tightest_s = inf
        """When the batch that is being filled must have ended for all who were promised a place in it."""

    def decide(
        self,
        now_s: float,
        *,
        images: int,
        deadline_s: float,
        queue_images: int,
        running_until_s: float | None,
        limit: int,
        fit: Fit | None,
        source: str = "",
        line: Line | None = None,
    ) -> Accepted | Refused:
        """Accept the `images` of one request, all or none.

        `queue_images` hold places, in batches of at most `limit`; `running_until_s` is when the batch that runs should end.
        Without a `fit` only the queue length and the deadline itself count. With a `line` a source that holds less than its share
        is neither kept out by a full queue nor made to wait for all that is in it.
        """
        self._age_margin(now_s)
        running_s = max(0.0, running_until_s - now_s) if running_until_s is not None else 0.0
        ask = _Ask(now_s, images, deadline_s, queue_images, running_s, max(1, limit), fit, source, line)
        over = max(0, queue_images + images - self._queue_length)
        refused = self._impossible(ask, over)
        if refused is not None:
            return refused
        for ahead, displaces in self._ways(ask, over):
            if self._fits(ask, ahead, shares=ahead == queue_images - displaces):
                return self._accept(ask, ahead, displaces)
        if now_s - self._accepted_s >= _PROBE_EVERY_S:
            return self._accept(ask, queue_images - over, over, probe=True)
        patience_ms = (deadline_s - now_s) * 1e3
        message = f"no answer is possible within {patience_ms:.0f} ms: {queue_images} images wait already"
        return Refused(429, ask.retry_after_s, message)

    def _impossible(self, ask: "_Ask", over: int) -> Refused | None:
        """What no estimate can help."""
        if ask.images > self._queue_length:
            message = f"{ask.images} images in one request; at most {self._queue_length} may wait here"
            return Refused(413, None, message, "too_many_images")
        if ask.deadline_s <= ask.now_s:
            message = "the deadline had passed when the request was complete"
            return Refused(504, ask.retry_after_s, message, "deadline_passed")
        if over and not ask.yields(over, self.drop_oldest):
            message = f"the queue is full: {ask.queue_images} images wait, at most {self._queue_length} may"
            return Refused(429, ask.retry_after_s, message)
        return None

    def _ways(self, ask: "_Ask", over: int) -> Iterator[tuple[int, int]]:
        """(images ahead, places taken from others): after all that wait, in its source's turn, in the place of the oldest."""
        everything = ask.queue_images - over
        yield everything, over
        if ask.line is not None and ask.fit is not None:
            fair = ask.line.ahead_of(ask.source, ask.images)
            if fair < everything:
                yield fair, over
            if self.drop_oldest and ask.yields(over + ask.images, drop_oldest=True):
                yield everything - ask.images, over + ask.images

    def started(self) -> None:
        """A batch began to run: newcomers join another one."""
        self._tightest_s = inf

    def _fits(self, ask: "_Ask", ahead: int, *, shares: bool) -> bool:
        """In time with so many images before it; `shares`: and those whose batch it joins and makes longer stay in time."""
        predicted_s = ask.predicted_s(ahead)
        if predicted_s is None:
            return True
        patience_s = ask.deadline_s - ask.now_s
        if predicted_s + self._margin_for(ask, ahead, patience_s) > patience_s:
            return False
        begins_a_batch = not shares or ahead % ask.limit == 0
        return begins_a_batch or predicted_s <= self._tightest_s - ask.now_s

    def _margin_for(self, ask: "_Ask", ahead: int, patience_s: float) -> float:
        margin_s = self._margin_s
        if ahead or ask.running_s:
            margin_s = max(margin_s, min(_LEAST_MARGIN * patience_s, _LEAST_MARGIN_S))
        return min(margin_s, _MAX_MARGIN * patience_s)

    def _accept(self, ask: "_Ask", ahead: int, displaces: int, *, probe: bool = False) -> Accepted:
        self._accepted_s = ask.now_s
        patience_s = ask.deadline_s - ask.now_s
        promise_s = patience_s - self._margin_for(ask, ahead, patience_s)
        tightest_s = inf if ahead % ask.limit == 0 else self._tightest_s
        self._tightest_s = min(tightest_s, ask.now_s + promise_s)
        predicted_s = ask.predicted_s(ahead)
        if predicted_s is not None and ask.running_s:  # its batch may still grow, as long as the promise holds: that is not late
            predicted_s = max(predicted_s, min(ask.full_s(ahead), promise_s))
        return Accepted(predicted_s, probe, displaces)

    def observe_late(self, predicted_s: float, actual_s: float) -> None:
        """An accepted request was answered or has expired, `actual_s` after it was accepted: learn how late answers are."""
        self._margin_s += _LEARNING * max(0.0, actual_s - predicted_s - self._margin_s)

    @property
    def margin_s(self) -> float:
        """The learned safety margin as of the last decision."""
        return self._margin_s

    def _age_margin(self, now_s: float) -> None:
        if self._margin_of_s is not None:
            self._margin_s *= 0.5 ** (max(0.0, now_s - self._margin_of_s) / _HALF_LIFE_S)
        self._margin_of_s = now_s


@dataclass(slots=True)
class _Ask:
    """One request before its verdict."""

    now_s: float
    images: int
    deadline_s: float
    queue_images: int
    running_s: float
    """What is left of the batch that runs now."""
    limit: int
    fit: Fit | None
    source: str
    line: Line | None

    @property
    def retry_after_s(self) -> int:
        """When the queue is drained."""
        return _whole_seconds(self.running_s + _work_s(self.queue_images, self.limit, self.fit))

    def predicted_s(self, ahead: int) -> float | None:
        """Seconds until its last image is answered, with `ahead` images before it; None while nothing is known."""
        return None if self.fit is None else self.running_s + _work_s(ahead + self.images, self.limit, self.fit)

    def full_s(self, ahead: int) -> float:
        """The same if its batch fills up."""
        batches = -(-(ahead + self.images) // self.limit)
        return self.running_s + _work_s(batches * self.limit, self.limit, self.fit)

    def yields(self, images: int, drop_oldest: bool) -> bool:
        """Do others give up so many places?"""
        return self.line is not None and self.line.yields(self.source, images, drop_oldest=drop_oldest)


def _work_s(images: int, limit: int, fit: Fit | None) -> float:
    """Seconds until `images` are done in batches of at most `limit`; 0 without a fit."""
    if fit is None or images <= 0:
        return 0.0
    full, rest = divmod(images, limit)
    return full * fit.at(limit) + (fit.at(rest) if rest else 0.0)


def _whole_seconds(seconds: float) -> int:
    return min(max(ceil(seconds), 1), _MAX_RETRY_AFTER_S)
