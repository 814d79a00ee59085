"""A second worker beside a lone one that is well used. Pure.

A rise that nothing tells of meets the workers that stand: whatever is decided then is there a start later. Ten times a load that
leaves one worker four fifths idle finds room on two; a lone one turns half of it away, and all of it while it is moved or starts
again. So one that has been busier than `secondWorkerLoadPercent` for a minute gets another, which stays until one alone would be
clearly below that.
"""

import math
from typing import Final

from yolastic_operator.policy.forecast import CERTAIN

WITHIN_S: Final = 60.0
"""Demand over so long counts, so that no single burst orders a worker, seconds."""
BACK: Final = 0.75
"""The part of the share below which one alone is enough again."""


def is_due(load: float, per_s: float, capacity_per_s: float, share: float) -> bool:
    """Whether a lone one has been busier than this share, beyond the noise of a Poisson count, and still is.

    Args:
        load: its load ratio now: after a fall that is all that counts.
        per_s: demand over `WITHIN_S`, images/s.
        capacity_per_s: of one worker at its ceiling, images/s.
        share: 0 to 1.
    """
    noise = CERTAIN * math.sqrt(share / (capacity_per_s * WITHIN_S))
    return load > share and per_s / capacity_per_s > share + noise


def is_kept(load: float, share: float) -> bool:
    """Whether a second one that is there stays: one alone, with this load ratio, would not be clearly below the share."""
    return load >= BACK * share
