"""What a plan says: bytes for each batch size, term by term, and how each is known."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from yolastic_contract.state import Fit

Known = Literal["planned", "prior", "measured"]
"""planned: computed from the file. prior: measured on other models or devices. measured: by a worker with this model."""


class NotPlannable(ValueError):  # noqa: N818 - the answer to a question
    """The file cannot be planned; the message is a sentence that says why."""


@dataclass(frozen=True, slots=True)
class BatchBytes:
    """One batch size, bytes."""

    images: int
    block_bytes: int
    """A(b), planned: the block that holds every tensor between input and output, each at its offset."""
    io_bytes: int
    """Planned: the batch and its answers."""
    total_bytes: int
    """What a process takes at the peak of this batch."""


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the sum in words."""

    name: str
    value: str
    known: Known
    source: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes for each batch size; `batches` ascending by images, at least one."""

    device: str
    precision: str
    """FP32, FP16 or INT8."""
    height: int
    width: int
    weights_bytes: int
    """Planned: all weights, at the precision they have at run time."""
    fixed_bytes: int
    """Process, weights as they are loaded, workspace: what does not depend on the batch."""
    growth: float
    """g: what the arena takes, over the block; a prior."""
    batches: tuple[BatchBytes, ...]
    terms: tuple[Term, ...]

    def bytes_at(self, batch: int) -> int:
        """What a process takes at the peak of a batch of this many images; between and beyond the planned sizes linear."""
        exact = next((row.total_bytes for row in self.batches if row.images == batch), None)
        return exact if exact is not None else math.ceil(self.fit.at(batch))

    @property
    def fit(self) -> Fit:
        """The line through the smallest and the largest planned batch; `samples` is 0: nothing was measured."""
        first, last = self.batches[0], self.batches[-1]
        if first is last:
            per_image = (first.total_bytes - self.fixed_bytes) / first.images
        else:
            per_image = (last.total_bytes - first.total_bytes) / (last.images - first.images)
        fixed = first.total_bytes - per_image * first.images
        apart = max(abs(row.total_bytes - fixed - per_image * row.images) for row in self.batches)
        return Fit(fixed=fixed, per_image=per_image, residual=apart)

    def largest(self, budget_bytes: int) -> int:
        """The largest batch within the budget, 0 when not even one image fits."""
        fit = self.fit
        if fit.per_image <= 0:
            return self.batches[-1].images if fit.fixed <= budget_bytes else 0
        batch = max(0, math.floor((budget_bytes - fit.fixed) / fit.per_image)) + 1
        while batch and self.bytes_at(batch) > budget_bytes:
            batch -= 1
        return batch

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Plan":
        """As `to_json` gave it."""
        batches = tuple(BatchBytes(**row) for row in values["batches"])
        return cls(**{**values, "batches": batches, "terms": tuple(Term(**term) for term in values["terms"])})
