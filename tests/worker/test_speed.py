"""The learned t(b) = a + c*b."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolastic_contract.names import BUCKETS
from yolastic_worker.speed import SpeedModel

SIZES = BUCKETS[:6]


def seeded(fixed_s: float, per_image_s: float) -> SpeedModel:
    return SpeedModel((size, fixed_s + per_image_s * size) for size in SIZES)


def errors(model: SpeedModel, fixed_s: float, per_image_s: float) -> list[float]:
    """Relative error at each size."""
    return [abs((model.seconds(size) or 0.0) / (fixed_s + per_image_s * size) - 1) for size in SIZES]


def test_nothing_is_known_before_the_first_sample() -> None:
    assert SpeedModel().fit is None
    assert SpeedModel().seconds(1) is None
    model = SpeedModel()
    model.observe(4, 0.040)
    assert model.fit is not None
    assert model.seconds(4) == pytest.approx(0.040)
    assert model.fit.fixed == pytest.approx(0.020)


@pytest.mark.parametrize(("fixed_s", "per_image_s"), [(0.020, 0.001), (0.0026, 0.0024), (0.0, 0.030), (0.010, 0.0)])
def test_the_seed_is_the_first_fit(fixed_s: float, per_image_s: float) -> None:
    model = seeded(fixed_s, per_image_s)
    assert model.fit is not None
    assert model.fit.fixed == pytest.approx(fixed_s, abs=1e-8)
    assert model.fit.per_image == pytest.approx(per_image_s, abs=1e-8)
    assert model.fit.residual == pytest.approx(0, abs=1e-8)
    assert model.fit.samples == len(SIZES)


def test_of_several_warm_ups_of_a_size_the_fastest_counts() -> None:
    model = SpeedModel([(1, 3.0), (1, 0.021), (8, 0.028), (8, 9.0)])
    assert model.seconds(1) == pytest.approx(0.021)
    assert model.seconds(8) == pytest.approx(0.028)


@pytest.mark.parametrize(("images", "seconds"), [(0, 1.0), (1, 0.0), (1, -1.0), (1, float("nan")), (1, float("inf"))])
def test_what_is_no_measurement_is_ignored(images: int, seconds: float) -> None:
    model = seeded(0.020, 0.001)
    before = model.fit
    model.observe(images, seconds)
    assert model.fit == before
    assert SpeedModel([(images, seconds)]).fit is None


def test_a_wrong_seed_is_corrected() -> None:
    model = seeded(0.040, 0.004)
    generator = random.Random(1)
    for _ in range(200):
        size = generator.choice(SIZES)
        model.observe(size, (0.020 + 0.001 * size) * generator.uniform(0.95, 1.05))
    assert max(errors(model, 0.020, 0.001)) < 0.05


def test_one_size_alone_does_not_bend_the_rest_out_of_shape() -> None:
    model = seeded(0.020, 0.001)
    for _ in range(5000):
        model.observe(1, 0.021)
    assert max(errors(model, 0.020, 0.001)) < 0.01
    for _ in range(5000):
        model.observe(1, 0.0252)  # a fifth slower
    assert model.seconds(1) == pytest.approx(0.0252, rel=0.01)
    assert model.seconds(32) == pytest.approx(1.2 * 0.052, rel=0.01), "as much slower at every size"


def test_one_slow_batch_does_not_wreck_it() -> None:
    model = seeded(0.020, 0.001)
    for _ in range(50):
        model.observe(8, 0.028)
    model.observe(8, 30.0)
    assert max(errors(model, 0.020, 0.001)) < 0.05
    for _ in range(20):
        model.observe(8, 0.028)
        model.observe(8, 0.028)
        model.observe(8, 5.0)  # every third one
    assert max(errors(model, 0.020, 0.001)) < 0.5


@pytest.mark.parametrize("factor", [0.1, 0.5, 3.0, 20.0])
def test_a_device_that_changed_is_believed_soon(factor: float) -> None:
    model = seeded(0.020, 0.001)
    for _ in range(100):
        model.observe(16, 0.036)
    for _ in range(20):
        model.observe(16, 0.036 * factor)
    assert model.seconds(16) == pytest.approx(0.036 * factor, rel=0.25)


def test_it_follows_slow_drift() -> None:
    model = seeded(0.020, 0.001)
    generator = random.Random(2)
    for step in range(1000):
        slow = 1 + step / 1000
        size = generator.choice(SIZES)
        model.observe(size, slow * (0.020 + 0.001 * size))
    assert max(errors(model, 0.040, 0.002)) < 0.12


TIMES_S = st.floats(1e-6, 1e3)
MEASUREMENTS = st.lists(st.tuples(st.integers(1, 256), TIMES_S), max_size=60)


@settings(deadline=None, max_examples=200)
@given(seed=MEASUREMENTS, later=MEASUREMENTS)
def test_never_negative_and_never_nothing(seed: list[tuple[int, float]], later: list[tuple[int, float]]) -> None:
    model = SpeedModel(seed)
    for images, seconds in later:
        model.observe(images, seconds)
        assert model.fit is not None
        assert model.fit.fixed >= 0
        assert model.fit.per_image >= 0
        assert 0 < (model.seconds(1) or 0) <= (model.seconds(256) or 0) < float("inf")
    assert (model.fit is None) == (not seed and not later)


@settings(deadline=None, max_examples=60)
@given(
    fixed_s=st.floats(0.001, 0.05),
    per_image_s=st.floats(0.0005, 0.02),
    skew=st.floats(0.6, 1.6),
    noise=st.floats(0, 0.1),
    seed=st.integers(0, 2**31),
)
def test_it_finds_the_line_behind_the_noise(fixed_s: float, per_image_s: float, *, skew: float, noise: float, seed: int) -> None:
    generator = random.Random(seed)
    model = seeded(fixed_s * skew, per_image_s / skew)
    for step in range(400):
        size = SIZES[step % len(SIZES)]
        model.observe(size, (fixed_s + per_image_s * size) * generator.uniform(1 - noise, 1 + noise))
    assert max(errors(model, fixed_s, per_image_s)) < 0.08 + noise


@given(st.sampled_from(SIZES), st.lists(st.floats(0.9, 1.1), max_size=100))
def test_jitter_at_one_size_moves_every_size_alike(images: int, factors: list[float]) -> None:
    model = seeded(0.020, 0.001)
    for factor in factors:
        model.observe(images, factor * (0.020 + 0.001 * images))
    assert max(errors(model, 0.020, 0.001)) <= 0.1 + 1e-6
    assert max(errors(model, 0.020, 0.001)) == pytest.approx(min(errors(model, 0.020, 0.001)), abs=1e-6)
