"""What one turn decides, and invariants over many turns."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_builders import RUNTIME, autoscaled, fleet, seen, spec, state, view, with_phase

from yolastic_operator.model import Missing, PolicyState, Recommendation, Stale, Tiers
from yolastic_operator.policy import leased
from yolastic_operator.policy.accounts import Leases
from yolastic_operator.policy.decide import decide
from yolastic_operator.policy.replicas import SHRINK_HELD_S

NOW_S = 10_000.0
QUICK = {"scaleDown": {"stabilizationWindowSeconds": 0}}


EMPTY = PolicyState()
CAPACITY_PER_S = 500.0
"""Of a worker of `policy_builders.state`."""


def decided(observation, given_spec, policy=EMPTY, now_s=NOW_S):
    return decide(observation, given_spec, RUNTIME, policy, now_s)


def quick(minimum=1, maximum=100):
    return autoscaled(minimum, maximum, behavior=QUICK)


@pytest.mark.parametrize(
    ("observation", "given_spec", "desired", "reason", "limited_by"),
    [
        (fleet([0.5]), spec(), 1, "FixedReplicas", None),
        (fleet([9.0]), spec(replicas=3), 3, "FixedReplicas", None),
        (fleet([0.1] * 4), spec(replicas=0), 0, "FixedReplicas", None),
        (fleet([1.32] * 2), autoscaled(), 4, "LoadAboveTarget", None),
        (fleet([1.32] * 2), autoscaled(maximum=3), 3, "LoadAboveTarget", "TooManyReplicas"),
        (fleet([1.32] * 3), autoscaled(maximum=3), 3, "TooManyReplicas", "TooManyReplicas"),
        (fleet([9.0] * 2), autoscaled(), 4, "LoadAboveTarget", "ScaleUpLimit"),
        (fleet([0.1] * 4), autoscaled(), 4, "ScaleDownStabilized", None),
        (fleet([0.1] * 4), quick(), 2, "LoadBelowTarget", None),
        (fleet([0.02] * 4), quick(), 1, "LoadBelowTarget", None),
        (fleet([0.0] * 4), quick(minimum=2), 2, "LoadBelowTarget", "TooFewReplicas"),
        (fleet([0.5] * 4), autoscaled(maximum=2), 2, "AboveMaximum", "TooManyReplicas"),
        (fleet([0.5]), autoscaled(minimum=3), 3, "BelowMinimum", None),
        (seen(replicas=None), autoscaled(minimum=2), 2, "MetricsUnavailable", None),
        (seen(replicas=0), autoscaled(minimum=2), 2, "BelowMinimum", None),
        (seen(view("a", Missing("gone")), view("b", Missing("gone"))), quick(), 2, "MetricsUnavailable", None),
    ],
)
def test_the_wanted_size(observation, given_spec, desired, reason, limited_by):
    result = decided(observation, given_spec).replicas
    assert (result.desired, result.reason, result.limited_by) == (desired, reason, limited_by)


def test_the_message_tells_the_sum_and_what_cut_it():
    result = decided(fleet([1.32] * 2), autoscaled(maximum=3)).replicas
    assert result.message == "load ratio 1.32 over 2 workers, target 0.80: 4 workers; limited to maxReplicas 3"
    assert (result.recommended, result.load_ratio, result.source, result.active) == (4, pytest.approx(1.32), "Workers", True)
    held = decided(fleet([0.02] * 4), autoscaled()).replicas
    assert held.message == "load ratio 0.02 over 4 workers, target 0.80: 1 worker; 4 were wanted within the last 300 s"


def test_two_devices_and_three_wanted_workers():
    """The third finds no place: it stays ordered, a fourth is not asked for, and the condition says why."""
    homeless = view("w-2", phase="Pending", unschedulable=True)
    observation = seen(view("w-0", 3.0), view("w-1", 3.0), homeless)
    result = decided(observation, autoscaled(), PolicyState(desired_replicas=3)).replicas
    assert (result.desired, result.limited_by, result.reason) == (3, "Unschedulable", "Unschedulable")
    assert "the scheduler finds no place for 1 worker of 3, not asking for more than 3" in result.message
    fewer = decided(seen(view("w-0", 0.05), view("w-1", 0.05), homeless), quick(), PolicyState(desired_replicas=3))
    assert (fewer.replicas.desired, fewer.replicas.limited_by) == (1, None)
    assert fewer.victims == ("w-2", "w-0")
    placed = decided(seen(view("w-0", 3.0), view("w-1", 3.0), view("w-2", 3.0)), autoscaled(), PolicyState(desired_replicas=3))
    assert placed.replicas.desired == 6


@pytest.mark.parametrize(
    ("workers", "ordered", "desired", "limited_by"),
    [
        ([("Ready", 0.5), ("Ready", 0.5)], 3, 2, None),  # as many are wanted as have a place: nothing limits that
        ([("Ready", 3.0), ("Terminating", 3.0), ("Terminating", 3.0)], 2, 2, "Unschedulable"),  # who goes takes his place along
        ([("Ready", 3.0)] * 3, 2, 3, "Unschedulable"),  # who has a place is not given up, however few were ordered
    ],
)
def test_while_one_finds_no_place_those_count_that_have_one(workers, ordered, desired, limited_by):
    views = [view(f"w-{i}", ratio, phase=phase) for i, (phase, ratio) in enumerate(workers)]
    observation = seen(*views, view("homeless", phase="Pending", unschedulable=True), replicas=ordered)
    result = decided(observation, quick()).replicas
    assert (result.desired, result.limited_by) == (desired, limited_by)


def test_a_shrink_is_over_before_the_next_begins():
    """A drained worker's load has not reached the others yet: their low figures are no reason to shrink further."""
    first = decided(fleet([0.3] * 10), quick())
    assert first.replicas.desired == 5
    assert len(first.victims) == 5
    draining = [view(f"w-{i}", 0.3, state(phase="Draining")) for i in range(5)] + [view(f"w-{i}", 0.3) for i in range(5, 10)]
    second = decided(seen(*draining), quick(), first.state, NOW_S + 5)
    assert (second.replicas.desired, second.replicas.reason) == (5, "ShrinkUnderWay")
    assert set(second.victims) == {f"w-{i}" for i in range(5)}
    assert second.state.recommendations[-1].replicas == 3, "what is held for a moment is not wanted: no window is to hold it"
    third = decided(seen(*draining[5:]), quick(), second.state, NOW_S + 10)
    assert third.replicas.desired == 3


def test_nobody_is_taken_from_those_that_must_carry_what_another_leaves_them():
    """It drains though nobody here asked it to."""
    leaving = view("a", 0.1, state(phase="Draining"))
    result = decided(seen(leaving, view("b", 0.1), view("c", 0.1)), quick(), PolicyState(desired_replicas=3)).replicas
    assert (result.desired, result.reason) == (3, "ShrinkUnderWay")


def test_load_that_comes_back_during_a_shrink_is_served():
    draining = seen(view("a", 0.3, state(phase="Draining")), view("b", 1.5))
    result = decided(draining, quick(), PolicyState(desired_replicas=1))
    assert (result.replicas.desired, result.victims) == (2, ())


def test_a_restart_during_a_shrink_finishes_it():
    result = decided(seen(view("a", 0.3, state(phase="Draining")), view("b", 0.5), view("c", 0.5)), autoscaled())
    assert (result.replicas.desired, result.victims) == (2, ("a",))


def test_from_fixed_to_autoscaling_and_back_keeps_the_size_until_figures_say_otherwise():
    fixed = decided(fleet([0.1] * 3), spec(replicas=3))
    free = decided(fleet([0.1] * 3), autoscaled(), fixed.state, NOW_S + 5)
    assert free.replicas.desired == 3
    assert free.state.recommendations[0] == Recommendation(NOW_S + 5, 3)
    back = decided(fleet([0.1] * 3), spec(replicas=2), free.state, NOW_S + 10)
    assert (back.replicas.desired, back.state.recommendations, len(back.victims)) == (2, (), 1)


def test_tiers_are_held_without_figures_and_dropped_with_the_revision():
    granted = decided(fleet([0.5]), spec()).state
    assert (granted.tiers, granted.revision) == (Tiers(8, 32), "r1")
    silent = decided(seen(view("w-0", Missing("x"), Missing("x"))), spec(), granted)
    assert silent.ceiling is None
    assert (silent.state.tiers, silent.state.revision) == (Tiers(8, 32), "r1")
    renewed = decided(seen(view("w-0"), revision="r2"), spec(), granted)
    assert (renewed.state.tiers, renewed.state.revision) == (None, "r2")


def test_what_a_shared_device_can_lend_bounds_both_tiers_and_a_drain_is_waited_for():
    runtime = RUNTIME.model_copy(update={"shared": True})
    given_spec = spec(drain={"timeoutSeconds": 600})
    decision = decide(fleet([0.5]), given_spec, runtime, EMPTY, NOW_S)
    assert decision.ceiling.tiers == Tiers(8, 32)
    assert leased.with_leases(decision, Leases(lendable=4, text="full")).ceiling.tiers == Tiers(4, 4)
    assert leased.wants(decision, given_spec, runtime).ends_s == 600 + leased.END_MARGIN_S


# Invariants ---------------------------------------------------------------------------------------------------------------

readings = st.one_of(st.floats(0, 10), st.builds(Stale, st.floats(0, 10), st.floats(60, 100)), st.just(Missing("no series")))
phases = st.sampled_from(["Ready"] * 6 + ["Starting", "Pending", "Draining", "Failed", "Terminating"])
behaviors = st.sampled_from(
    [
        None,
        QUICK,
        {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}},
        {
            "scaleUp": {"stabilizationWindowSeconds": 60},
            "scaleDown": {"policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}]},
        },
        {"scaleDown": {"selectPolicy": "Disabled"}},
    ]
)


@st.composite
def observations(draw):
    views = []
    for i, (phase, reading) in enumerate(draw(st.lists(st.tuples(phases, readings), max_size=8))):
        views.append(view(f"w-{i}", reading, phase=phase, unschedulable=phase == "Pending" and draw(st.booleans())))
    return seen(*views, replicas=draw(st.none() | st.integers(0, 10)))


@st.composite
def specs(draw):
    if draw(st.integers(0, 4)) == 0:
        return spec(replicas=draw(st.integers(0, 8)))
    minimum = draw(st.integers(1, 8))
    behavior = draw(behaviors)
    extra = {} if behavior is None else {"behavior": behavior}
    return autoscaled(minimum, draw(st.integers(minimum, 12)), **extra)


@settings(max_examples=200)
@given(st.lists(st.tuples(observations(), st.sampled_from([0.0, 1.0, 5.0, 60.0, 400.0])), min_size=1, max_size=6), specs())
def test_over_any_history_the_size_stays_within_bounds_and_victims_are_real(turns, given_spec):
    policy, now_s = PolicyState(), NOW_S
    for observation, after_s in turns:
        now_s += after_s
        decision = decided(observation, given_spec, policy, now_s)
        desired = decision.replicas.desired
        if given_spec.autoscaling is None:
            assert desired == given_spec.replicas
        else:
            assert given_spec.autoscaling.min_replicas <= desired <= given_spec.autoscaling.max_replicas
        names = {one.worker.name for one in observation.workers if one.worker.phase != "Terminating"}
        assert set(decision.victims) <= names
        assert len(decision.victims) == len(set(decision.victims)) <= max((observation.fleet.replicas or 0) - desired, 0)
        policy = decision.state


@settings(max_examples=200)
@given(observations(), specs(), st.sampled_from([0.0, 30.0]))
def test_the_same_turn_twice_decides_the_same(observation, given_spec, after_s):
    first = decided(observation, given_spec)
    assert decided(observation, given_spec) == first
    again = decided(observation, given_spec, first.state)
    assert (again.replicas.desired, again.victims, again.ceiling) == (first.replicas.desired, first.victims, first.ceiling)
    later = decided(observation, given_spec, again.state, NOW_S + after_s)
    assert later == decided(observation, given_spec, first.state, NOW_S + after_s)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=6), st.floats(0, 5), specs(), st.integers(0, 3))
def test_more_load_never_means_fewer_workers(ratios, more, given_spec, starting):
    less = decided(fleet(ratios, starting=starting), given_spec).replicas.desired
    assert decided(fleet([ratio + more for ratio in ratios], starting=starting), given_spec).replicas.desired >= less


@given(st.lists(st.floats(0, 5), min_size=2, max_size=6), st.data())
def test_a_missing_figure_never_shrinks(ratios, data):
    lost = data.draw(st.sets(st.integers(0, len(ratios) - 1), min_size=1))
    unknown = st.one_of(st.just(Missing("no series")), st.just(Stale(0.0, 70.0)))
    views = [view(f"w-{i}", data.draw(unknown) if i in lost else ratio) for i, ratio in enumerate(ratios)]
    result = decided(seen(*views), quick()).replicas
    assert result.desired >= len(ratios)
    assert result.active == (len(lost) < len(ratios))
    assert decided(seen(*views), quick()).victims == ()


@given(st.lists(st.floats(0, 5), min_size=1, max_size=6), st.sampled_from([None, Tiers(2, 8), Tiers(4, 32)]))
def test_a_restart_changes_nothing_but_what_more_load_asks_for(ratios, granted):
    observation = fleet(ratios, told=state(granted=granted))
    given_spec = autoscaled()
    settled = PolicyState(desired_replicas=len(ratios), tiers=granted, revision="r1" if granted else None)
    before, after = decided(observation, given_spec, settled), decided(observation, given_spec)
    assert after.replicas.desired == before.replicas.desired >= len(ratios)
    assert after.ceiling == before.ceiling


class World:
    """Workers that share a constant load evenly and count what came, start after 40 s, and drain in one turn."""

    def __init__(self, load, size, given_spec, turn_s=5.0):
        self.load, self.spec, self.turn_s, self.now_s = load, given_spec, turn_s, NOW_S
        self.workers = {f"w-{i}": NOW_S - 100.0 for i in range(size)}
        self.born, self.ordered, self.policy, self.sizes = size, size, PolicyState(), []
        self.totals = dict.fromkeys(self.workers, 0.0)

    def observe(self):
        ready = self.ready()
        ratio = self.load / max(len(ready), 1)
        told = state(arrived_per_s=ratio * CAPACITY_PER_S, granted=self.policy.tiers)
        views = []
        for name in self.workers:
            load = told.load.model_copy(update={"demand_images": int(self.totals[name])})
            one = view(name, ratio, told.model_copy(update={"worker_id": name, "load": load}))
            views.append(one if name in ready else replace(with_phase(one, "Starting"), load_ratio=Missing("starting")))
        return seen(*views, replicas=self.ordered)

    def ready(self):
        return [name for name, created_s in self.workers.items() if self.now_s - created_s >= 40.0]

    def turn(self):
        decision = decided(self.observe(), self.spec, self.policy, self.now_s)
        self.policy = decision.state
        for name in decision.victims:
            del self.workers[name]
        self.ordered = decision.replicas.desired
        while len(self.workers) < self.ordered:
            self.workers[f"w-{self.born}"] = self.now_s
            self.totals[f"w-{self.born}"] = 0.0
            self.born += 1
        self.sizes.append(self.ordered)
        ready = self.ready()
        for name in ready:
            self.totals[name] += self.load / len(ready) * CAPACITY_PER_S * self.turn_s
        self.now_s += self.turn_s


@pytest.mark.parametrize("size", [1, 2, 3, 50])
@settings(max_examples=25, deadline=None)
@given(share=st.floats(0.0, 3.0), turn_s=st.sampled_from([1.0, 5.0, 15.0]), behavior=st.sampled_from([None, QUICK]))
def test_constant_load_never_flaps(size, share, turn_s, behavior):
    world = World(share * size, size, autoscaled(maximum=200, **({} if behavior is None else {"behavior": behavior})), turn_s)
    for _ in range(int(600 / turn_s) if size < 50 else 45):
        world.turn()
    moves = [after - before for before, after in itertools.pairwise([size, *world.sizes]) if after != before]
    assert all(move > 0 for move in moves) or all(move < 0 for move in moves)


def test_a_rush_hour_there_and_back():
    world = World(0.1, 1, autoscaled(maximum=8))
    for load, turns in ((0.1, 12), (4.0, 40), (0.1, 180)):
        world.load = load
        for _ in range(turns):
            world.turn()
    assert max(world.sizes) == 5  # 4.0/0.8
    assert world.sizes[-1] == 1
    first_up, first_down = world.sizes.index(5), len(world.sizes) - 1 - world.sizes[::-1].index(5)
    assert first_up <= 12 + 25
    assert first_down >= 12 + 40 + 55  # 300 s of the default window


@pytest.mark.parametrize("fall_s", [60.0, 180.0, 300.0])
def test_while_the_load_falls_a_shrink_is_put_off_for_a_minute_at_most(fall_s):
    """And then it is made as far as it has come: twenty workers are not paid for until the evening is over."""
    policy, size, now_s, turns = PolicyState(), 20, 0.0, []
    while now_s < 400.0 + 2 * fall_s:
        load = max(14.0 * (1 - max(now_s - 60.0, 0.0) / fall_s), 0.5)
        decision = decided(fleet([load / size] * size), autoscaled(forecast="None"), policy, now_s)
        moved = decision.replicas.desired != size
        policy, size = decision.state, decision.replicas.desired
        turns.append((now_s, decision.replicas.reason, moved))
        now_s += 5.0
    held = [
        [now_s for now_s, *_ in run]
        for reason, run in itertools.groupby(turns, lambda turn: turn[1])
        if reason == "ShrinkGrowing"
    ]
    assert held
    assert all(run[-1] - run[0] < SHRINK_HELD_S for run in held)
    changes = sum(moved for *_, moved in turns)
    assert changes <= fall_s / SHRINK_HELD_S + 1
    assert size == 2  # `SecondWorker`


def test_hours_of_turns_leave_a_small_state():
    world = World(3.0, 4, autoscaled(maximum=8))
    for _ in range(2000):
        world.turn()
    policy = world.policy
    assert len(policy.recommendations) + len(policy.scale_events) < 20
    assert len(policy.demand) <= 61
    assert policy.demand[-1].images_per_s == pytest.approx(3.0 * CAPACITY_PER_S)
