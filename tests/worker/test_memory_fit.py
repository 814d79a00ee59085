"""Memory fits and the largest batch within a budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolastic_contract.state import Fit
from yolastic_worker.memory.budget import budget_bytes, largest_batch
from yolastic_worker.memory.fit import fit_line

MIB = 2**20


@pytest.mark.parametrize(
    ("samples", "fixed", "per_image", "residual"),
    [
        ([(1, 660.0), (2, 720.0), (4, 840.0), (8, 1080.0)], 600, 60, 0),
        ([(1, 100.0), (3, 130.0), (5, 130.0)], 97.5, 7.5, 10),
        ([(1, 500.0), (2, 500.0), (4, 500.0)], 500, 0, 0),
        ([(1, 500.0), (2, 400.0)], 450, 0, 50),  # never negative per image
        ([(2, 1.0), (4, 5.0)], 0, 1.1, 1.2),  # never a negative rest: through the origin
        ([(8, 800.0), (8, 880.0)], 0, 105, 40),  # one size: all of it per image
    ],
)
def test_fit(samples: list[tuple[int, float]], fixed: float, per_image: float, residual: float) -> None:
    fit = fit_line(samples)
    assert fit is not None
    assert (fit.fixed, fit.per_image, fit.residual) == pytest.approx((fixed, per_image, residual))
    assert fit.samples == len(samples)


def test_no_samples_no_fit() -> None:
    assert fit_line([]) is None


@pytest.mark.parametrize(
    ("limit", "headroom", "budget"), [(1000, 10, 900), (1000, 0, 1000), (999, 50, 499), (4096 * MIB, 10, 3865470566)]
)
def test_budget(limit: int, headroom: int, budget: int) -> None:
    assert budget_bytes(limit, headroom) == budget


@pytest.mark.parametrize(
    ("budget", "fixed", "per_image", "batch"),
    [
        (3600, 600, 60, 50),
        (3599, 600, 60, 49),
        (10_000, 600, 60, 64),
        (660, 600, 60, 1),
        (659, 600, 60, 0),
        (500, 600, 60, 0),
        (600, 600, 0, 64),
        (599, 600, 0, 0),
    ],
)
def test_largest_batch(budget: int, fixed: float, per_image: float, batch: int) -> None:
    assert largest_batch(budget, Fit(fixed=fixed, per_image=per_image), 64) == batch


SAMPLES = st.lists(st.tuples(st.integers(1, 256), st.floats(0, 1e12)), min_size=1, max_size=20)


@given(SAMPLES)
def test_a_fit_is_never_negative_and_its_residual_covers_all(samples: list[tuple[int, float]]) -> None:
    fit = fit_line(samples)
    assert fit is not None
    assert fit.fixed >= 0
    assert fit.per_image >= 0
    assert all(abs(fit.at(images) - value) <= fit.residual * (1 + 1e-9) + 1e-3 for images, value in samples)


@given(st.integers(0, 2**40), st.floats(0, 2**36), st.floats(0, 2**33), st.integers(1, 256))
def test_the_largest_batch_fits_and_the_next_does_not(budget: int, fixed: float, per_image: float, most: int) -> None:
    fit = Fit(fixed=fixed, per_image=per_image)
    batch = largest_batch(budget, fit, most)
    assert 0 <= batch <= most
    assert batch == 0 or fit.at(batch) <= budget
    assert batch == most or fit.at(batch + 1) > budget
