"""What load is aimed for where an objective is near the time of a batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_builders import RUNTIME, autoscaled, fleet, seen, spec, state, view
from test_constant_load import TURN_S, Poisson

from yolastic_cli.load import Phase
from yolastic_cli.simulate.closed_loop import Run, Settings
from yolastic_cli.simulate.device import LARGE, T4, Device
from yolastic_cli.simulate.fleet import FleetRules
from yolastic_cli.simulate.sizing import Plan
from yolastic_cli.simulate.worker import WorkerRules
from yolastic_contract.inference import InferenceSpec
from yolastic_operator.model import Bounds, CeilingDecision, Fresh, FullBatch, Missing, Observation, PolicyState, Tiers
from yolastic_operator.policy import objective
from yolastic_operator.policy.ceiling import latency_bound
from yolastic_operator.policy.decide import decide


@pytest.mark.parametrize(
    ("images", "batch_ms", "objective_ms", "target", "aimed"),
    [
        (16, 205, 500, 80, 80),  # 23 images beside a batch: as the days of `yolastic simulate` have it
        (8, 109, 266, 80, 80),  # 11.5, where 1 - 2.3/N is the default
        (8, 109, 250, 80, 77),
        (4, 61, 200, 80, 74),
        (4, 61, 150, 80, 60),
        (2, 37, 100, 80, 50),  # 1 - 2.3/3.4 = 0.32
        (1, 25, 60, 80, 50),
        (1, 60, 60, 80, 50),  # nothing is left beside a batch
        (1, 90, 60, 80, 50),
        (4, 61, 200, 60, 60),
        (1, 25, 60, 40, 40),  # the user's own, however little
    ],
)  # fmt: skip
def test_the_load_to_aim_for(images: int, batch_ms: int, objective_ms: int, target: int, aimed: int) -> None:
    assert objective.load_percent(target, FullBatch(images, batch_ms / 1000), objective_ms / 1000) == aimed


@given(st.integers(1, 100), st.integers(1, 256), st.floats(1e-4, 10.0), st.floats(1e-3, 60.0), st.floats(1.0, 2.0))
def test_more_time_never_aims_for_less(target: int, images: int, seconds: float, objective_s: float, more: float) -> None:
    batch = FullBatch(images, seconds)
    aimed = objective.load_percent(target, batch, objective_s)
    assert min(target, objective.LEAST_PERCENT) <= aimed <= objective.load_percent(target, batch, objective_s * more) <= target


@pytest.mark.parametrize(
    ("device", "objective_ms", "images"),
    [(LARGE, 200, 4), (LARGE, 250, 8), (LARGE, 300, 8), (T4, 30, 4), (T4, 50, 8)],
)
def test_at_that_load_no_more_than_one_in_a_hundred_is_late(device: Device, objective_ms: int, images: int) -> None:
    """The batcher itself on a simulated device, with images that come as a Poisson process has them."""
    fit, objective_s = device.fit, objective_ms / 1000
    batch = FullBatch(images, fit.at(images))
    per_s = objective.load_percent(100, batch, objective_s) / 100 * images / batch.seconds
    rules = FleetRules(WorkerRules(device, objective_s=objective_s, patience_s=objective_s))
    run = Run(Settings((Phase("steady", 30_000 / per_s, per_s, per_s),), rules, seed=7), Plan("one", ((0.0, 1),))).play()
    late = float(np.mean(~(run.latencies_s() <= objective_s)))
    assert latency_bound(fit, objective_s) in range(images, 2 * images)
    assert 0.0005 < late <= objective.LATE


def tight(**fields: object) -> InferenceSpec:
    """Batches of 4 take 61 ms: `state(speed=(0.013, 0.012))`, `test_the_load_to_aim_for`."""
    autoscaling = {"minReplicas": 1, "maxReplicas": 100, **fields}
    return spec(objective={"latencyMilliseconds": 200}, batching={"maxSize": 4}, autoscaling=autoscaling)


SLOW = state(speed=(0.013, 0.012), max_batch=4)


def test_workers_come_at_a_load_that_the_objective_leaves_no_room_for() -> None:
    decision = decide(fleet([0.85, 0.85, 0.85], told=SLOW), tight(), RUNTIME, PolicyState(), 0.0)
    assert (decision.replicas.desired, decision.replicas.target_percent) == (4, 74)
    assert "target 0.74 (not 0.80, since 200 ms leave time for 9 images beside a batch of 4)" in decision.replicas.message
    easy = decide(fleet([0.85, 0.85, 0.85], told=SLOW), autoscaled(), RUNTIME, PolicyState(), 0.0)
    assert (easy.replicas.desired, easy.replicas.target_percent) == (3, 80)


def test_those_who_stay_are_not_busier_than_that() -> None:
    """One fewer would carry 0.63, below 65 % of a worker; but 65 of 80 are 60 of 74."""
    now = fleet([0.42, 0.42, 0.42], told=SLOW)
    rules = {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}
    assert decide(now, tight(**rules), RUNTIME, PolicyState(desired_replicas=3), 0.0).replicas.desired == 3
    assert decide(now, autoscaled(**rules), RUNTIME, PolicyState(desired_replicas=3), 0.0).replicas.desired == 2


def test_who_does_not_batch_for_an_objective_aims_for_his_own() -> None:
    fixed = tight().model_copy(update={"batching": spec(batching={"maxSize": 4, "policy": "Fixed"}).batching})
    assert decide(fleet([0.5, 0.5], told=SLOW), fixed, RUNTIME, PolicyState(), 0.0).replicas.target_percent == 80


def test_no_more_is_aimed_for_where_no_worker_tells_its_speed_any_more() -> None:
    """Their load is still known, of Prometheus: a higher target would take workers away for want of figures."""
    known = decide(fleet([0.5] * 3, told=SLOW), tight(), RUNTIME, PolicyState(), 0.0).state
    silent = Missing("the worker does not answer")
    views = [view(f"w-{number}", Fresh(0.5), silent, phase="Ready") for number in range(3)]
    decision = decide(seen(*views), tight(), RUNTIME, known, 5.0)
    assert decision.replicas.target_percent == 74


def ceiling(images: int, batch_s: float | None) -> CeilingDecision:
    fixed_s = None if batch_s is None else batch_s / 2
    per_image_s = None if batch_s is None else batch_s / 2 / images
    return CeilingDecision(Tiers(images, images), Bounds(images), "Latency", fixed_s=fixed_s, per_image_s=per_image_s)


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (ceiling(4, 0.0625), True), (ceiling(4, 0.0575), True), (ceiling(4, 0.0645), False), (ceiling(4, 0.056), False),
        (ceiling(8, 0.060), False), (ceiling(4, None), True), (ceiling(4, 0.0), True), (None, True),
    ],
)  # fmt: skip
def test_a_batch_that_takes_as_long_but_for_noise_takes_as_long(told: CeilingDecision | None, kept: bool) -> None:
    known = FullBatch(4, 0.060)
    assert (objective.remember(known, told) is known) == kept
    if not kept and told is not None and told.fixed_s is not None:
        assert objective.remember(known, told) == FullBatch(told.tiers.ceiling, pytest.approx(2 * told.fixed_s))


@pytest.mark.parametrize(("size", "mean_ratio"), [(1, 0.6), (2, 0.6), (3, 0.6), (3, 0.7)])
def test_a_constant_load_moves_nothing_while_learned_times_swing(size: int, mean_ratio: float) -> None:
    """By 2 % either way: the load aimed for would be 73 to 75 percent."""
    world, policy = Poisson(size, 66.0, mean_ratio, seed=7, hours=1.0), PolicyState()
    swings = np.random.default_rng(7).uniform(0.98, 1.02, len(world.came))
    rules, sizes, aimed = tight(secondWorkerLoadPercent=100), set(), set()
    for at, factor in enumerate(swings):
        speed = (0.013 * factor, 0.012 * factor)
        now = _with_speed(world.look(at), speed)
        decision = decide(now, rules, RUNTIME, policy, at * TURN_S)
        sizes.add(decision.replicas.desired)
        aimed.add(decision.replicas.target_percent)
        policy = decision.state
    assert sizes == {size}
    assert len(aimed) == 1


def _with_speed(observation: Observation, speed: tuple[float, float]) -> Observation:
    told = state(speed=speed, max_batch=4)
    update = {"speed": told.speed, "buckets": told.buckets, "max_batch": 4}
    states = [one.state.value.model_copy(update=update) for one in observation.workers if isinstance(one.state, Fresh)]
    pairs = zip(observation.workers, states, strict=True)
    return seen(*(view(one.worker.name, one.load_ratio, told) for one, told in pairs))
