"""How long a batch takes: t(b) = a + c*b, learned online."""

from collections.abc import Iterable

from yolastic_contract.state import Fit


class SpeedModel:
    """Recursive least squares with forgetting; a, c >= 0. Seconds; one model a shape key and precision."""

    def __init__(self, seed: Iterable[tuple[int, float]] = ()) -> None:
        """`seed`: (images, seconds) of the warm-up."""

    def observe(self, images: int, seconds: float) -> None:
        """Learn from a batch that ran."""

    @property
    def fit(self) -> Fit | None:
        """The line as it is known now; None before the first sample."""
        return None

    def seconds(self, images: int) -> float | None:
        """Predicted seconds of a batch; None before the first sample."""
        return None
