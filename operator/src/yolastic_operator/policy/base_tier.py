"""The base tier: the batch size that usually suffices; above it a worker bursts by itself, up to the ceiling."""

import math
from collections.abc import Sequence
from typing import Final

from yolastic_contract.state import Fit
from yolastic_operator.model import DemandSample, Tiers

BUSY: Final = 0.7
"""The share of its time a worker should be busy in the base tier at the usual demand."""
USUAL: Final = 0.95
"""Quantile of the last hour's demand."""
ENOUGH_HISTORY_S: Final = 600.0
"""Before this much is known, the base is a quarter of the ceiling."""
SHRINK_MARGIN: Final = 1.15
"""A smaller base must carry this much more than the demand, so that noise does not move it to and fro."""


def base_for(
    ceiling: int, warm: Sequence[int], fit: Fit | None, demand: Sequence[DemandSample], ready: int, *, previous: Tiers | None
) -> int:
    """Images of the base tier: the bucket that carries the last hour's p95 demand of a worker at 70 % busy.

    Args:
        ceiling: images; the base is never above it.
        warm: batch sizes to choose from, ascending, starting with 1.
        fit: seconds of a batch; None as long as there is none.
        demand: images/s of all workers, oldest first.
        ready: workers the demand is spread over.
        previous: tiers of the turn before.
    """
    choices = [bucket for bucket in warm if bucket <= ceiling] or [1]
    if fit is None or not demand or demand[-1].time_s - demand[0].time_s < ENOUGH_HISTORY_S:
        if previous is not None and previous.ceiling == ceiling:
            return min(previous.base, ceiling)
        return max(bucket for bucket in choices if bucket <= max(ceiling // 4, 1))
    per_worker_per_s = quantile(demand, USUAL) / max(ready, 1)
    needed = _carrying(per_worker_per_s, fit, choices)
    if previous is not None and needed < previous.base <= ceiling:
        return min(previous.base, _carrying(per_worker_per_s * SHRINK_MARGIN, fit, choices))
    return needed


def quantile(demand: Sequence[DemandSample], share: float) -> float:
    """Nearest-rank quantile of the demand, images/s."""
    ordered = sorted(sample.images_per_s for sample in demand)
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def _carrying(images_per_s: float, fit: Fit, choices: Sequence[int]) -> int:
    """Smallest of the batch sizes that carries the demand at 70 % busy; the largest when none does."""
    return next((size for size in choices if BUSY * size >= images_per_s * fit.at(size)), choices[-1])
