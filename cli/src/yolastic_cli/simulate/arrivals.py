"""When images come: Poisson arrivals along a rate that changes over time, from a seed."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from yolastic_cli.load import Phase

_GRID_S = 0.1


def arrivals(phases: Sequence[Phase], generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Times of arrival, seconds from the start, ascending: an inhomogeneous Poisson process, exact up to a grid of 0.1 s."""
    times, mean = [np.zeros(1)], [np.zeros(1)]
    start_s, before = 0.0, 0.0
    for phase in phases:
        at_s = np.linspace(0.0, phase.seconds, max(int(phase.seconds / _GRID_S), 1) + 1)[1:]
        slope = (phase.to_per_s - phase.from_per_s) / phase.seconds
        times.append(start_s + at_s)
        mean.append(before + phase.from_per_s * at_s + slope * at_s**2 / 2)
        start_s, before = start_s + phase.seconds, float(mean[-1][-1])
    points = np.sort(generator.random(generator.poisson(before))) * before
    return np.interp(points, np.concatenate(mean), np.concatenate(times))


def seconds_of(phases: Sequence[Phase]) -> float:
    """How long all of them take."""
    return sum(phase.seconds for phase in phases)


def steps_s(phases: Sequence[Phase], share: float = 0.2) -> tuple[float, ...]:
    """When the rate jumps up by more than `share` of what it was, seconds from the start."""
    found, at_s = [], 0.0
    for before, after in pairwise(phases):
        at_s += before.seconds
        if after.from_per_s > before.to_per_s * (1 + share):
            found.append(at_s)
    return tuple(found)
