import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_builders import autoscaled, fleet, seen, state, view

from yolastic_operator.model import DemandSample, Fresh, Missing, PolicyState, Stale
from yolastic_operator.policy.demand import propose, remember, sample, survivors_needed
from yolastic_operator.policy.replicas import current_size


def proposed(observation, current=None, **fields):
    return propose(
        observation.workers, observation.fleet.replicas if current is None else current, autoscaled(**fields).autoscaling
    )


@pytest.mark.parametrize(
    ("ratios", "starting", "replicas", "reason"),
    [
        ([1.32, 1.32], 0, 4, "LoadAboveTarget"),
        ([0.85, 0.85], 0, 2, "WithinTolerance"),
        ([0.88], 0, 1, "WithinTolerance"),  # 1.1 of the target: inclusive
        ([0.89], 0, 2, "LoadAboveTarget"),
        ([1.32, 1.32], 2, 4, "EnoughStarting"),  # the two that start are what is needed: nothing is ordered twice
        ([1.3, 1.3], 1, 3, "EnoughStarting"),  # nor is a fourth for what the third brings within the tolerance
        ([0.9], 3, 4, "EnoughStarting"),  # nor are those called back that start while the one that serves has too much
        ([2.4, 2.4], 1, 6, "LoadAboveTarget"),
        ([0.5, 0.5], 0, 2, "SurvivorsTooBusy"),
        ([0.5], 0, 1, "LastWorker"),
        ([0.35, 0.35], 0, 2, "SurvivorsTooBusy"),  # Kubernetes would go to 1, which then ran at 0.70
        ([0.07, 0.07], 0, 1, "LoadBelowTarget"),
        ([0.32, 0.32], 0, 2, "SecondWorker"),  # one alone could carry it, and no more than half as much again
        ([0.0, 0.0, 0.0], 0, 1, "LoadBelowTarget"),
        ([0.4] * 10, 0, 7, "LoadBelowTarget"),  # 4.0/6 = 0.67 would be too much
    ],
)
def test_what_the_load_asks_for(ratios, starting, replicas, reason):
    result = proposed(fleet(ratios, starting=starting))
    assert (result.replicas, result.reason) == (replicas, reason)


def test_the_sum_in_words():
    assert proposed(fleet([1.3, 1.34])).message == "load ratio 1.32 over 2 workers, target 0.80: 4 workers"
    held = proposed(fleet([0.35, 0.35]))
    assert (
        held.message == "load ratio 0.35 over 2 workers, target 0.80: 2 workers, 1 worker would carry 0.70 each, not below 0.65"
    )


@pytest.mark.parametrize(("ratios", "current", "replicas"), [([0.8] * 2, 1, 2), ([0.88] * 2, 1, 2), ([0.2] * 3, 1, 1)])
def test_who_could_not_be_told_to_leave_yet_is_kept_when_the_others_could_not_carry_its_load(ratios, current, replicas):
    """All of them serve; the mean of so many says nothing of the size that is wanted, and no more than there are is asked for."""
    assert proposed(fleet(ratios), current).replicas == replicas


def test_stale_and_missing_figures_count_as_missing_samples():
    known = view("a", 1.6)
    for reading in (Stale(0.0, 90.0), Missing("no series")):
        assert proposed(seen(known, view("b", reading))).replicas == 2  # the unknown one may be idle: 1.6/2 is the target
    assert proposed(seen(view("a", 4.0), view("b", Missing("no series")))).replicas == 5


def test_no_shrink_while_one_serving_worker_is_unknown():
    views = [view(f"w-{i}", 0.05) for i in range(9)]
    partial = proposed(seen(*views, view("x", Missing("no series"))))
    assert (partial.replicas, partial.reason) == (10, "PartialMetrics")
    assert "x: no series" in partial.message
    assert proposed(seen(*views, view("x", 0.05))).replicas == 2


def test_workers_that_leave_or_failed_do_not_count():
    views = [
        view("a", 0.8),
        view("b", 5.0, phase="Terminating"),
        view("c", 5.0, phase="Failed"),
        view("d", 5.0, phase="Draining"),
    ]
    views.append(view("e", 5.0, state(phase="Draining")))
    result = proposed(seen(*views))
    assert (result.load_ratio, result.replicas) == (0.8, 5)


def test_no_figures_at_all_is_no_proposal():
    silent = proposed(seen(view("a", Missing("no answer")), view("b", Stale(0.1, 40.0))))
    assert (silent.replicas, silent.load_ratio) == (None, None)
    assert "a: no answer" in silent.message
    assert proposed(seen(view("a", phase="Starting"))).replicas is None
    assert proposed(seen(replicas=3)).replicas is None


def test_source_is_prometheus_only_when_all_figures_are_from_it():
    from dataclasses import replace

    one, two = view("a"), replace(view("b"), load_source="Prometheus")
    assert proposed(seen(one, two)).source == "Workers"
    assert proposed(seen(two)).source == "Prometheus"


@given(st.integers(0, 10**6), st.integers(1, 99))
def test_survivors_are_the_fewest_that_stay_below(total_milli, percent):
    needed = survivors_needed(total_milli, percent)
    assert total_milli / needed < percent * 10
    assert needed == 1 or total_milli / (needed - 1) >= percent * 10


@given(st.lists(st.floats(0, 20), min_size=1, max_size=20), st.integers(0, 5), st.floats(0, 20))
def test_more_load_never_asks_for_fewer(ratios, starting, more):
    less = proposed(fleet(ratios, starting=starting)).replicas
    assert proposed(fleet([ratio + more for ratio in ratios], starting=starting)).replicas >= less


def test_demand_counts_refused_and_queued_and_needs_every_worker():
    told = state(arrived_per_s=100.0)
    told = told.model_copy(update={"load": told.load.model_copy(update={"refused_per_s": 20.0, "queue_images": 30})})
    assert sample(seen(view("a", told=told), view("b", told=told)), 5.0) == DemandSample(5.0, 2 * 122.0)
    assert sample(seen(view("a", told=told), view("b", told=Stale(told, 20.0))), 5.0) is None
    assert sample(seen(), 5.0) is None


def test_an_hour_of_demand_one_sample_a_minute():
    demand = ()
    for second in range(0, 2 * 3600, 5):
        demand = remember(demand, DemandSample(float(second), float(second % 60 or 90)), float(second))
    assert len(demand) <= 61
    assert demand[0].time_s >= 2 * 3600 - 5 - 3600
    assert {one.images_per_s for one in demand} == {90.0}, "the largest of each minute, not the last"
    assert remember(demand, None, 4 * 3600.0) == ()


def test_current_size_after_a_restart_leaves_out_those_told_to_leave():
    draining = seen(view("a"), view("b"), view("c", told=Fresh(state(phase="Draining"))))
    assert current_size(draining, PolicyState(), 1) == 2
    assert current_size(draining, PolicyState(desired_replicas=3), 1) == 3
    assert current_size(seen(view("a"), view("b", phase="Terminating"), replicas=1), PolicyState(), 1) == 1, "it is off already"
    assert current_size(seen(replicas=None), PolicyState(), 2) == 2
