"""Demand that swings beyond chance: how much, what it hides, and the room that it takes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_builders import RUNTIME, autoscaled, fleet, spec, state
from test_forecast import intervals

from yolastic_cli.load import Phase
from yolastic_cli.simulate.closed_loop import Run, Settings
from yolastic_cli.simulate.device import LARGE
from yolastic_cli.simulate.fleet import FleetRules
from yolastic_cli.simulate.sizing import OwnDecision
from yolastic_cli.simulate.worker import WorkerRules
from yolastic_operator.model import DemandInterval, Observation, PolicyState
from yolastic_operator.policy import swing
from yolastic_operator.policy.decide import decide
from yolastic_operator.policy.forecast import forecast
from yolastic_operator.policy.target import aimed_for

LOOKS, LOOK_S = 60, 5.0
RATES = st.lists(st.floats(0.5, 2000.0), min_size=5, max_size=80)


def came(rates: np.ndarray, seed: int) -> tuple[DemandInterval, ...]:
    return intervals(*np.random.default_rng(seed).poisson(rates * LOOK_S) / LOOK_S)


def swinging(mean_per_s: float, share: float, seed: int, looks: int = LOOKS) -> np.ndarray:
    """Rates that hold for two looks each."""
    levels = np.random.default_rng(seed).normal(0.0, share, math.ceil(looks / 2))
    return mean_per_s * np.exp(levels - share * share / 2).repeat(2)[:looks]


@pytest.mark.parametrize("per_s", [30.0, 200.0, 1000.0])
@pytest.mark.parametrize("share", [0.2, 0.4])
def test_what_demand_swings_by_is_told_within_half_of_it(per_s: float, share: float) -> None:
    told = [swing.swing(came(swinging(per_s, share, seed), seed)) or 0.0 for seed in range(40)]
    assert np.median(told) == pytest.approx(share, rel=0.2)
    assert np.mean([abs(one - share) <= share / 2 for one in told]) >= 0.75


@pytest.mark.parametrize(
    "rates",
    [
        np.full(LOOKS, 1.0), np.full(LOOKS, 20.0), np.full(LOOKS, 1000.0),
        np.geomspace(5.0, 500.0, LOOKS), np.linspace(20.0, 240.0, LOOKS), np.linspace(1000.0, 10.0, LOOKS),
        np.repeat([20.0, 200.0], LOOKS // 2), np.repeat([200.0, 20.0, 200.0], LOOKS // 3),
        np.repeat([100.0, 0.0, 100.0], LOOKS // 3),
        swinging(1000.0, 0.05, seed=1),
    ],
)  # fmt: skip
def test_chance_ramps_steps_and_silence_are_no_swing(rates: np.ndarray) -> None:
    """Nor is what the autoscaler's tolerance is for."""
    told = [swing.swing(came(rates, seed)) for seed in range(200)]
    assert sum(one is not None and one > 0 for one in told) <= 1


def test_hours_without_images_tell_of_no_swing() -> None:
    """It was remembered from the evening, and hid the rise of the next morning."""
    assert swing.remember(0.3, intervals(*[0.0, 0.2, 0.0] * 20)) == 0.0


def test_a_swing_at_the_edge_does_not_come_and_go() -> None:
    edge = next(came(swinging(200.0, 0.1, seed), seed) for seed in range(100) if edged(came(swinging(200.0, 0.1, seed), seed)))
    assert swing.remember(0.0, edge) == 0.0
    assert swing.remember(0.12, edge) == 0.12


def edged(demand: tuple[DemandInterval, ...]) -> bool:
    """More than one that is there ends at, less than one begins with."""
    return swing.swing(demand[:-1]) == 0.0 and (swing.swing(demand[:-1], swing.STAYS) or 0.0) > 0.0


def test_what_a_lying_worker_counts_is_no_error() -> None:
    assert (swing.swing(tuple(DemandInterval(at, at + 5.0, 10 ** (60 * (at % 4))) for at in range(0, 300, 5))) or 0.0) > 0.0


def test_a_few_looks_tell_no_swing() -> None:
    few = 2 * swing.LAG + swing.FEWEST - 1
    told = intervals(*swinging(200.0, 0.4, 7))
    assert swing.swing(told[:few]) is None
    assert (swing.swing(told[: few + 1]) or 0.0) > 0.2
    assert swing.remember(0.3, told[: few + 1]) == 0.3  # the last one does not count
    assert swing.remember(0.0, told[: few + 2]) > 0.2
    assert swing.swing(()) is None


@pytest.mark.parametrize(
    ("known", "now", "kept"),
    [(0.2, 0.24, True), (0.2, 0.16, True), (0.2, 0.26, False), (0.0, 0.11, False), (0.2, 0.0, False), (0.2, None, True)],
)
def test_a_swing_that_moves_by_noise_is_the_same(
    known: float, now: float | None, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swing, "swing", lambda *_: now)
    assert swing.remember(known, ()) == (known if kept else now)


@pytest.mark.parametrize(
    ("target", "by", "aimed"),
    [(80, 0.0, 80), (80, 0.1, 80), (80, 0.15, 69), (80, 0.2, 61), (80, 0.25, 60), (80, 2.0, 60), (60, 0.2, 46), (1, 2.0, 1)],
)
def test_the_load_to_aim_for(target: int, by: float, aimed: int) -> None:
    assert swing.load_percent(target, by) == aimed


@given(st.integers(1, 100), st.floats(0.0, 10.0), st.floats(0.0, 10.0))
def test_who_swings_more_never_aims_for_more(target: int, by: float, more: float) -> None:
    assert 1 <= swing.load_percent(target, by + more) <= swing.load_percent(target, by) <= target


@given(RATES)
def test_any_demand_has_a_swing(rates: list[float]) -> None:
    found = swing.swing(intervals(*rates))
    assert found in {None, 0.0} or found > swing.TOLERATED


def test_where_demand_swings_half_a_minute_tells_no_rise() -> None:
    step, line = intervals(*[100.0] * 5, 200.0), intervals(100.0, 250.0, 310.0, 450.0, 510.0, 660.0)
    for rise in (step, line):
        assert forecast(rise, 40.0, 30.0) is not None
        assert forecast(rise, 40.0, 30.0, swings=True) is None
    long = intervals(*np.linspace(100.0, 160.0, LOOKS))
    assert forecast(long, 40.0, 300.0, swings=True) == forecast(long, 40.0, 300.0)


def looked(rates: np.ndarray) -> PolicyState:
    """As a turn leaves it that has counted these."""
    counted = intervals(*rates)
    return PolicyState(intervals=counted, counted_s=counted[-1].end_s, desired_replicas=3)


def test_workers_have_room_for_the_peaks_of_a_swing() -> None:
    known = looked(swinging(100.0, 0.2, seed=3))
    decision = decide(fleet([0.7] * 3), autoscaled(), RUNTIME, known, 300.0)
    assert decision.replicas.target_percent is not None
    assert 60 <= decision.replicas.target_percent <= 69
    assert decision.replicas.desired == 4
    assert "since demand swings by" in decision.replicas.message
    assert decide(fleet([0.7] * 3), autoscaled(), RUNTIME, looked(np.full(LOOKS, 100.0)), 300.0).replicas.desired == 3
    plain = decide(fleet([0.7] * 3), autoscaled(forecast="None"), RUNTIME, known, 300.0)
    assert (plain.replicas.desired, plain.replicas.target_percent) == (3, 80)


@pytest.mark.parametrize(
    ("by", "room", "percent", "why"),
    [
        (0.2, 74, 61, "demand swings by 20 %"),
        (0.12, 74, 74, "an objective of 200 ms leaves room for 0.74 beside a batch"),
        (0.0, 74, 74, "an objective of 200 ms leaves room for 0.74 beside a batch"),
        (0.0, 80, 80, ""),
        (0.0, None, 80, ""),
    ],
)
def test_the_lower_of_two_reasons_is_told(by: float, room: int | None, percent: int, why: str) -> None:
    wanted = spec(objective={"latencyMilliseconds": 200}, autoscaling={"maxReplicas": 5})
    assert wanted.autoscaling is not None
    aimed, told = aimed_for(wanted, wanted.autoscaling, PolicyState(objective_percent=room, swing=by))
    assert (aimed.target_load_percent, aimed.scale_down_load_percent) == (percent, 65 * percent // 80)
    assert told == (f"not 0.80, since {why}" if why else "")


def test_that_a_swing_hides_a_rise_is_told() -> None:
    """A step of the last look: ordered for where demand is steady."""
    calm, swings = np.full(LOOKS, 100.0), swinging(100.0, 0.2, seed=3)
    sizes = []
    for rates, told in ((calm, "demand has just risen to at least"), (swings, "%: half a minute tells no rise")):
        decision = decide(with_rates(3, per_s=33.0), autoscaled(), RUNTIME, looked(np.append(rates, 1000.0)), 305.0)
        assert told in next(step.text for step in decision.explanation if step.about == "Forecast")
        sizes.append(decision.replicas.desired)
    assert sizes[0] > sizes[1] == 3


def with_rates(size: int, per_s: float) -> Observation:
    told = state(arrived_per_s=per_s)
    told = told.model_copy(update={"load": told.load.model_copy(update={"capacity_per_s": 80.0, "demand_images": None})})
    return fleet([per_s / 80.0] * size, told=told)


def test_a_constant_mean_that_swings_moves_the_size_hardly_ever() -> None:
    """Before, lines through some looks of it ordered up to seven workers, and took them back, eight times in half an hour."""
    rates = swinging(150.0, 0.2, seed=2, looks=360)
    phases = tuple(Phase("swing", LOOK_S, float(rate), float(rate)) for rate in rates)
    settings = Settings(phases, FleetRules(WorkerRules(LARGE, objective_s=0.5, patience_s=0.5)), 2, seed=7)
    run = Run(settings, OwnDecision()).play()
    assert len(run.fleet.changes) <= 4
    assert max(size for _, size in run.fleet.changes) <= 5
