"""What load is aimed for where an objective is near the time of a batch."""

import math

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
from yolastic_contract.state import Fit, WorkerState
from yolastic_operator.model import Bounds, CeilingDecision, Fresh, Missing, Observation, PolicyState, Tiers
from yolastic_operator.policy import objective
from yolastic_operator.policy.ceiling import latency_bound
from yolastic_operator.policy.decide import decide


@pytest.mark.parametrize(
    ("images", "batch_ms", "objective_ms", "percent"),
    [
        (16, 205, 500, 89),  # 23 images beside a batch: as the days of `yolastic simulate` have it
        (8, 109, 266, 80),  # 11.5, where 1 - 2.3/N is the default
        (8, 109, 250, 77),
        (4, 61, 200, 74),
        (4, 61, 150, 60),
        (2, 37, 100, 50),  # 1 - 2.3/3.4 = 0.32
        (1, 25, 60, 50),
        (1, 60, 60, 50),  # nothing is left beside a batch
        (1, 90, 60, 50),
        (1, 0, 60, 100),
    ],
)  # fmt: skip
def test_the_load_that_an_objective_leaves_room_for(images: int, batch_ms: int, objective_ms: int, percent: int) -> None:
    speed = Fit(fixed=batch_ms / 2e3, per_image=batch_ms / 2e3 / images)
    assert int(objective.load_percent(speed, images, objective_ms / 1000)) == percent


@given(st.integers(1, 256), st.floats(0.0, 10.0), st.floats(0.0, 1.0), st.floats(1e-3, 60.0), st.floats(1.0, 2.0))
def test_more_time_never_leaves_less_room(images: int, fixed: float, per_image: float, objective_s: float, more: float) -> None:
    speed = Fit(fixed=fixed, per_image=per_image)
    percent = objective.load_percent(speed, images, objective_s)
    assert objective.LEAST_PERCENT <= percent <= objective.load_percent(speed, images, objective_s * more) <= 100


@pytest.mark.parametrize(
    ("device", "objective_ms", "images"),
    [(LARGE, 200, 4), (LARGE, 250, 8), (LARGE, 300, 8), (T4, 30, 4), (T4, 50, 8)],
)
def test_at_that_load_no_more_than_one_in_a_hundred_is_late(device: Device, objective_ms: int, images: int) -> None:
    """The batcher itself on a simulated device, with images that come as a Poisson process has them."""
    fit, objective_s = device.fit, objective_ms / 1000
    per_s = objective.load_percent(fit, images, objective_s) / 100 * images / fit.at(images)
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
    assert "target 0.74 (not 0.80, since an objective of 200 ms leaves room for 0.74 beside a batch)" in decision.replicas.message
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


def told(percent: int) -> WorkerState:
    """Of a worker whose batches of 4 leave room for this load within 200 ms."""
    images_beside = math.log(objective.LATE) / -2 / (1 - (percent + 0.5) / 100)
    batch_s = 0.2 / (1 + images_beside / 4)
    return state(speed=(batch_s / 2, batch_s / 8), max_batch=4)


CEILING = CeilingDecision(Tiers(4, 4), Bounds(4), "Spec")


@pytest.mark.parametrize(
    ("known", "percents", "percent"),
    [
        (None, [70], 70), (70, [73], 70), (70, [67], 70), (70, [74], 74), (70, [66], 66),
        (None, [60, 90], 75), (None, [60, 60, 90, 90, 90], 78), (70, [], 70), (None, [], None),
    ],
)  # fmt: skip
def test_the_room_is_the_mean_of_the_workers_and_moves_with_no_noise(
    known: int | None, percents: list[int], percent: int | None
) -> None:
    assert objective.remember(known, tight(), CEILING, [told(one) for one in percents]) == percent


def test_what_nobody_tells_stays_and_without_an_objective_there_is_none() -> None:
    mute = state(speed=None, max_batch=4)
    assert objective.remember(70, tight(), CEILING, [mute]) == 70
    assert objective.remember(70, tight(), None, [told(60)]) == 70
    assert objective.remember(None, tight(), CEILING, [mute, told(60)]) == 60
    assert objective.remember(70, autoscaled(), CEILING, [told(60)]) is None


@pytest.mark.parametrize("slow_ms", [60, 70, 80, 85, 90, 95])
@pytest.mark.parametrize("per_s", [70.0, 75.0, 80.0, 90.0])
def test_one_slower_device_makes_no_size_come_and_go(slow_ms: float, per_s: float) -> None:
    """The speed of a middle worker was that of the slow one of two and of a fast one of three, and the target with it."""
    speeds_ms, policy, changes, totals = {"w0": 50.0, "w1": slow_ms}, PolicyState(), 0, dict[str, int]()
    for at in range(360):
        views = []
        for name, ms in speeds_ms.items():
            each_per_s, capacity_per_s = per_s / len(speeds_ms), 4000 / ms
            totals[name] = totals.get(name, 0) + round(each_per_s * TURN_S)
            one = state(speed=(ms / 5e3, ms / 5e3), max_batch=4, arrived_per_s=each_per_s)
            load = one.load.model_copy(update={"demand_images": totals[name], "capacity_per_s": capacity_per_s})
            views.append(view(name, each_per_s / capacity_per_s, one.model_copy(update={"worker_id": name, "load": load})))
        decision = decide(seen(*views), tight(), RUNTIME, policy, at * TURN_S)
        policy = decision.state
        changes += decision.replicas.desired != len(speeds_ms)
        speeds_ms |= {f"n{at}-{number}": 50.0 for number in range(decision.replicas.desired - len(speeds_ms))}
        speeds_ms = {name: ms for name, ms in speeds_ms.items() if name not in decision.victims}
    assert changes <= 2


@pytest.mark.parametrize(("size", "mean_ratio"), [(1, 0.6), (2, 0.6), (3, 0.6), (3, 0.7)])
def test_a_constant_load_moves_nothing_while_learned_times_swing(size: int, mean_ratio: float) -> None:
    """By 5 % either way: the load aimed for would be 72 to 76 percent."""
    world, policy = Poisson(size, 66.0, mean_ratio, seed=7, hours=1.0), PolicyState()
    swings = np.random.default_rng(7).uniform(0.95, 1.05, len(world.came))
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
