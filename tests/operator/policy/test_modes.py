"""Modes and the fallback: what is decided, what is only told, and what holds when nothing is known."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_builders import RUNTIME, autoscaled, fleet, seen, spec, state, view, with_phase

from yolastic_operator.model import Fresh, Missing, PolicyState, Stale, Tiers
from yolastic_operator.policy.decide import decide

NOW_S = 10_000.0
QUICK = {"scaleDown": {"stabilizationWindowSeconds": 0}}
GONE = Missing("no answer within 2 s")
EMPTY = PolicyState()


def decided(observation, given_spec, policy=EMPTY, now_s=NOW_S):
    return decide(observation, given_spec, RUNTIME, policy, now_s)


def silent(size, **fields):
    return seen(*(view(f"w-{i}", GONE, GONE) for i in range(size)), **fields)


def told(decision, kind):
    found = next(update for update in decision.conditions if update.type == kind)
    return found.status, found.reason


def texts(decision, about):
    return [step.text for step in decision.explanation if step.about == about]


# Modes --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observation", "advised"),
    [(fleet([1.32] * 2), 4), (fleet([0.8] * 2), 2), (fleet([0.0] * 4), 1), (fleet([0.5]), 1), (seen(replicas=0), 1)],
)
def test_advisory_tells_what_active_would_do(observation, advised):
    active = decided(observation, autoscaled(behavior=QUICK))
    result = decided(observation, autoscaled(behavior=QUICK, mode="Advisory"))
    assert active.replicas.desired == result.replicas.advised == advised
    assert (result.replicas.desired, result.victims) == (observation.fleet.replicas, ())
    assert (result.replicas.reason, result.replicas.recommended) == (active.replicas.reason, active.replicas.recommended)
    assert (result.mode, told(result, "ScalingActive")) == ("Advisory", ("False", "Advisory"))
    assert result.ceiling == active.ceiling


def test_paused_holds_the_size_even_outside_the_bounds_and_the_ceiling_there_is():
    working = state(granted=Tiers(2, 8))
    paused = autoscaled(2, 3, mode="Paused", behavior=QUICK)
    for size, load in ((1, 0.5), (5, 9.0), (5, 0.0)):
        result = decided(fleet([load] * size, told=working), paused, PolicyState(desired_replicas=3))
        assert (result.replicas.desired, result.replicas.advised, result.victims) == (size, None, ())
        assert (result.replicas.reason, result.replicas.limited_by) == ("Paused", None)
        assert result.ceiling.tiers == Tiers(2, 8)
        assert result.ceiling.message.startswith("held at ceiling 8, base 2; ceiling 32, base 8")
        assert told(result, "ScalingActive") == ("False", "Paused")
    assert texts(result, "Mode") == ["Paused: 5 workers held, 2 would be wanted"]


def test_paused_after_advisory_holds_what_was_granted_not_what_was_advised():
    working = state(granted=Tiers(2, 8))
    advised = decided(fleet([0.5], told=working), autoscaled(mode="Advisory"), PolicyState())
    assert advised.state.tiers == advised.ceiling.tiers == Tiers(8, 32)
    assert decided(fleet([0.5], told=working), autoscaled(mode="Paused"), advised.state).ceiling.tiers == Tiers(2, 8)


def test_active_again_starts_from_the_size_there_is():
    """Somebody else sized it meanwhile: that is where the next decision begins, and its windows have looked on."""
    paused = decided(fleet([0.1] * 4), autoscaled(mode="Paused"), PolicyState(desired_replicas=2))
    assert paused.state.desired_replicas == 4
    active = decided(fleet([0.1] * 4), autoscaled(), paused.state, NOW_S + 5)
    assert (active.replicas.desired, active.replicas.reason) == (4, "ScaleDownStabilized")


def test_sizes_that_others_order_count_for_the_rates():
    slow = {"scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]}}
    first = decided(fleet([0.8]), autoscaled(mode="Advisory", behavior=slow))
    second = decided(fleet([3.0] * 3), autoscaled(mode="Advisory", behavior=slow), first.state, NOW_S + 5)
    assert [(event.time_s, event.change) for event in second.state.scale_events] == [(NOW_S + 5, 2)]
    third = decided(fleet([3.0] * 3), autoscaled(mode="Advisory", behavior=slow), second.state, NOW_S + 10)
    assert (third.replicas.advised, third.replicas.limited_by) == (3, "ScaleUpLimit")


# Fallback -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fallback", "lost_for_s", "size", "desired", "reason", "condition"),
    [
        ({}, 0, 3, 3, "MetricsUnavailable", ("False", "Waiting")),
        ({}, 179, 3, 3, "MetricsUnavailable", ("False", "Waiting")),
        ({}, 180, 3, 3, "MetricsUnavailable", ("True", "MetricOutage")),
        ({"policy": "Static", "replicas": 5}, 179, 3, 3, "MetricsUnavailable", ("False", "Waiting")),
        ({"policy": "Static", "replicas": 5}, 180, 3, 5, "FallbackStatic", ("True", "MetricOutage")),
        ({"policy": "Static", "replicas": 2}, 180, 3, 2, "FallbackStatic", ("True", "MetricOutage")),
        ({"policy": "Static", "replicas": 3}, 180, 3, 3, "FallbackStatic", ("True", "MetricOutage")),
        ({"policy": "AtLeast", "replicas": 5}, 180, 3, 5, "FallbackAtLeast", ("True", "MetricOutage")),
        ({"policy": "AtLeast", "replicas": 2}, 180, 3, 3, "FallbackAtLeast", ("True", "MetricOutage")),
        ({"policy": "AtLeast", "replicas": 5, "failureDurationSeconds": 9}, 9, 3, 5, "FallbackAtLeast", ("True", "MetricOutage")),
    ],
)  # fmt: skip
def test_the_fallback_and_its_hour(fallback, lost_for_s, size, desired, reason, condition):
    given_spec = autoscaled(maximum=8, behavior=QUICK, fallback=fallback)
    policy = PolicyState(desired_replicas=size, lost_s=NOW_S - lost_for_s)
    result = decided(silent(size), given_spec, policy)
    assert (result.replicas.desired, result.replicas.reason) == (desired, reason)
    assert told(result, "FallbackActive") == condition
    assert told(result, "ScalingActive") == ("False", "MetricsUnavailable")
    assert (result.replicas.recommended, result.replicas.lost_for_s) == (None, lost_for_s)
    assert len(result.victims) == max(size - desired, 0)
    assert f"no figures for {lost_for_s} s" in texts(result, "Fallback")[0]


def test_the_fallback_takes_the_same_way_as_any_size():
    """Bounds, rates and windows: with the default window a Static shrink waits for what was wanted before the outage."""
    wide = {"policy": "Static", "replicas": 8}
    rate = {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}
    up = decided(silent(3), autoscaled(maximum=8, fallback=wide, behavior=rate), PolicyState(lost_s=0.0))
    assert (up.replicas.desired, up.replicas.limited_by) == (4, "ScaleUpLimit")
    low = {"policy": "Static", "replicas": 1}
    down = decided(silent(3), autoscaled(maximum=8, fallback=low), PolicyState(lost_s=0.0))
    assert (down.replicas.desired, down.replicas.reason) == (3, "ScaleDownStabilized")
    below = decided(silent(3), autoscaled(2, 8, fallback=low, behavior=QUICK), PolicyState(lost_s=0.0))
    assert (below.replicas.desired, below.replicas.limited_by) == (2, "TooFewReplicas")


def test_one_fresh_figure_ends_the_outage():
    lost = decided(silent(2), autoscaled(maximum=8))
    assert lost.state.lost_s == NOW_S
    still = decided(silent(2), autoscaled(maximum=8), lost.state, NOW_S + 60)
    assert (still.state.lost_s, still.replicas.lost_for_s) == (NOW_S, 60)
    back = decided(seen(view("w-0", 0.5), view("w-1", GONE, GONE)), autoscaled(maximum=8), still.state, NOW_S + 120)
    assert (back.state.lost_s, back.replicas.lost_for_s) == (None, None)
    assert told(back, "FallbackActive") == ("False", "NotNeeded")


def test_without_anybody_to_ask_an_outage_neither_begins_nor_ends():
    starting = seen(view("w-0", phase="Starting"))
    assert decided(starting, autoscaled()).state.lost_s is None
    assert decided(starting, autoscaled(), PolicyState(lost_s=NOW_S - 50)).state.lost_s == NOW_S - 50


def test_the_fallback_is_advice_in_advisory_and_nothing_in_paused():
    fallback = {"policy": "AtLeast", "replicas": 5}
    lost = PolicyState(lost_s=0.0)
    advisory = decided(silent(3), autoscaled(maximum=8, fallback=fallback, mode="Advisory"), lost)
    assert (advisory.replicas.desired, advisory.replicas.advised) == (3, 5)
    assert told(advisory, "FallbackActive") == ("True", "MetricOutage")
    paused = decided(silent(3), autoscaled(maximum=8, fallback=fallback, mode="Paused"), lost)
    assert paused.replicas.desired == 3
    assert told(paused, "FallbackActive") == ("False", "Paused")


def test_a_fixed_size_needs_no_fallback():
    result = decided(silent(2), spec(replicas=2), PolicyState(lost_s=0.0))
    assert (result.state.lost_s, told(result, "FallbackActive")) == (None, ("False", "NotNeeded"))


# The explanation ----------------------------------------------------------------------------------------------------------


def test_the_explanation_has_every_step_of_the_sum():
    result = decided(fleet([1.32] * 2), autoscaled(maximum=3))
    assert [(step.about, step.text) for step in result.explanation][:-1] == [
        ("Workers", "2 ordered; 2 serving"),
        ("Figures", "fresh from 2 of 2 workers; 2 asked directly, up to 0 s old; 2 workers told of 0 images/s and 0 queued"),
        ("Load", "load ratio 1.32 over 2 workers, target 0.80: 4 workers"),
        ("Survivors", "the load does not ask for fewer"),
        ("Forecast", "not known: demand was counted too few times lately"),
        ("Fallback", "not needed, there are figures"),
        ("Windows", "limited to maxReplicas 3: 3 workers (1 to 3 allowed, 2 before)"),
        ("Result", "3 workers: LoadAboveTarget"),
    ]
    assert result.explanation[-1].text == result.ceiling.message


def test_the_explanation_tells_ages_sources_and_who_is_silent():
    by_prometheus = replace(view("a", Fresh(0.5, 7.4)), load_source="Prometheus")
    younger = replace(view("b", Fresh(0.5, 2.0)), load_source="Prometheus")
    old = view("c", Stale(0.1, 64.0))
    views = [by_prometheus, younger, view("d", 0.5), old, *(view(f"x-{i}", GONE, GONE) for i in range(4))]
    result = decided(seen(*views, prometheus=Stale(61.0, 61.0)), autoscaled(maximum=9, forecast="None"))
    (figures,) = texts(result, "Figures")
    assert figures.startswith(
        "fresh from 3 of 8 workers; 2 by Prometheus, up to 7 s old; 1 asked directly, up to 0 s old; 4 workers told"
    )
    assert "; c: figures are 64 s old; x-0: no answer within 2 s; x-1: no answer" in figures
    assert figures.endswith("; and 2 more without; Prometheus has nothing newer than 61 s")
    assert texts(result, "Forecast") == ["not asked for (forecast: None)"]
    assert texts(decided(seen(), autoscaled()), "Figures") == ["nobody serves, so there is nobody to ask"]


@pytest.mark.parametrize(
    ("ratios", "text"),
    [
        ([0.35] * 2, "2 workers, 1 worker would carry 0.70 each, not below 0.65"),
        ([0.3] * 2, "1 worker would carry 0.60 each, below 0.65"),
        ([0.0] * 2, "1 worker would carry 0.00 each, below 0.65"),
    ],
)
def test_the_explanation_tells_the_check_on_the_survivors(ratios, text):
    assert texts(decided(fleet(ratios), autoscaled(behavior=QUICK)), "Survivors") == [text]


def test_no_room_is_a_step_of_its_own():
    result = decided(seen(view("a", 3.0), view("b", phase="Pending", unschedulable=True)), autoscaled())
    assert texts(result, "Room") == ["the scheduler finds no place for 1 worker of 2, not asking for more than 2"]


# Invariants ---------------------------------------------------------------------------------------------------------------

READINGS = st.one_of(st.floats(0, 10), st.builds(Stale, st.floats(0, 10), st.floats(60, 100)), st.just(GONE))
PHASES = st.sampled_from(["Ready"] * 6 + ["Starting", "Pending", "Draining", "Failed", "Terminating"])
FALLBACKS = st.one_of(
    st.just({}),
    st.builds(
        lambda policy, replicas, after_s: {"policy": policy, "replicas": replicas, "failureDurationSeconds": after_s},
        st.sampled_from(["Hold", "Static", "AtLeast"]),
        st.integers(1, 8),
        st.sampled_from([1, 30, 180]),
    ),
)
AFTER_S = st.sampled_from([0.0, 1.0, 5.0, 60.0, 400.0])
BEHAVIORS = st.sampled_from([{}, {"behavior": QUICK}, {"behavior": {"scaleDown": {"selectPolicy": "Disabled"}}}])


@st.composite
def observations(draw: Any) -> Any:
    views = []
    for i, (phase, reading) in enumerate(draw(st.lists(st.tuples(PHASES, READINGS), max_size=8))):
        views.append(view(f"w-{i}", reading, phase=phase, unschedulable=phase == "Pending" and draw(st.booleans())))
    return seen(*views, replicas=draw(st.none() | st.integers(0, 10)))


@settings(max_examples=150)
@given(
    st.lists(st.tuples(observations(), AFTER_S, st.sampled_from(["Active", "Advisory", "Paused"])), min_size=1, max_size=6),
    FALLBACKS,
    BEHAVIORS,
)
def test_in_any_history_of_modes_only_active_moves_and_only_within_bounds(turns, fallback, behavior):
    policy, now_s = EMPTY, NOW_S
    for observation, after_s, mode in turns:
        now_s += after_s
        given_spec = autoscaled(2, 8, mode=mode, fallback=fallback, **behavior)
        decision = decided(observation, given_spec, policy, now_s)
        assert decided(observation, given_spec, policy, now_s) == decision
        again = decided(observation, given_spec, decision.state, now_s)
        if mode == "Active":
            assert 2 <= decision.replicas.desired <= 8
        else:
            ordered = observation.fleet.replicas
            assert decision.replicas.desired == (2 if ordered is None else ordered)
            assert decision.victims == ()
            assert decision.replicas.advised is None or 2 <= decision.replicas.advised <= 8
        assert again.replicas.desired == decision.replicas.desired
        policy = decision.state


@settings(max_examples=150)
@given(st.integers(1, 8), st.lists(AFTER_S, min_size=1, max_size=8), FALLBACKS, BEHAVIORS, st.booleans())
def test_missing_figures_never_shrink_whatever_the_fallback_and_static_not_below_its_own_size(
    size, gaps_s, fallback, behavior, restarts
):
    policy, now_s, current = EMPTY, NOW_S, size
    given_spec = autoscaled(1, 8, fallback=fallback, **behavior)
    floor = min(size, fallback["replicas"]) if fallback.get("policy") == "Static" else size
    for after_s in gaps_s:
        now_s += after_s
        decision = decided(silent(current), given_spec, policy, now_s)
        assert decision.replicas.desired >= floor
        if not decision.replicas.fallback:
            assert decision.replicas.desired == current
        current, policy = decision.replicas.desired, decision.state
        if restarts:  # what a new process knows: the size ordered, and since when there have been no figures
            policy = PolicyState(lost_s=policy.lost_s)


@settings(max_examples=100)
@given(st.integers(1, 8), st.floats(0, 400), FALLBACKS)
def test_a_restart_amid_an_outage_changes_nothing(size, lost_for_s, fallback):
    given_spec = autoscaled(1, 8, fallback=fallback)
    lived = PolicyState(desired_replicas=size, lost_s=NOW_S - lost_for_s)
    before = decided(silent(size), given_spec, lived)
    after = decided(silent(size), given_spec, PolicyState(lost_s=NOW_S - lost_for_s))
    if fallback.get("policy") == "Static" and fallback["replicas"] < size:
        assert after.replicas.desired >= before.replicas.desired  # the window begins anew: later, never sooner
    else:
        assert (after.replicas, after.conditions) == (before.replicas, before.conditions)


@settings(max_examples=100)
@given(st.lists(st.floats(0, 5), min_size=2, max_size=6), st.data())
def test_partial_figures_may_grow_and_never_shrink(ratios, data):
    lost = data.draw(st.sets(st.integers(0, len(ratios) - 1), min_size=1, max_size=len(ratios) - 1))
    unknown = st.sampled_from([GONE, Stale(0.0, 70.0)])
    views = [view(f"w-{i}", data.draw(unknown) if i in lost else ratio) for i, ratio in enumerate(ratios)]
    policy = PolicyState(lost_s=0.0)  # however long the outage of the others has been
    result = decided(seen(*views), autoscaled(behavior=QUICK, fallback={"policy": "Static", "replicas": 1}), policy)
    assert result.replicas.desired >= len(ratios)
    assert (result.replicas.active, result.replicas.fallback, result.state.lost_s) == (True, False, None)
    # Growth is that of the calculation with the unknown taken as idle.
    idle = [view(f"w-{i}", 0.0 if i in lost else ratio) for i, ratio in enumerate(ratios)]
    assert result.replicas.desired <= max(decided(seen(*idle), autoscaled(behavior=QUICK)).replicas.desired, len(ratios))


@pytest.mark.parametrize("outage_s", [100.0, 310.0, 3600.0])
def test_the_first_figures_after_an_outage_shrink_nothing(outage_s):
    size, given_spec = 10, autoscaled(1, 20)
    policy = decided(fleet([0.78] * size), given_spec).state
    silence_ends_s, now_s = NOW_S + outage_s, NOW_S
    while now_s < silence_ends_s:
        now_s += 5.0
        policy = decided(silent(size), given_spec, policy, now_s).state
    for _ in range(30):  # clients come back one by one
        now_s += 5.0
        decision = decided(fleet([0.02] * size), given_spec, policy, now_s)
        policy = decision.state
        assert (decision.replicas.desired, decision.victims) == (size, ())
        assert decision.replicas.reason == "ScaleDownStabilized"


def test_a_size_that_somebody_else_ordered_is_where_the_sum_starts():
    policy = decided(fleet([0.75]), autoscaled(1, 20)).state
    another = seen(view("w-0", 1.5), with_phase(view("w-1", Missing("starting")), "Starting"))
    agreed = decided(another, autoscaled(1, 20), policy, NOW_S + 5)
    assert (agreed.replicas.desired, agreed.victims) == (2, ())
    idle = decided(fleet([0.04, 0.04, 0.04]), autoscaled(1, 20, behavior=QUICK), policy, NOW_S + 5)
    assert idle.replicas.desired == 1
    # Not what is left of an order of one's own: there workers are leaving, and it is larger than what is wanted.
    leaving = decided(fleet([0.04, 0.04, 0.04]), autoscaled(1, 20, behavior=QUICK), idle.state, NOW_S + 10)
    assert leaving.replicas.desired == 1
    assert len(leaving.victims) == 2


def test_growing_back_to_what_a_window_holds_is_not_called_load():
    policy = decided(fleet([0.78] * 10), autoscaled(1, 20)).state
    capped = decided(fleet([0.05] * 10), autoscaled(1, 3), policy, NOW_S + 5)
    assert capped.replicas.desired == 3
    policy = replace(capped.state, ordered_replicas=3)
    again = decided(fleet([0.05] * 3), autoscaled(1, 20), policy, NOW_S + 60)
    assert again.replicas.desired > 3
    assert again.replicas.reason in {"ScaleDownStabilized", "ScaleUpLimit"}
