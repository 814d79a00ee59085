"""A second worker beside a lone one: when it comes, when it stays, and who does without."""

from dataclasses import replace
from itertools import pairwise
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


@pytest.mark.parametrize(
    ("capacity_per_s", "from_load"),
    [(None, 0.15), (1000.0, 0.144), (100.0, 0.13), (10.0, 0.087), (5.0, 0.130), (1.0, 0.105), (0.1, 0.075)],
)
def test_where_a_second_one_is_no_more_needed(capacity_per_s, from_load):
    """Below 7.1 images/s the load of 15 s could be noise: then it is the mean of five minutes that counts."""
    per_s = 0.0 if capacity_per_s is None else (from_load - 0.001) * capacity_per_s
    calm = Lone(long_per_s=per_s)
    assert second.is_kept(from_load - 0.001, calm, capacity_per_s, 20)[0] is False
    busy = Lone(long_per_s=per_s + 0.002 * (capacity_per_s or 0.0))
    assert second.is_kept(from_load + 0.001, busy, capacity_per_s, 20)[0] is True


@pytest.mark.parametrize(
    ("load", "per_s", "long_per_s", "kept"),
    [
        (0.0, None, None, True),  # not known what came: after a restart nothing is taken away
        (0.0, None, 0.0, False),
        (0.07, 0.0, 0.004, False),  # one image in a quarter of an hour, just now
        (0.3, None, 0.0, False),  # five images at once are a load of 0.3, and may be noise about 0.1
        (1.2, None, 0.0, True),  # 18 are not
        (0.0, 0.3, 0.05, True),  # what made it due, and a moment without any
    ],
)
def test_slow_workers_are_judged_by_minutes(load, per_s, long_per_s, kept):
    assert second.is_kept(load, Lone(per_s, long_per_s), 1.0, 20)[0] is kept


@given(
    st.floats(0, 10), st.floats(0, 10), st.floats(0, 1000), st.floats(0, 1000), st.floats(0, 1000), st.floats(0.1, 1000),
    st.integers(1, 100),
)  # fmt: skip
def test_who_is_due_is_kept_and_more_load_does_not_send_it_away(
    load, more, per_s, more_per_s, long_per_s, capacity_per_s, percent
):
    if second.is_due(load, per_s, capacity_per_s, percent):
        assert second.is_due(load + more, per_s + more_per_s, capacity_per_s, percent)
        assert second.is_kept(load, Lone(per_s, long_per_s), capacity_per_s, percent)[0]
    if second.is_kept(load, Lone(per_s, long_per_s), capacity_per_s, percent)[0]:
        assert second.is_kept(load + more, Lone(per_s + more_per_s, long_per_s), capacity_per_s, percent)[0]


@pytest.mark.parametrize(
    ("size", "load", "lately", "replicas", "reason"),
    [
        (1, 0.3, 0.3, 2, "SecondWorker"),
        (1, 0.3, 0.1, 1, "LastWorker"),  # a burst
        (1, 0.1, 0.3, 1, "LastWorker"),  # over
        (1, 0.3, None, 1, "LastWorker"),
        (1, 0.95, 0.95, 2, "LoadAboveTarget"),
        (2, 0.3, None, 2, "SecondWorker"),
        (2, 0.16, None, 2, "SecondWorker"),  # between the two: who is there stays
        (1, 0.16, 0.16, 1, "LastWorker"),
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


def alone_without_a_place(policy: PolicyState, from_s: float, to_s: float) -> tuple[list[tuple[float, str]], PolicyState]:
    """When the size went to two and back to one, with the reason: a constant load, and no place for a second worker."""
    now_s, size, total, found = from_s, 1, 0.0, []
    while now_s < to_s:
        total += 0.3 * CAPACITY_PER_S * TURN_S
        views = [loaded("w-0", 0.3, round(total)), *[view("w-1", phase="Pending", unschedulable=True)][: size - 1]]
        decision = decide(seen(*views), autoscaled(1, 50, **AT_ONCE), RUNTIME, policy, now_s)
        if decision.replicas.desired != size:
            found.append((now_s, decision.replicas.reason))
        policy, size, now_s = decision.state, decision.replicas.desired, now_s + TURN_S
    return found, policy


def test_one_without_a_place_is_given_up_and_tried_again_ever_more_rarely():
    found, _ = alone_without_a_place(PolicyState(), 0.0, 18 * 3600.0)
    assert [reason for _, reason in found] == ["SecondWorker", "NoPlaceForSecond"] * 8
    ordered = [now_s for now_s, reason in found if reason == "SecondWorker"]
    pauses = [round((after - before) / 60) for before, after in pairwise(ordered)]
    assert pauses == [10, 20, 40, 80, 160, 320, 360]


def test_a_restart_does_not_try_again_sooner():
    found, policy = alone_without_a_place(PolicyState(), 0.0, 1000.0)
    gave_up_s = [now_s for now_s, reason in found if reason == "NoPlaceForSecond"]
    assert len(gave_up_s) == 2
    known = second.no_places(gave_up_s)
    assert (known.no_place_s, known.no_places) == (policy.no_place_s, policy.no_places)
    later, _ = alone_without_a_place(known, 1000.0, gave_up_s[-1] + 1150.0)
    assert later == []


@pytest.mark.parametrize("tries", [1, 2, 3, 4, 5, 6, 7, 8])
def test_a_restart_knows_how_often_from_the_two_that_the_status_tells(tries):
    """Of each try it tells two decisions, and five in all."""
    now_s, times = 0.0, []
    for number in range(tries):
        now_s += 365.0 + (second._retry_s(number) if number else 0.0)
        times.append(now_s)
    known = second.no_places(times[-2:][::-1])
    assert known.no_place_s == times[-1]
    assert second._retry_s(known.no_places) == second._retry_s(tries)
    assert second.no_places([]) == PolicyState()


def test_a_lone_worker_without_a_place_is_no_second_one_in_vain():
    homeless = seen(view("w-0", phase="Pending", unschedulable=True))
    assert second.remember(PolicyState(), homeless, 1000.0) == PolicyState()
    assert second.lone(PolicyState(no_place_s=990.0), shared=False, now_s=1000.0).not_now


def test_a_place_that_was_found_ends_that():
    policy = PolicyState(no_place_s=0.0, no_places=5)
    both = seen(loaded("w-0", 0.15), loaded("w-1", 0.15))
    state = second.remember(policy, both, 1000.0)
    assert (state.no_place_s, state.no_places) == (None, 0)


def test_why_it_is_not_tried_is_told():
    found = second.lone(PolicyState(no_place_s=0.0, no_places=3), shared=False, now_s=100.0)
    assert found.not_now == "there was no place for one within the last 40 minutes"


@pytest.mark.parametrize("images_per_s", [0.0, 1 / 240])
@pytest.mark.parametrize("capacity_per_s", [0.5, 1.5, 2.0, 10.0])
def test_a_second_slow_worker_goes_when_nothing_comes_any_more(capacity_per_s, images_per_s, monkeypatch):
    monkeypatch.setattr("test_second.CAPACITY_PER_S", capacity_per_s)
    assert sizes(play(2, (0.5, 6.0), (images_per_s / capacity_per_s, 15.0)))[-1] == 1


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
