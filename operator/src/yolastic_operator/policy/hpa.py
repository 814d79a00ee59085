"""The Horizontal Pod Autoscaler's replica calculation for a per-pod metric, exactly as Kubernetes 1.34 does it.

Metric values are whole numbers (Kubernetes: int64 milli-units), ratios are float64; rounding follows the Go code to the bit.
Source: `replica_calculator.go` (calcPlainMetricReplicas, groupPods) and `metrics/utilization.go` of Kubernetes.
"""

import math
from dataclasses import dataclass
from typing import Final

MAX_INT32: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Tolerances:
    """How far the usage ratio may be from 1 before anything changes; both inclusive."""

    up: float = 0.1
    down: float = 0.1

    def covers(self, ratio: float) -> bool:
        """The ratio is close enough to 1 to leave the size alone."""
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True, slots=True)
class PodMetrics:
    """Pods in the groups of the calculation; deleted and failed pods are in none of them."""

    values: tuple[int, ...]
    """Samples of running pods."""
    missing: int = 0
    """Running pods without a sample."""
    unready: int = 0
    """Pods that are still starting; their samples do not count."""


@dataclass(frozen=True, slots=True)
class Calculation:
    """What the metric asks for."""

    replicas: int
    mean: int
    """Mean of the samples, truncated as Go does."""


def replicas_for(current: int, target: int, tolerances: Tolerances, pods: PodMetrics) -> Calculation | None:
    """Replicas that bring the mean of the samples to `target`; None when there is no sample at all.

    Missing pods are taken to be at the target when shrinking and idle when growing, starting pods idle when growing:
    what is not known only ever dampens the change.
    """
    if not pods.values:
        return None
    mean = _mean(pods.values)
    ratio = mean / target
    starting_dampens = pods.unready > 0 and ratio > 1.0
    if not starting_dampens and pods.missing == 0:
        if tolerances.covers(ratio):
            return Calculation(current, mean)
        return Calculation(_ceil_int32(ratio * len(pods.values)), mean)

    filled = pods.values
    if ratio != 1.0:
        filled += (target if ratio < 1.0 else 0,) * pods.missing
    if starting_dampens:
        filled += (0,) * pods.unready
    return Calculation(_with_filled(current, ratio, _mean(filled) / target, tolerances, len(filled)), mean)


def _with_filled(current: int, ratio: float, filled_ratio: float, tolerances: Tolerances, count: int) -> int:
    turned = (ratio < 1.0 < filled_ratio) or (filled_ratio < 1.0 < ratio)
    if tolerances.covers(filled_ratio) or turned:
        return current
    replicas = _ceil_int32(filled_ratio * count)
    against = (filled_ratio < 1.0 and replicas > current) or (filled_ratio > 1.0 and replicas < current)
    return current if against else replicas


def _mean(values: tuple[int, ...]) -> int:
    total = sum(values)
    return total // len(values) if total >= 0 else -(-total // len(values))


def _ceil_int32(value: float) -> int:
    return min(math.ceil(value), MAX_INT32)
