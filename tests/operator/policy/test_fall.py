"""Demand that falls at once is kept in mind; what falls along a line, or within noise, is not."""

import math
import random

import pytest
from policy_builders import RUNTIME, autoscaled, seen, state, view

from yolastic_operator.model import DemandInterval, PolicyState
from yolastic_operator.policy.decide import decide
from yolastic_operator.policy.demand import propose
from yolastic_operator.policy.fall import Fall, deepest

TURN_S = 5.0


def intervals(*rates: float) -> tuple[DemandInterval, ...]:
    return tuple(DemandInterval(i * TURN_S, (i + 1) * TURN_S, round(rate * TURN_S)) for i, rate in enumerate(rates))


def fall(*rates: float, within_s: float = 300.0) -> Fall | None:
    return deepest(intervals(*rates), within_s, len(rates) * TURN_S)


@pytest.mark.parametrize(
    ("rates", "before_per_s"),
    [
        ([180.0] * 8 + [12.0], 180.0),
        ([180.0] * 8 + [100.0] + [12.0] * 3, 180.0),  # it fell within a look
        ([180.0] * 8 + [140.0] + [12.0] * 3, 180.0),
        ([180.0] * 8 + [90.0] * 2, 180.0),
        ([180.0] * 8 + [130.0] * 4, None),  # less than a third
        ([180.0] * 5 + [12.0] * 4, None),  # nobody knows that it was steady
        ([0.0] * 9, None),
        ([2.0] * 8 + [0.4] * 2, None),  # noise
        ([240.0 - 10.0 * i for i in range(24)], None),
        ([1200.0 - 100.0 * i for i in range(12)] + [8.0] * 9, None),
        ([20.0] * 8 + [200.0] * 8 + [20.0] * 2, 200.0),
        ([200.0] * 8 + [90.0] * 8 + [8.0] * 2, 200.0),  # the largest demand counts
    ],
)
def test_what_is_a_fall(rates: list[float], before_per_s: float | None) -> None:
    found = fall(*rates)
    assert (found is None) == (before_per_s is None), found
    if found is not None:
        assert found.before_per_s == pytest.approx(before_per_s)


def test_a_fall_is_one_for_as_long_as_is_asked_and_known() -> None:
    rates = [180.0] * 8 + [12.0] * 30
    assert fall(*rates, within_s=155.0) is not None
    assert fall(*rates, within_s=140.0) is None
    assert fall(*rates, within_s=0.0) is None
    assert fall(*rates[3:]) is None, "of what was before it, too little is left"


@pytest.mark.parametrize("per_s", [5, 40, 300])
def test_noise_and_slopes_are_hardly_ever_falls(per_s: float) -> None:
    generator, false = random.Random(3), 0
    for _ in range(300):
        for change in (0.0, -0.5 / 24):  # the mean of it, and a fall to half within two minutes
            rates = [per_s * (1 + change * i) for i in range(30)]
            counts = [max(generator.gauss(rate * TURN_S, math.sqrt(max(rate, 0.1) * TURN_S)), 0.0) / TURN_S for rate in rates]
            false += fall(*counts) is not None
    assert false <= 3


def loaded(size: int, per_s: float, total: int = 0):
    """Workers that carry 100/s each."""
    told = state(arrived_per_s=per_s / size)
    load = told.load.model_copy(update={"capacity_per_s": 100.0, "demand_images": total})
    each = [told.model_copy(update={"worker_id": f"w{number}", "load": load}) for number in range(size)]
    return [view(f"w{number}", per_s / size / 100, one) for number, one in enumerate(each)]


@pytest.mark.parametrize(
    ("before_per_s", "size", "reason"),
    [
        (230.0, 3, "DemandFellAtOnce"),
        (150.0, 2, "DemandFellAtOnce"),
        (2300.0, 4, "DemandFellAtOnce"),  # nobody is ordered for what was
        (40.0, 1, "LoadBelowTarget"),
    ],
)
def test_the_size_is_not_smaller_than_what_was_needed(before_per_s: float, size: int, reason: str) -> None:
    scaled = autoscaled(1, 50).autoscaling
    assert scaled is not None
    found = propose(loaded(4, 12.0), 4, scaled, fallen=Fall(before_per_s, 60.0))
    assert (found.replicas, found.reason) == (size, reason)
    survivors = next(step.text for step in found.steps if step.about == "Survivors")
    told = f"demand fell at once from {before_per_s:.0f}/s 60 s ago and may come back so"
    assert (told in survivors) == (reason == "DemandFellAtOnce")


def test_what_the_load_asks_for_is_not_held_up() -> None:
    scaled = autoscaled(1, 50).autoscaling
    assert scaled is not None
    fallen = Fall(230.0, 60.0)
    assert propose(loaded(4, 390.0), 4, scaled, fallen=fallen).replicas == 5
    assert propose(loaded(4, 320.0), 4, scaled, fallen=fallen).replicas == 4


@pytest.mark.parametrize(
    ("fields", "kept_s"),
    [
        ({}, (550.0, 610.0)),
        ({"forecast": "None"}, (300.0, 320.0)),
        ({"behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}}}, (120.0, 150.0)),
        ({"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}, (0.0, 30.0)),
    ],
)
def test_the_window_counts_twice_after_a_fall(fields: dict, kept_s: tuple[float, float]) -> None:
    """Three workers at 230/s, then 12/s; until fewer are enough."""
    spec, policy, now_s, total, size = autoscaled(1, 50, **fields), PolicyState(), 0.0, 0, 3
    fell_s = 400.0
    while size == 3:
        assert now_s < fell_s + 700, "they are never let go"
        per_s = 230.0 if now_s < fell_s else 12.0
        total += round(per_s / size * TURN_S)
        decision = decide(seen(*loaded(3, per_s, total)), spec, RUNTIME, policy, now_s)
        policy, size, now_s = decision.state, decision.replicas.desired, now_s + TURN_S
    assert kept_s[0] <= now_s - fell_s <= kept_s[1]
