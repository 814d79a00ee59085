"""The load that a latency objective leaves room for. Pure.

Images come in bunches, so some find a worker busy and wait. Late are those that wait for longer than the objective less the time
of a batch. With N, the images that a worker answers in that time, about exp(-2 N (1 - load)) of them do (an M/D/1 queue in heavy
traffic). So one in a hundred is late at a load of 1 - 2.3/N, whatever the device; measured, it is at 0.02 to 0.15 more
(benchmarks/RESULTS.md, "Tight objectives"). With the defaults that is below `targetLoadPercent` where N is less than 11.5: where
an objective is near the time of a batch. More is not aimed for then, since the objective is what the workers are there for. Nor
is less than half a worker's capacity: below that ever more devices buy ever less.
"""

import math
from collections.abc import Sequence
from typing import Final

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.state import Fit, WorkerState
from yolastic_operator.model import CeilingDecision

LATE: Final = 0.01
"""The part of the images that may be late at the load that is aimed for."""
LEAST_PERCENT: Final = 50
SAME: Final = 3
"""Learned times swing by 5 % either way, and a load that is higher or lower by so few hundredths is the same: the target stands
still."""


def remember(
    known: int | None, spec: InferenceSpec, ceiling: CeilingDecision | None, states: Sequence[WorkerState]
) -> int | None:
    """The load that the objective leaves room for, percent; what was known before where nobody tells, or noise apart.

    It is the mean of the workers, as the load ratio is: that of a middle one would be another with every change of size where
    devices differ, and with it the size. One that tells what is not has no more weight in it than any other.

    Args:
        known: what this said in the turn before; None: nothing yet.
        spec: batches of a fixed size are made for no objective.
        ceiling: the largest batch.
        states: workers of the revision.

    Returns:
        From `LEAST_PERCENT` to 100; None: there is no objective, or nobody has told yet.
    """
    if spec.objective is None or spec.batching.policy == "Fixed":
        return None
    speeds = [state.speed for state in states if state.speed is not None]
    if ceiling is None or not speeds:
        return known
    objective_s, images = spec.objective.latency_milliseconds / 1000, ceiling.tiers.ceiling
    now = math.floor(sum(load_percent(speed, images, objective_s) for speed in speeds) / len(speeds))
    return known if known is not None and abs(now - known) <= SAME else now


def load_percent(speed: Fit, images: int, objective_s: float) -> float:
    """The load of one worker with batches of up to so many images."""
    batch_s = speed.at(images)
    if batch_s <= 0.0:
        return 100.0
    beside = max(objective_s - batch_s, 0.0) * images / batch_s
    most = 1.0 + math.log(LATE) / (2.0 * beside) if beside else 0.0
    return max(most * 100, float(LEAST_PERCENT))
