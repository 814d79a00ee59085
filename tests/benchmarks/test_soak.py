"""The slope that says whether a worker grows."""

import random

import pytest
from benchmarks.soak import slope

_TIMES_S = [float(second) for second in range(600)]


def _noisy(per_min: float, seed: int) -> list[float]:
    chance = random.Random(seed)
    return [100.0 + per_min * at / 60 + chance.gauss(0, 1) for at in _TIMES_S]


@pytest.mark.parametrize("seed", range(8))
def test_noise_is_flat_and_growth_is_not(seed: int) -> None:
    assert slope(_TIMES_S, _noisy(0.0, seed)).flat(tolerance=0.5)
    growing = slope(_TIMES_S, _noisy(2.0, seed))
    assert not growing.flat(tolerance=0.5)
    assert growing.per_min == pytest.approx(2.0, abs=3 * growing.half_width)


def test_what_fills_once_is_no_growth() -> None:
    filled = [min(100.0, 50.0 + at) for at in _TIMES_S]
    assert slope(_TIMES_S, filled).per_min == 0


def test_shrinking_is_flat_and_too_few_samples_are_refused() -> None:
    assert slope(_TIMES_S, _noisy(-5.0, 1)).flat(tolerance=0.0)
    with pytest.raises(ValueError, match="too few"):
        slope(_TIMES_S[:10], _TIMES_S[:10])
