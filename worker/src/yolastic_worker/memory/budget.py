"""From a memory limit and a fit to the largest batch."""

from yolastic_contract.state import Fit


def budget_bytes(limit_bytes: int, headroom_percent: int) -> int:
    """Bytes that batches are planned with: the limit less its headroom."""
    return limit_bytes * (100 - headroom_percent) // 100


def largest_batch(budget: int, fit: Fit, max_batch: int) -> int:
    """Largest batch, 0..max_batch images, with `fixed + per_image * batch <= budget` bytes; 0 when not even one image fits."""
    if fit.at(1) > budget:
        return 0
    if fit.at(max_batch) <= budget:
        return max_batch
    images = int((budget - fit.fixed) / fit.per_image)  # per_image > 0: one image fits, max_batch do not
    while fit.at(images) > budget:  # the division may round up
        images -= 1
    return min(images, max_batch)
