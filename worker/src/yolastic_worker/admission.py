"""May this image still make its deadline?"""

from dataclasses import dataclass
from math import ceil, inf
from typing import Final

from yolastic_contract.state import Fit

_LEARNING: Final = 0.2
"""Share of what an answer was later than expected that the margin takes over at once."""
_HALF_LIFE_S: Final = 5.0
"""The margin halves in this time unless late answers hold it up: it settles near the latest percent of the answers."""
_MAX_MARGIN: Final = 0.5
"""Most of a client's patience that the margin may take: an idle worker never refuses for old lateness alone."""
_PROBE_EVERY_S: Final = 0.5
"""When nothing was accepted for this long, one request is, whatever the estimate says."""
_MAX_RETRY_AFTER_S: Final = 60


@dataclass(frozen=True, slots=True)
class Accepted:
    """Come in."""

    predicted_s: float | None
    """Seconds from now to the answer as predicted, without the margin; None while nothing is known. For `observe_late`."""
    probe: bool = False
    """Let through against the estimate, so that a bad estimate heals."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Turned away on arrival."""

    status: int
    """429, or 504 when the deadline has already passed."""
    retry_after_s: int
    """Whole seconds, >= 1: the estimate of when the queue is drained."""
    message: str


class Admission:
    """Bounded queue and deadline check with a learned safety margin (decisions §2); the clock is passed in; not thread-safe."""

    def __init__(self, queue_length: int) -> None:
        self._queue_length = queue_length
        self._margin_s = 0.0
        self._margin_of_s: float | None = None
        self._accepted_s = -inf

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
    ) -> Accepted | Refused:
        """Accept the `images` of one request, all or none.

        `queue_images` are ahead of them, in batches of at most `limit`; `running_until_s` is when the batch that runs now is
        expected to end. Without a `fit` only the queue length and the deadline itself count.
        """
        self._age_margin(now_s)
        running_s = max(0.0, running_until_s - now_s) if running_until_s is not None else 0.0
        retry_after_s = _whole_seconds(running_s + _work_s(queue_images, limit, fit))
        if deadline_s <= now_s:
            return Refused(504, retry_after_s, "the deadline had passed when the request was complete")
        if queue_images + images > self._queue_length:
            return Refused(429, retry_after_s, f"the queue is full: {queue_images} images wait, at most {self._queue_length} may")
        if fit is None:
            self._accepted_s = now_s
            return Accepted(None)
        predicted_s = running_s + _work_s(queue_images + images, limit, fit)
        patience_s = deadline_s - now_s
        if predicted_s + min(self._margin_s, _MAX_MARGIN * patience_s) <= patience_s:
            self._accepted_s = now_s
            return Accepted(predicted_s)
        if now_s - self._accepted_s >= _PROBE_EVERY_S:
            self._accepted_s = now_s
            return Accepted(predicted_s, probe=True)
        return Refused(
            429, retry_after_s, f"no answer is possible within {patience_s * 1000:.0f} ms: {queue_images} images wait already"
        )

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


def _work_s(images: int, limit: int, fit: Fit | None) -> float:
    """Seconds until `images` are done in batches of at most `limit`; 0 without a fit."""
    if fit is None or images <= 0:
        return 0.0
    full, rest = divmod(images, max(1, limit))
    return full * fit.at(max(1, limit)) + (fit.at(rest) if rest else 0.0)


def _whole_seconds(seconds: float) -> int:
    return min(max(ceil(seconds), 1), _MAX_RETRY_AFTER_S)
