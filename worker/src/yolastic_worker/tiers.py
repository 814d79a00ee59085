"""Base and burst tier: which limit the next batch has."""

from typing import Final

from yolastic_contract.state import CeilingState

CALM_S: Final = 30.0
"""How long the backlog must have stayed small before the burst tier is left."""


class TierController:
    """Burst at once when more than one full base batch waits; back after 30 s with under a quarter batch (decisions §4).

    Call `update` at every turn of the engine, also when nothing waits: the silence between two calls counts as what the earlier
    one saw.
    """

    def __init__(self, base: int, ceiling: int) -> None:
        self._base, self._ceiling = base, max(base, ceiling)
        self._granted = False
        self._burst = False
        self._calm_since_s: float | None = None

    def grant(self, base: int, ceiling: int) -> None:
        """The operator's tiers replace what there was; they count from the next batch on."""
        self._base, self._ceiling, self._granted = base, max(base, ceiling), True

    @property
    def base(self) -> int:
        """The lower tier, images."""
        return self._base

    @property
    def ceiling(self) -> int:
        """The upper tier, images."""
        return self._ceiling

    @property
    def effective(self) -> int:
        """The limit of the next batch as the last `update` left it, images."""
        return self._ceiling if self._burst else self._base

    def update(self, now_s: float, queue_images: int) -> int:
        """The limit of the next batch, images, given what waits before it is formed."""
        if queue_images > self._base:
            self._burst, self._calm_since_s = True, None
        elif not self._is_calm(queue_images):
            self._calm_since_s = None
        elif self._calm_since_s is None:
            self._calm_since_s = now_s
        elif now_s - self._calm_since_s >= CALM_S:
            self._burst = False
        return self.effective

    def _is_calm(self, queue_images: int) -> bool:
        """Under a quarter of a base batch; a single image is no backlog however small the base is."""
        return queue_images <= 1 or queue_images < self._base / 4

    def state(self, now_s: float) -> CeilingState:
        """For `/state`."""
        return CeilingState(
            base=self._base, ceiling=self._ceiling, effective=self.effective, burst=self._burst and self._ceiling > self._base,
            granted=self._granted, backlog=self._burst,
            calm_s=0.0 if self._calm_since_s is None else max(0.0, now_s - self._calm_since_s),
        )  # fmt: skip
