"""Memory fits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolastic_worker.memory.fit import fit_line


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


SAMPLES = st.lists(st.tuples(st.integers(1, 256), st.floats(0, 1e12)), min_size=1, max_size=20)


@given(SAMPLES)
def test_a_fit_is_never_negative_and_its_residual_covers_all(samples: list[tuple[int, float]]) -> None:
    fit = fit_line(samples)
    assert fit is not None
    assert fit.fixed >= 0
    assert fit.per_image >= 0
    assert all(abs(fit.at(images) - value) <= fit.residual * (1 + 1e-9) + 1e-3 for images, value in samples)
