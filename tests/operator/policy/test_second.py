"""A second worker beside a lone one: when it comes, when it stays, and who does without."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_builders import RUNTIME, autoscaled, seen, state, view

from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.model import Decision, Missing, PolicyState, Stale
from yolastic_operator.policy import second
from yolastic_operator.policy.decide import decide
from yolastic_operator.policy.demand import Proposal, propose
from yolastic_operator.policy.second import Lone

CAPACITY_PER_S = 100.0
TURN_S = 5.0
AT_ONCE = {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}


def loaded(name: str, load: float, total: int | None = None):
    told = state(arrived_per_s=load * CAPACITY_PER_S)
    counted = told.load.model_copy(update={"capacity_per_s": CAPACITY_PER_S, "demand_images": total})
    return view(name, load, told.model_copy(update={"worker_id": name, "load": counted}))


def proposed(size: int, load: float, lately: float | None = None, **fields) -> Proposal:
    """Of so many workers that share a load, in capacities of one; `lately` is that of the last minute."""
    rules = autoscaled(1, **{"maximum": 50, **fields}).autoscaling
    workers = [loaded(f"w-{number}", load / size) for number in range(size)]
    return propose(workers, size, rules, lone=Lone(None if lately is None else lately * CAPACITY_PER_S))


@pytest.mark.parametrize(
    ("load", "per_s", "capacity_per_s", "percent", "due"),
    [
        (0.15, 23.0, 100.0, 20, False),  # it was
        (0.3, 0.0, 100.0, 20, False),
        (0.3, 20.0, 100.0, 20, False),
        (0.3, 22.0, 100.0, 20, False),  # within three standard errors of the 600 images that are a fifth in half a minute: 73
        (0.3, 22.5, 100.0, 20, True),
        (0.3, 2.7, 10.0, 20, False),  # of 60: 23
        (0.3, 2.8, 10.0, 20, True),
        (0.3, 22.5, 100.0, 25, False),
        (0.3, 2.8, 100.0, 1, True),
        (0.3, 1.2, 100.0, 1, False),
    ],
)
def test_when_a_second_one_is_due(load, per_s, capacity_per_s, percent, due):
    assert second.is_due(load, per_s, capacity_per_s, percent) is due


@pytest.mark.parametrize(("capacity_per_s", "load"), [(None, 0.15), (1000.0, 0.144), (100.0, 0.13), (5.0, 0.061), (0.1, 0.0)])
def test_where_a_second_one_is_no_more_needed(capacity_per_s, load):
    assert second.kept_from(capacity_per_s, 20) == pytest.approx(load, abs=0.001)


@given(st.floats(0, 10), st.floats(0, 10), st.floats(0, 1000), st.floats(0, 1000), st.floats(0.1, 1000), st.integers(1, 100))
def test_who_is_due_is_kept_and_more_load_does_not_send_it_away(load, more, per_s, more_per_s, capacity_per_s, percent):
    if second.is_due(load, per_s, capacity_per_s, percent):
        assert load >= second.kept_from(capacity_per_s, percent)
        assert second.is_due(load + more, per_s + more_per_s, capacity_per_s, percent)


@pytest.mark.parametrize(
    ("size", "load", "lately", "replicas", "reason"),
    [
        (1, 0.3, 0.3, 2, "SecondWorker"),
        (1, 0.3, 0.1, 1, "WithinTolerance"),  # a burst
        (1, 0.1, 0.3, 1, "WithinTolerance"),  # over
        (1, 0.3, None, 1, "WithinTolerance"),
        (1, 0.95, 0.95, 2, "LoadAboveTarget"),
        (2, 0.3, None, 2, "SecondWorker"),
        (2, 0.16, None, 2, "SecondWorker"),  # between the two: who is there stays
        (1, 0.16, 0.16, 1, "WithinTolerance"),
        (2, 0.14, None, 2, "SecondWorker"),  # within two standard errors of the 225 images that are 15 %
        (2, 0.12, 0.3, 1, "LoadBelowTarget"),  # over
        (4, 0.3, 0.3, 2, "SecondWorker"),
        (4, 0.12, 0.12, 1, "LoadBelowTarget"),
        (4, 1.4, 1.4, 3, "LoadBelowTarget"),
    ],
)
def test_what_is_proposed(size, load, lately, replicas, reason):
    result = proposed(size, load, lately)
    assert (result.replicas, result.reason) == (replicas, reason)


@pytest.mark.parametrize("fields", [{"maximum": 1}, {"secondWorkerLoadPercent": 80}, {"secondWorkerLoadPercent": 100}])
def test_who_does_without(fields):
    assert proposed(1, 0.3, 0.3, **fields).replicas == 1
    assert proposed(2, 0.3, 0.3, **fields).replicas == 1


@pytest.mark.parametrize(
    ("size", "load", "lately", "text"),
    [
        (1, 0.3, 0.3, "1 worker alone carries 0.30, and 0.30 for a minute, above 0.20 beyond noise: 2 workers"),
        (1, 0.2, 0.2, "1 worker alone carries 0.20, and 0.20 for a minute, not above 0.20 beyond noise: 1 worker"),
        (1, 0.2, None, "none: not known what came within a minute"),
        (2, 0.3, None, "1 worker alone would carry 0.30, not below 0.13: 2 workers"),
        (2, 0.1, None, "1 worker alone would carry 0.10, below 0.13: 1 worker"),
    ],
)
def test_the_step_in_words(size, load, lately, text):
    assert [step.text for step in proposed(size, load, lately).steps if step.about == "Second"] == [text]


def test_a_lone_worker_that_does_not_tell_itself_gets_none():
    """Prometheus knows its ratio; how much that is in images nobody does."""
    silent = replace(loaded("w-0", 0.4), state=Missing("no answer"))
    assert propose([silent], 1, autoscaled().autoscaling, lone=Lone(40.0)).replicas == 1


def play(size: int, *parts: tuple[float, float], runtime: RuntimeSpec = RUNTIME, **fields: Any) -> list[Decision]:
    """The turns of so many workers that share a load evenly, for so many minutes each; who is ordered serves at once."""
    policy, now_s, decisions = PolicyState(), 1000.0, []
    totals: dict[str, float] = {}
    for load, minutes in parts:
        for _ in range(round(minutes * 60 / TURN_S)):
            names = [f"w-{number}" for number in range(size)]
            totals = {name: totals.get(name, 0.0) + load / size * CAPACITY_PER_S * TURN_S for name in names}
            views = [loaded(name, load / size, round(total)) for name, total in totals.items()]
            decisions.append(decide(seen(*views), autoscaled(1, 50, **fields), runtime, policy, now_s))
            policy, size, now_s = decisions[-1].state, decisions[-1].replicas.desired, now_s + TURN_S
    return decisions


def sizes(decisions: list[Decision]) -> list[int]:
    return [decision.replicas.desired for decision in decisions]


def test_it_comes_after_a_minute_and_is_told_as_what_it_is():
    decisions = play(1, (0.3, 1.5))
    ordered = sizes(decisions).index(2)
    assert 60 <= ordered * TURN_S <= 70
    assert decisions[ordered].replicas.reason == "SecondWorker"


def test_bursts_order_none():
    """15 s at 85 % of a worker every two minutes: more than a fifth of one minute, and less than the load asks for two at."""
    bursts = [part for _ in range(10) for part in ((0.85, 0.25), (0.1, 1.75))]
    assert set(sizes(play(1, *bursts))) == {1}


@pytest.mark.parametrize("load", [0.01, 0.05, 0.12])
def test_a_minute_that_was_busy_calls_nobody_back_when_it_is_over(load):
    found = sizes(play(2, (1.2, 5.0), (load, 5.0), forecast="None", **AT_ONCE))
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (2, 1)


@pytest.mark.parametrize("fields", [{}, AT_ONCE])
def test_a_restart_takes_no_second_worker_away(fields):
    """It forgets the minute; the workers' own rates keep what is there."""
    decisions = play(2, (0.3, 2.0), **fields)
    assert {(decision.replicas.desired, decision.replicas.reason) for decision in decisions} == {(2, "SecondWorker")}


def test_none_where_workers_share_devices():
    shared = RUNTIME.model_copy(update={"shared": True})
    assert set(sizes(play(1, (0.3, 3.0), runtime=shared))) == {1}
    assert sizes(play(2, (0.3, 3.0), runtime=shared, **AT_ONCE))[-1] == 1


def test_one_without_a_place_is_given_up_and_not_tried_again_for_ten_minutes():
    policy, now_s, size, total, found = PolicyState(), 1000.0, 1, 0.0, []
    while now_s < 2000.0:
        total += 0.3 * CAPACITY_PER_S * TURN_S
        views = [loaded("w-0", 0.3, round(total)), *[view("w-1", phase="Pending", unschedulable=True)][: size - 1]]
        decision = decide(seen(*views), autoscaled(1, 50, **AT_ONCE), RUNTIME, policy, now_s)
        policy, size, now_s = decision.state, decision.replicas.desired, now_s + TURN_S
        found.append((now_s, size))
    times = [now_s for now_s, size in found if size == 2]
    assert [round(times[number + 1] - now_s) for number, now_s in enumerate(times[:-1])] == [605]
    told = [step.text for step in decision.explanation if step.about == "Second"]
    assert told == ["none: the scheduler had no place for one within 600 s"]


def test_one_that_serves_is_not_given_up_for_what_was():
    policy = PolicyState(no_place_s=990.0)
    decision = decide(seen(loaded("w-0", 0.15), loaded("w-1", 0.15)), autoscaled(1, 50, **AT_ONCE), RUNTIME, policy, 1000.0)
    assert decision.replicas.desired == 2


def test_a_worker_whose_speed_is_not_known_makes_nobody_due():
    """Of two that serve one has no speed yet: half of the other's would be far too little for a capacity."""
    slow = loaded("w-0", 0.06)
    load = slow.state.value.load.model_copy(update={"capacity_per_s": 0.0})
    unknown = replace(slow, state=replace(slow.state, value=slow.state.value.model_copy(update={"load": load})))
    result = propose([unknown, loaded("w-1", 0.06)], 1, autoscaled().autoscaling, lone=Lone(12.0))
    assert result.replicas == 1


LOADS = st.floats(0.0, 3.0)


@settings(max_examples=25, deadline=None)
@given(LOADS, LOADS, st.integers(1, 3))
def test_more_load_never_ends_with_fewer(load, more, size):
    less, larger = (sizes(play(size, (part, 2.0), **AT_ONCE))[-1] for part in (load, load + more))
    assert larger >= less


@settings(max_examples=25, deadline=None)
@given(LOADS, st.integers(1, 3))
def test_a_restart_does_not_shrink_what_a_minute_made(load, size):
    last = play(size, (load, 2.0))[-1].replicas.desired
    assert play(last, (load, TURN_S / 60), **AT_ONCE)[0].replicas.desired >= min(last, 2 if load >= 0.15 else 1)


@pytest.mark.parametrize("unknown", [Missing("no answer"), Stale(0.01, 60.0)])
def test_a_second_worker_is_not_taken_away_on_partial_figures(unknown):
    for known in (1, 2, 3):
        views = [*(loaded(f"w-{number}", 0.01) for number in range(known)), view("silent", unknown)]
        decision = decide(seen(*views), autoscaled(1, 50, **AT_ONCE), RUNTIME, PolicyState(), 1000.0)
        assert decision.replicas.desired == known + 1


@pytest.mark.parametrize(("mode", "desired", "advised"), [("Advisory", 1, 2), ("Paused", 1, None)])
def test_modes_that_do_not_act(mode, desired, advised):
    decision = play(1, (0.3, 2.0), mode=mode)[-1]
    assert (decision.replicas.desired, decision.replicas.advised) == (desired, advised)
