"""A second worker beside a lone one: when it comes, when it stays, and who does without."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_builders import RUNTIME, autoscaled, seen, state, view

from yolastic_operator.model import Decision, Missing, PolicyState, Stale
from yolastic_operator.policy import second
from yolastic_operator.policy.decide import decide
from yolastic_operator.policy.demand import Proposal, propose

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
    return propose(workers, size, rules, lately_per_s=None if lately is None else lately * CAPACITY_PER_S)


@pytest.mark.parametrize(
    ("load", "per_s", "capacity_per_s", "share", "due"),
    [
        (0.15, 22.0, 100.0, 0.2, False),  # it was
        (0.3, 0.0, 100.0, 0.2, False),
        (0.3, 20.0, 100.0, 0.2, False),
        (0.3, 21.5, 100.0, 0.2, False),  # within three standard errors of the 1,200 images that are a fifth: 104
        (0.3, 22.0, 100.0, 0.2, True),
        (0.3, 2.2, 10.0, 0.2, False),  # of 120: 33
        (0.3, 2.6, 10.0, 0.2, True),
        (0.3, 22.0, 100.0, 0.25, False),
        (0.3, 2.2, 100.0, 0.01, True),
        (0.3, 1.2, 100.0, 0.01, False),
    ],
)
def test_when_a_second_one_is_due(load, per_s, capacity_per_s, share, due):
    assert second.is_due(load, per_s, capacity_per_s, share) is due


@given(st.floats(0, 10), st.floats(0, 10), st.floats(0, 1000), st.floats(0, 1000), st.floats(0.1, 1000), st.floats(0.01, 1.0))
def test_who_is_due_is_kept_and_more_load_does_not_send_it_away(load, more, per_s, more_per_s, capacity_per_s, share):
    if second.is_due(load, per_s, capacity_per_s, share):
        assert second.is_kept(load, share)
        assert second.is_due(load + more, per_s + more_per_s, capacity_per_s, share)


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
        (2, 0.14, 0.3, 1, "LoadBelowTarget"),
        (4, 0.3, 0.3, 2, "SecondWorker"),
        (4, 0.14, 0.14, 1, "LoadBelowTarget"),
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
        (1, 0.3, 0.3, "1 worker alone has carried 0.30 for 60 s and 0.30 now, above 0.20 and noise: 2 workers"),
        (1, 0.2, 0.2, "1 worker alone has carried 0.20 for 60 s and 0.20 now, not both above 0.20 and noise: 1 worker"),
        (1, 0.2, None, "not known what 1 worker alone has carried for 60 s"),
        (2, 0.3, None, "1 worker alone would carry 0.30, not below 0.15: 2 workers"),
        (2, 0.1, None, "1 worker alone would carry 0.10, below 0.15: 1 worker"),
        (2, 1.5, None, "more than one anyway"),
    ],
)
def test_the_step_in_words(size, load, lately, text):
    assert [step.text for step in proposed(size, load, lately).steps if step.about == "Second"] == [text]


def test_a_lone_worker_that_does_not_tell_itself_gets_none():
    """Prometheus knows its ratio; how much that is in images nobody does."""
    silent = replace(loaded("w-0", 0.4), state=Missing("no answer"))
    assert propose([silent], 1, autoscaled().autoscaling, lately_per_s=40.0).replicas == 1


def play(size: int, *parts: tuple[float, float], **fields: Any) -> list[Decision]:
    """The turns of so many workers that share a load evenly, for so many minutes each; who is ordered serves at once."""
    policy, now_s, decisions = PolicyState(), 1000.0, []
    totals: dict[str, float] = {}
    for load, minutes in parts:
        for _ in range(round(minutes * 60 / TURN_S)):
            names = [f"w-{number}" for number in range(size)]
            totals = {name: totals.get(name, 0.0) + load / size * CAPACITY_PER_S * TURN_S for name in names}
            views = [loaded(name, load / size, round(total)) for name, total in totals.items()]
            decisions.append(decide(seen(*views), autoscaled(1, 50, **fields), RUNTIME, policy, now_s))
            policy, size, now_s = decisions[-1].state, decisions[-1].replicas.desired, now_s + TURN_S
    return decisions


def sizes(decisions: list[Decision]) -> list[int]:
    return [decision.replicas.desired for decision in decisions]


def test_it_comes_after_a_minute_and_is_told_as_what_it_is():
    decisions = play(1, (0.3, 1.5))
    ordered = sizes(decisions).index(2)
    assert 60 <= ordered * TURN_S <= 70
    assert decisions[ordered].replicas.reason == "SecondWorker"


@pytest.mark.parametrize("load", [0.01, 0.05, 0.14])
def test_a_minute_that_was_busy_calls_nobody_back_when_it_is_over(load):
    found = sizes(play(2, (1.2, 5.0), (load, 5.0), forecast="None", **AT_ONCE))
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (2, 1)


@pytest.mark.parametrize("fields", [{}, AT_ONCE])
def test_a_restart_takes_no_second_worker_away(fields):
    """It forgets the minute; the workers' own rates keep what is there."""
    decisions = play(2, (0.3, 2.0), **fields)
    assert {(decision.replicas.desired, decision.replicas.reason) for decision in decisions} == {(2, "SecondWorker")}


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
