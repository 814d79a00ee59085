import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_builders import MIB, RUNTIME, seen, spec, state, view

from yolastic_contract.names import BUCKETS
from yolastic_contract.state import Fit
from yolastic_operator.model import DemandSample, Missing, PolicyState, Stale, Tiers
from yolastic_operator.policy.base_tier import base_for
from yolastic_operator.policy.ceiling import decide_ceiling, efficiency_bound, latency_bound

EMPTY = PolicyState()


def decided(given_spec, *states, runtime=RUNTIME, policy=EMPTY):
    return decide_ceiling(seen(*(view(f"w-{i}", told=one) for i, one in enumerate(states))), given_spec, runtime, policy)


def gib(number):
    return f"{number}Gi"


MEMORY = (600 * MIB, 60 * MIB)


@pytest.mark.parametrize(
    ("fields", "told", "ceiling", "limited_by", "bounds"),
    [
        # a = 20 ms, c = 1 ms: efficiency 19*20 = 380
        ({}, {}, 32, "Spec", (32, None, None, 380)),
        ({"batching": {"maxSize": 24}}, {"max_batch": 24}, 24, "Spec", (24, None, None, 380)),
        (
            {"batching": {"maxSize": 20}, "objective": {"latencyMilliseconds": 78}},
            {"max_batch": 20},
            16,
            "Latency",
            (20, None, 19, 380),
        ),
        # (100/2 - 20)/1 = 30
        ({"objective": {"latencyMilliseconds": 100}}, {}, 16, "Latency", (32, None, 30, 380)),
        ({"objective": {"latencyMilliseconds": 104}}, {}, 32, "Spec", (32, None, 32, 380)),
        # even one misses it: 2*(20 + 1) > 30
        ({"objective": {"latencyMilliseconds": 30}}, {}, 1, "Latency", (32, None, 1, 380)),
        # 1 GiB * 0.9 = 921.6 MiB: (921.6 - 600)/60 = 5.36
        ({"memory": {"limit": gib(1)}}, {"memory": MEMORY}, 4, "Memory", (32, 5, None, 380)),
        ({"memory": {"limit": gib(1), "headroomPercent": 0}}, {"memory": MEMORY}, 4, "Memory", (32, 7, None, 380)),
        ({}, {"memory": MEMORY, "limit_bytes": 2048 * MIB}, 16, "Memory", (32, 20, None, 380)),
        ({"memory": {"limit": "600Mi"}}, {"memory": MEMORY}, 1, "Memory", (32, 0, None, 380)),
        # a CPU: no fixed part, batching gains nothing
        ({}, {"speed": (0.0, 0.05)}, 1, "Efficiency", (32, None, None, 1)),
        ({}, {"speed": (0.001, 0.005)}, 4, "Efficiency", (32, None, None, 4)),
        ({"batching": {"policy": "Fixed", "maxSize": 24}}, {"max_batch": 24}, 24, "Spec", (24, None, None, None)),
        (
            {"batching": {"policy": "Fixed", "maxSize": 24}, "memory": {"limit": "2Gi"}},
            {"max_batch": 24, "memory": MEMORY},
            16,
            "Memory",
            (24, 20, None, None),
        ),
        # warm-up ended at 8 for lack of memory
        ({}, {"buckets": [1, 2, 4, 8]}, 8, "Memory", (32, 8, None, 380)),
        # a worker started with less than the spec now says
        ({"batching": {"maxSize": 64}}, {"max_batch": 32}, 32, "Spec", (32, None, None, 380)),
    ],
)
def test_the_smallest_bound_wins_and_is_floored_to_a_bucket(fields, told, ceiling, limited_by, bounds):
    result = decided(spec(**fields), state(**told))
    assert (result.tiers.ceiling, result.limited_by) == (ceiling, limited_by)
    got = result.bounds
    assert (got.spec, got.memory, got.latency, got.efficiency) == bounds
    assert result.fits == (got.memory is None or got.memory >= 1)


def test_the_sum_is_told_with_every_number():
    result = decided(spec(memory={"limit": "2Gi"}, objective={"latencyMilliseconds": 100}), state(memory=MEMORY))
    assert result.message == (
        "ceiling 16, base 4, limited by memory; spec allows 32; memory 20 (600Mi + 60Mi an image within 1843Mi of 2048Mi); "
        "latency 30 (20.0 ms + 1.00 ms an image, twice within 100 ms); efficiency 380"
    )
    assert "misses the objective" in decided(spec(objective={"latencyMilliseconds": 30}), state()).message


@pytest.mark.parametrize(
    ("limit", "accelerator", "device_bytes", "budget_bytes", "source"),
    [
        ("1Gi", "2Gi", 4096 * MIB, 1024 * MIB * 9 // 10, "Declared"),
        (None, "2Gi", 4096 * MIB, 2048 * MIB * 9 // 10, "Declared"),
        (None, None, 4096 * MIB, 4096 * MIB * 9 // 10, "Device"),
        (None, None, None, None, None),
    ],
)
def test_where_the_memory_limit_comes_from(limit, accelerator, device_bytes, budget_bytes, source):
    runtime = RUNTIME.model_copy(update={"accelerator_memory": accelerator})
    result = decided(spec(memory={"limit": limit}), state(memory=MEMORY, limit_bytes=device_bytes), runtime=runtime)
    assert (result.budget_bytes, result.budget_source) == (budget_bytes, source)
    assert (result.bounds.memory is None) == (budget_bytes is None)


PLAN = Fit(fixed=400 * MIB, per_image=100 * MIB)


@pytest.mark.parametrize(
    ("memories", "limit", "bound", "fits", "words"),
    [
        ([None], "2Gi", 14, True, "memory 14 (planned 400Mi + 100Mi an image"),
        ([MEMORY], "2Gi", 20, True, "memory 20 (600Mi + 60Mi an image"),
        # one worker has measured: the others run the same model on the same kind of device
        ([None, MEMORY], "2Gi", 20, True, "memory 20 (600Mi + 60Mi an image"),
        # whether one image fits is for a worker to find out
        ([None], "450Mi", 0, True, "memory 0 (planned 400Mi"),
        ([MEMORY], "600Mi", 0, False, "memory 0 (600Mi"),
    ],
)
def test_a_plan_binds_until_a_worker_has_measured(memories, limit, bound, fits, words):
    states = []
    for memory in memories:
        one = state(memory=memory)
        states.append(one.model_copy(update={"memory": one.memory.model_copy(update={"plan": PLAN})}))
    result = decided(spec(memory={"limit": limit}), *states)
    assert result.bounds.memory == bound
    assert result.fits is fits
    assert words in result.message
    assert result.tiers.ceiling >= 1


def test_memory_takes_the_largest_fit_and_the_smallest_device_and_speed_the_median():
    states = [
        state(memory=(500 * MIB, 70 * MIB), limit_bytes=4096 * MIB, speed=(0.010, 0.001)),
        state(memory=(700 * MIB, 50 * MIB), limit_bytes=2048 * MIB, speed=(0.020, 0.001)),
        state(memory=(600 * MIB, 60 * MIB), limit_bytes=4096 * MIB, speed=(0.900, 0.100)),
    ]
    result = decided(spec(), *states)
    assert (result.fixed_bytes, result.per_image_bytes) == (700 * MIB, 70 * MIB)
    assert result.budget_bytes == 2048 * MIB * 9 // 10
    assert (result.fixed_s, result.per_image_s) == (0.020, 0.001)
    assert decided(spec(), *states[1:]).fixed_s == 0.9  # of two, the slower


def test_only_warm_workers_of_the_current_revision_are_asked():
    new, old = view("new", told=state(speed=None)), view("old", revision="r0")
    assert decide_ceiling(seen(new, old), spec(), RUNTIME, PolicyState()) is None
    warming = view("warming", told=state(phase="Starting", buckets=[1]), phase="Starting")
    assert decide_ceiling(seen(warming), spec(), RUNTIME, PolicyState()) is None
    assert decide_ceiling(seen(view("gone", told=Missing("no answer"))), spec(), RUNTIME, PolicyState()) is None
    stale = view("stale", told=Stale(state(), 20.0))  # what it measured does not age
    assert decide_ceiling(seen(stale), spec(), RUNTIME, PolicyState()).tiers.ceiling == 32


speeds = st.tuples(st.floats(0, 0.2), st.floats(0.0001, 0.05))
memories = st.tuples(st.integers(0, 2000), st.integers(0, 300))


@given(
    st.lists(st.tuples(speeds, memories, st.sampled_from([1, 8, 24, 32, 100, 256])), min_size=1, max_size=5),
    st.integers(1, 256),
    st.integers(1, 1000),
    st.integers(1, 8000),
    st.tuples(st.sampled_from(["Computed", "Fixed"]), st.none() | st.tuples(st.integers(1, 256), st.integers(1, 256))),
)
def test_never_above_any_bound_nor_above_what_is_warm(workers, max_size, objective_ms, limit_mib, held):
    policy, before = held
    states = [
        state(speed=speed, memory=(memory[0] * MIB, memory[1] * MIB), max_batch=min(warm, max_size))
        for speed, memory, warm in workers
    ]
    given_spec = spec(
        batching={"maxSize": max_size, "policy": policy},
        objective={"latencyMilliseconds": objective_ms},
        memory={"limit": f"{limit_mib}Mi"},
    )
    tiers = Tiers(min(before), max(before)) if before else None
    result = decided(given_spec, *states, policy=PolicyState(tiers=tiers, revision="r1"))
    bounds = [
        b for b in (result.bounds.spec, result.bounds.memory, result.bounds.latency, result.bounds.efficiency) if b is not None
    ]
    assert 1 <= result.tiers.base <= result.tiers.ceiling <= max(min(bounds), 1)
    assert result.tiers.ceiling <= min(one.max_batch for one in states)
    assert policy == "Fixed" or all(result.tiers.ceiling in one.buckets for one in states)


@settings(max_examples=50)
@given(
    st.floats(0, 0.1),
    st.floats(0.0002, 0.02),
    st.none() | st.integers(10, 400),
    st.lists(st.tuples(st.floats(0.95, 1.05), st.floats(0.95, 1.05)), min_size=20, max_size=60),
)
def test_noise_of_five_percent_in_the_learned_speed_never_flaps(fixed_s, per_image_s, objective_ms, noise):
    """It settles: after it has shrunk it does not grow again, and it never does both."""
    given_spec = spec(batching={"maxSize": 256}, objective={"latencyMilliseconds": objective_ms} if objective_ms else None)
    policy, ceilings, bases = PolicyState(demand=day(200.0)), [], []
    for a, c in noise:
        result = decided(given_spec, state(speed=(fixed_s * a, per_image_s * c), max_batch=256), policy=policy)
        policy = PolicyState(tiers=result.tiers, revision="r1", demand=policy.demand)
        ceilings.append(result.tiers.ceiling)
        bases.append(result.tiers.base)
    # The first turn has nothing to hold on to, so it may start in a bucket beside its place; then it stays.
    assert sum(before != after for before, after in itertools.pairwise(ceilings)) <= 1
    if len(set(ceilings)) == 1:
        assert sum(before != after for before, after in itertools.pairwise(bases)) <= 1


def test_a_clear_change_of_speed_moves_the_ceiling_both_ways():
    objective = spec(batching={"maxSize": 64}, objective={"latencyMilliseconds": 100})
    policy, ceilings = PolicyState(), []
    for per_image_s in (0.001, 0.002, 0.0005, 0.0004):
        result = decided(objective, state(speed=(0.02, per_image_s), max_batch=64), policy=policy)
        policy = PolicyState(tiers=result.tiers, revision="r1")
        ceilings.append(result.tiers.ceiling)
    # bounds 30, 15, 60 (with the margin: 44), 75 (57)
    assert ceilings == [16, 8, 32, 32]


def test_a_restart_goes_on_from_what_the_workers_were_granted():
    granted = Tiers(2, 8)
    close = spec(objective={"latencyMilliseconds": 73})  # bound 16.5: enough to stay at 16, not to grow to it
    assert decided(close, state()).tiers.ceiling == 16
    assert decided(close, state(granted=granted)).tiers == granted
    assert decided(close, state(granted=granted), policy=PolicyState(tiers=Tiers(4, 16), revision="r1")).tiers == Tiers(4, 16)
    other_revision = PolicyState(tiers=Tiers(1, 1), revision="r0")
    assert decided(close, state(), policy=other_revision).tiers.ceiling == 16


def test_caution_about_growing_takes_nothing_back():
    """33 images fit into half the objective, and 15 if batches took 12 % longer: no 32, and the 16 there are stay."""
    close = spec(objective={"latencyMilliseconds": 100})
    assert decided(close, state(speed=(0.04, 0.0003))).tiers.ceiling == 32
    assert decided(close, state(speed=(0.04, 0.0003), granted=Tiers(4, 16))).tiers.ceiling == 16


def test_of_workers_that_differ_the_ceiling_is_what_all_can_and_the_largest_grant_what_was_allowed():
    close = spec(objective={"latencyMilliseconds": 82})  # 21 images
    full, odd, small = state(), state(buckets=[1, 2, 4, 8, 32]), state(max_batch=4)
    assert [decided(close, *told).tiers.ceiling for told in ([full], [full, odd], [full, small])] == [16, 8, 4]
    assert decided(close, full, small).bounds.spec == 4
    held = spec(objective={"latencyMilliseconds": 73})  # as above: enough to stay at 16, not to grow to it
    assert decided(held, state(granted=Tiers(2, 8)), state(granted=Tiers(4, 16))).tiers.ceiling == 16


def test_on_a_shared_device_a_restart_goes_on_from_what_was_allowed_not_from_what_is_lent():
    told = state(granted=Tiers(2, 8))
    told = told.model_copy(update={"ceiling": told.ceiling.model_copy(update={"wanted": 16})})
    close = spec(objective={"latencyMilliseconds": 73})
    assert decided(close, told, runtime=RUNTIME.model_copy(update={"shared": True})).tiers.ceiling == 16


@given(speeds, st.integers(1, 1000))
def test_latency_bound_is_the_largest_that_keeps_the_objective(speed, objective_ms):
    fit = Fit(fixed=speed[0], per_image=speed[1])
    bound = latency_bound(fit, objective_ms / 1000)
    slack = 1e-6
    assert bound == 1 or 2 * fit.at(bound) <= objective_ms / 1000 + slack
    assert 2 * fit.at(bound + 1) > objective_ms / 1000 - slack


@given(speeds)
def test_efficiency_bound_is_the_smallest_that_reaches_95_percent(speed):
    fit = Fit(fixed=speed[0], per_image=speed[1])
    bound = efficiency_bound(fit)

    def share(images):
        return images * fit.per_image / fit.at(images)

    assert share(bound) >= 0.95 - 1e-6
    assert bound == 1 or share(bound - 1) < 0.95 + 1e-6


def day(images_per_s, minutes=15, peak=None):
    samples = [DemandSample(60.0 * i, images_per_s) for i in range(minutes)]
    return tuple(samples) if peak is None else (*samples, DemandSample(60.0 * minutes, peak))


FIT = Fit(fixed=0.02, per_image=0.001)


@pytest.mark.parametrize(
    ("ceiling", "demand", "ready", "previous", "base"),
    [
        (32, (), 1, None, 8),  # at first a quarter
        (3, (), 1, None, 1),
        (32, day(500, minutes=5), 1, None, 8),
        (32, (), 1, Tiers(2, 32), 2),  # after a restart: what it was
        (32, (), 1, Tiers(2, 16), 8),  # another ceiling: a quarter of it
        (32, day(30), 1, None, 1),  # 0.7 * 1/21 ms = 33/s
        (32, day(60), 1, None, 2),  # 0.7 * 2/22 ms = 63/s
        (32, day(400), 1, None, 32),  # 0.7 * 32/52 ms = 430/s
        (32, day(400), 4, None, 4),  # 100/s each: 0.7 * 4/24 ms = 116/s
        (32, day(5000), 1, None, 32),  # never above the ceiling
        (32, day(30, minutes=40, peak=400), 1, None, 1),  # one minute in 41 is beyond p95
        (32, day(60), 1, Tiers(4, 32), 4),  # 60*1.15 = 69/s: not sure enough for 2
        (32, day(50), 1, Tiers(4, 32), 2),
    ],
)
def test_base_carries_the_usual_demand_at_seventy_percent_busy(ceiling, demand, ready, previous, base):
    assert base_for(ceiling, BUCKETS, FIT, demand, ready, previous=previous) == base


def out_of_memory(told, cap):
    health = told.health.model_copy(update={"out_of_memory_cap": cap})
    return told.model_copy(update={"health": health, "buckets": [size for size in told.buckets if size <= cap]})


@pytest.mark.parametrize("shared", [False, True])
def test_one_that_ran_out_of_memory_holds_back_nobody_until_all_have(shared):
    well = state(memory=MEMORY, limit_bytes=4096 * MIB)
    runtime = RUNTIME.model_copy(update={"shared": shared})
    assert decided(spec(), well, out_of_memory(well, 4), runtime=runtime).tiers.ceiling == 32
    all_of_them = decided(spec(), out_of_memory(well, 4), out_of_memory(well, 8), runtime=runtime)
    assert (all_of_them.tiers.ceiling, all_of_them.limited_by) == (8, "Memory"), "each is granted no more than it has itself"


def test_it_is_told_what_was_warm_and_not_the_sum_that_allows_more():
    narrow = state(memory=MEMORY, limit_bytes=4096 * MIB, buckets=[1, 2, 4])
    decision = decided(spec(), narrow, state(memory=MEMORY, limit_bytes=4096 * MIB))
    assert "memory 4 (no more is warm on every worker, or left since they ran out of memory; 600Mi + 60Mi" in decision.message
    assert decision.message.endswith("within 3686Mi of 4096Mi allows 51); efficiency 380 (20.0 ms + 1.00 ms an image)")


def test_it_is_told_why_it_does_not_grow_yet():
    close = spec(objective={"latencyMilliseconds": 100})
    message = decided(close, state(speed=(0.04, 0.0003), granted=Tiers(4, 16))).message
    assert message.endswith("; it grows to 32 once that is allowed with batches that are 12 % slower, too")
    assert "once that is allowed" not in decided(close, state(speed=(0.04, 0.0003))).message


def test_on_a_shared_device_a_worker_that_started_with_less_room_holds_back_nobody():
    narrow = view("narrow", told=state(memory=(100 * MIB, MIB), limit_bytes=1000 * MIB, buckets=[1, 2, 4]))
    wide = view("wide", told=state(memory=(100 * MIB, MIB), limit_bytes=1000 * MIB))
    alone = decide_ceiling(seen(narrow, wide), spec(), RUNTIME, PolicyState())
    shared = decide_ceiling(seen(narrow, wide), spec(), RUNTIME.model_copy(update={"shared": True}), PolicyState())
    assert (alone.tiers.ceiling, shared.tiers.ceiling) == (4, 32)
