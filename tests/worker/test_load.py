"""The load ratio, exactly as the decisions have it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolastic_contract.state import Fit, LoadState
from yolastic_worker.load import LoadMeter

FIT = Fit(fixed=0.020, per_image=0.001)
CAPACITY_PER_S = 32 / 0.052


def state(meter: LoadMeter, now_s: float, queue: int = 0, fit: Fit | None = FIT, ceiling: int = 32) -> LoadState:
    return meter.state(now_s, queue_images=queue, queue_oldest_age_s=0.5, inflight_images=queue + 3, fit=fit, ceiling=ceiling)


def test_formula() -> None:
    meter = LoadMeter(0.0)
    for tenth in range(1000):
        meter.arrived(tenth / 10, 30)
        meter.refused(tenth / 10, 10)
    load = state(meter, 99.95, queue=150)
    assert load.arrived_per_s == pytest.approx(300)
    assert load.refused_per_s == pytest.approx(100)
    assert load.capacity_per_s == pytest.approx(CAPACITY_PER_S)
    assert load.ratio == pytest.approx((300 + 100 + 150 / 15) / CAPACITY_PER_S)
    assert (load.queue_images, load.queue_oldest_age_s, load.inflight_images) == (150, 0.5, 153)


@pytest.mark.parametrize(
    ("now_s", "arrived_per_s"),
    [(100.0, 18), (100.5, 18), (105.0, 18), (106.0, 15), (110.0, 9), (114.99, 90 / 14.99), (115.0, 0), (500.0, 0)],
)
def test_a_young_worker_divides_by_its_age_but_at_least_five_seconds(now_s: float, arrived_per_s: float) -> None:
    meter = LoadMeter(100.0)
    meter.arrived(100.0, 90)
    load = state(meter, now_s, queue=30)
    assert load.arrived_per_s == pytest.approx(arrived_per_s)
    assert load.ratio == pytest.approx((arrived_per_s + 30 / 15) / CAPACITY_PER_S), "the queue is always over 15 s"


def test_capacity_is_that_of_the_ceiling() -> None:
    meter = LoadMeter(0.0)
    meter.arrived(5.0, 100)
    one, many = state(meter, 10.0, ceiling=1), state(meter, 10.0, ceiling=32)
    assert one.capacity_per_s == pytest.approx(1 / 0.021)
    assert one.ratio * one.capacity_per_s == pytest.approx(many.ratio * many.capacity_per_s)
    assert one.ratio < 1 < state(meter, 10.0, queue=700, ceiling=1).ratio, "it may exceed 1"


def test_without_a_fit_there_is_no_capacity_and_no_ratio() -> None:
    meter = LoadMeter(0.0)
    meter.arrived(1.0, 100)
    load = state(meter, 10.0, fit=None)
    assert (load.capacity_per_s, load.ratio) == (0, 0)
    assert load.arrived_per_s == 10


@pytest.mark.parametrize(
    ("runs", "now_s", "busy"),
    [
        ([], 20.0, 0.0),
        ([(6.0, 9.0)], 20.0, 0.2),
        ([(0.0, 10.0)], 20.0, 1 / 3),  # half of it is too long ago
        ([(0.0, 5.0)], 20.0, 0.0),
        ([(5.0, 20.0)], 20.0, 1.0),
        ([(0.0, 0.5)], 0.5, 0.1),
        ([(1.0, 2.0), (3.0, 4.0)], 8.0, 0.25),
    ],
)
def test_busy_share(runs: list[tuple[float, float]], now_s: float, busy: float) -> None:
    meter = LoadMeter(0.0)
    for start_s, end_s in runs:
        meter.busy(start_s, end_s)
    assert state(meter, now_s).busy_ratio == pytest.approx(busy)


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3)), min_size=1, max_size=60), st.floats(0, 20))
def test_the_busy_share_is_that_of_the_window(runs: list[tuple[float, float]], wait_s: float) -> None:
    """Each run: how long after the one before, and how long."""
    meter, now_s, seen = LoadMeter(-100.0), 0.0, []
    for pause_s, run_s in runs:
        seen.append((now_s + pause_s, now_s + pause_s + run_s))
        now_s = seen[-1][1]
        meter.busy(*seen[-1])
    now_s += wait_s
    busy_s = sum(max(0.0, end_s - max(start_s, now_s - 15)) for start_s, end_s in seen)
    assert state(meter, now_s).busy_ratio == pytest.approx(busy_s / 15, abs=1e-9)


def test_memory_is_bounded_whatever_the_rate() -> None:
    meter = LoadMeter(0.0)
    for event in range(200_000):
        meter.refused(event / 10_000)
    assert len(meter._refused._events) <= 1502
    assert state(meter, 20.0).refused_per_s == pytest.approx(10_000, rel=0.001)


EVENTS = st.lists(st.tuples(st.floats(0, 5), st.integers(0, 50), st.booleans()), max_size=80)


@given(EVENTS, st.floats(0, 20))
def test_counts_are_those_of_the_window(events: list[tuple[float, int, bool]], wait_s: float) -> None:
    meter = LoadMeter(0.0)
    now_s = 0.0
    history: list[tuple[float, int]] = []
    for pause_s, images, refused in events:
        now_s += pause_s
        (meter.refused if refused else meter.arrived)(now_s, images)
        history.append((now_s, images))
    now_s += wait_s
    load = state(meter, now_s)
    elapsed_s = min(15.0, max(5.0, now_s))
    counted = (load.arrived_per_s + load.refused_per_s) * elapsed_s
    assert counted <= sum(images for at_s, images in history if at_s > now_s - 15) + 1e-6
    assert counted >= sum(images for at_s, images in history if at_s > now_s - 15 + 0.01) - 1e-6


def test_ratio_is_linear_in_load() -> None:
    ratios = []
    for rate in (100, 200, 400):
        meter, generator = LoadMeter(0.0), random.Random(3)
        for at_s in sorted(generator.uniform(0, 30) for _ in range(rate * 30)):
            meter.arrived(at_s)
        ratios.append(state(meter, 30.0).ratio)
    assert ratios[1] / ratios[0] == pytest.approx(2, rel=0.1)
    assert ratios[2] / ratios[1] == pytest.approx(2, rel=0.1)
