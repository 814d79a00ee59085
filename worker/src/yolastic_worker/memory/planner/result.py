"""What a plan says: bytes for each batch size, term by term."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from yolastic_contract.state import Fit

Known = Literal["planned", "prior", "measured"]
"""planned: from the file. prior: measured on other models or devices, and carried over. measured: on this one."""


class NotPlannable(ValueError):  # noqa: N818 - the answer to a question
    """The file cannot be planned; the message is a sentence that says why."""


@dataclass(frozen=True, slots=True)
class BatchBytes:
    """One batch size, bytes."""

    images: int
    block_bytes: int
    """A(b): the block that holds every tensor between input and output, each at its offset."""
    io_bytes: int
    """The batch and the answer, where the runtime needs a copy of them."""
    total_bytes: int
    """What a process takes at the peak of this batch."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes for each batch size; `batches` ascending by images, at least one."""

    device: str
    precision: str
    height: int
    width: int
    weights_bytes: int
    """All weights, at the precision."""
    fixed_bytes: int
    """What does not depend on the batch: process, runtime, weights."""
    growth: float
    """g: what the arena takes, over the block."""
    batches: tuple[BatchBytes, ...]

    def bytes_at(self, batch: int) -> int:
        """What a process takes at the peak of a batch of this many images; between and beyond the planned sizes linear."""
        exact = next((row.total_bytes for row in self.batches if row.images == batch), None)
        return exact if exact is not None else math.ceil(self.fit.at(batch))

    @property
    def fit(self) -> Fit:
        """The line through the smallest and the largest planned batch; `samples` is 0: nothing was measured."""
        first, last = self.batches[0], self.batches[-1]
        if first is last:
            return Fit(fixed=self.fixed_bytes, per_image=(first.total_bytes - self.fixed_bytes) / first.images)
        per_image = (last.total_bytes - first.total_bytes) / (last.images - first.images)
        fixed = first.total_bytes - per_image * first.images
        return Fit(
            fixed=fixed,
            per_image=per_image,
            residual=max(abs(row.total_bytes - fixed - per_image * row.images) for row in self.batches),
        )

    def largest(self, budget_bytes: int) -> int:
        """The largest batch within the budget, 0 when not even one image fits."""
        fit = self.fit
        batch = max(0, math.floor((budget_bytes - fit.fixed) / fit.per_image)) if fit.per_image > 0 else self.batches[-1].images
        while batch and self.bytes_at(batch) > budget_bytes:
            batch -= 1
        return batch

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Plan":
        """As `to_json` gave it."""
        return cls(**{**values, "batches": tuple(BatchBytes(**row) for row in values["batches"])})


BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
