"""The load that a latency objective leaves room for. Pure.

Images come in bunches, so some find a worker busy and wait. Late are those that wait for longer than the objective less the time
of a batch. With N, the images that a worker answers in that time, about exp(-2 N (1 - load)) of them do (an M/D/1 queue in heavy
traffic). So one in a hundred is late at a load of 1 - 2.3/N, whatever the device; measured, it is at 0.02 to 0.1 more
(benchmarks/RESULTS.md, "Tight objectives"). With the defaults that is below `targetLoadPercent` where N is less than 12: where an
objective is near the time of a batch. More is not aimed for then, since the objective is what the workers are there for. Nor is
less than half a worker's capacity: below that ever more devices buy ever less.
"""

import math
from typing import Final

from yolastic_operator.model import CeilingDecision, FullBatch

LATE: Final = 0.01
"""The part of the images that may be late at the load that is aimed for."""
LEAST_PERCENT: Final = 50
NOISE: Final = 0.05
"""A batch that takes so much longer or less long, as a part of what it took, takes as long as before: the target stands still."""


def remember(known: FullBatch | None, ceiling: CeilingDecision | None) -> FullBatch | None:
    """What a batch at the ceiling takes; what was known before where nobody tells, or where it differs by noise alone."""
    if ceiling is None or ceiling.fixed_s is None or ceiling.per_image_s is None:
        return known
    images = ceiling.tiers.ceiling
    seconds = ceiling.fixed_s + ceiling.per_image_s * images
    if seconds <= 0.0:
        return known
    if known is not None and known.images == images and abs(seconds - known.seconds) <= NOISE * known.seconds:
        return known
    return FullBatch(images, seconds)


def images_beside(batch: FullBatch, objective_s: float) -> float:
    """Images that a worker answers in what the objective leaves beside a batch; 0: it leaves nothing."""
    return max(objective_s - batch.seconds, 0.0) * batch.images / batch.seconds


def load_percent(target_percent: int, batch: FullBatch, objective_s: float) -> int:
    """The load to aim for: the target, or less where the objective leaves too little time to wait."""
    images = images_beside(batch, objective_s)
    most = 1.0 + math.log(LATE) / (2.0 * images) if images else 0.0
    return min(target_percent, max(math.floor(most * 100), LEAST_PERCENT))
