"""May this image still make its deadline?"""

from dataclasses import dataclass

from yolastic_contract.state import Fit


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
    """Bounded queue and deadline check with a learned safety margin; the clock is passed in."""

    def __init__(self, queue_length: int) -> None:
        self._queue_length = queue_length

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
        """Accept `images` of one request or refuse them. `running_until_s`: when the running batch is expected to end."""
        return Accepted(None)

    def observe_late(self, predicted_s: float, actual_s: float) -> None:
        """An accepted image was answered: learn how late answers are."""

    @property
    def margin_s(self) -> float:
        """The learned safety margin."""
        return 0.0
