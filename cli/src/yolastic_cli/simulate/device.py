"""The device that is simulated: a batch of b images takes `a + c*b`."""

from dataclasses import dataclass

from yolastic_contract.names import buckets_up_to
from yolastic_contract.state import Fit


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator; every worker has one of its own."""

    fixed_s: float = 0.0026
    per_image_s: float = 0.0024
    pads: bool = False
    """A new batch size costs, so batches are padded to the warm sizes, as on CUDA."""

    def seconds(self, images: int) -> float:
        """Time of a batch of so many images, padding included."""
        return self.fixed_s + self.per_image_s * images

    def seed(self, largest: int) -> tuple[tuple[int, float], ...]:
        """What a warm-up measures: (images, seconds) of every bucket."""
        return tuple((images, self.seconds(images)) for images in buckets_up_to(largest))

    @property
    def fit(self) -> Fit:
        """The line itself."""
        return Fit(fixed=self.fixed_s, per_image=self.per_image_s)


T4 = Device()
"""A device of the T4 class with a small model: 5 ms for one image, 79 ms for 32 (`a` = 2.6 ms, `c` = 2.4 ms)."""
LARGE = Device(fixed_s=0.013, per_image_s=0.012)
"""A model five times as large on the same device: 25 ms for one image."""
