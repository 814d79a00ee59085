"""Trend, step and noise; and what a forecast does to the size."""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_builders import RUNTIME, autoscaled, state, view, with_phase

from yolastic_operator.model import DemandInterval, Fleet, Fresh, Missing, Observation, PolicyState
from yolastic_operator.policy.decide import decide
from yolastic_operator.policy.demand import propose
from yolastic_operator.policy.forecast import FIRST_LEAD_S, Forecast, counted, forecast, lead_s, remember, steady


def intervals(*rates, seconds=5.0):
    return tuple(DemandInterval(i * seconds, (i + 1) * seconds, round(rate * seconds)) for i, rate in enumerate(rates))


def ahead(*rates, lead=40.0):
    return forecast(intervals(*rates), lead, len(rates) * 5.0)


@pytest.mark.parametrize(
    "rates",
    [
        (),
        (500,),
        (500,) * 6,
        (500, 520, 490, 505, 510, 515),
        (600, 500, 400, 300, 200, 100),
        (1000, 1000, 1000, 1000, 1000, 500),
        (0, 0, 0.6, 1.0, 1.6, 2.2),  # where nothing came is noise as well
    ],
)
def test_what_does_not_rise_is_not_forecast(rates):
    assert ahead(*rates) is None


def test_a_trend_is_carried_forward_by_the_time_a_worker_needs():
    found = ahead(400, 427, 455, 482, 510, 537)
    assert found is not None
    assert found.images_per_s == pytest.approx(537 + 5.5 * 42.5, rel=0.02)
    assert found.lead_s == 40
    assert str(found) == f"demand will be {found.images_per_s:.0f}/s in 40 s"


def test_a_forecast_is_at_most_three_times_the_demand():
    found = ahead(20, 60, 100, 140, 180, 220, lead=300)
    assert found is not None
    assert found.images_per_s == 3 * 220


def poisson(generator, rates, seconds=5.0):
    counts = (max(round(generator.gauss(rate * seconds, (rate * seconds) ** 0.5)), 0) for rate in rates)
    return [DemandInterval(i * seconds, (i + 1) * seconds, count) for i, count in enumerate(counts)]


def test_a_rise_too_slow_for_half_a_minute_shows_in_two():
    """From 60/s by 10/s a minute: within half a minute that is half a standard error of what comes in 5 s."""
    generator, short, long = random.Random(3), 0, 0
    for _ in range(500):
        looks = poisson(generator, [60 + 10 * (i * 5 / 60) for i in range(25)])
        short += forecast(looks[-6:], 45, 125.0) is not None
        found = forecast(looks, 45, 125.0)
        if found is not None and found.lead_s:
            long += 1
            assert found.images_per_s < 2 * 81
    assert short < 50
    assert long > 400


def test_the_rise_of_a_morning_shows_in_five_minutes():
    """From 120/s by 4/s a minute. What came last is above the line's end now and then: then there is nothing to be ready for."""
    generator, two, five = random.Random(4), 0, 0
    for _ in range(300):
        looks = poisson(generator, [120 + 4 * (i * 5 / 60) for i in range(61)])
        two += forecast(looks[-25:], 45, 305.0) is not None
        found = forecast(looks, 45, 305.0)
        five += found is not None and 140 < found.images_per_s < 160
    assert two < 60
    assert five > 180


@pytest.mark.parametrize("first", [60, 100, 500])
@pytest.mark.parametrize("times", [1.5, 2, 10])
@pytest.mark.parametrize("since", range(8, 25, 4))
def test_a_step_longer_ago_than_half_a_minute_stays_one(first, times, since):
    generator, carried = random.Random(since), 0
    for _ in range(50):
        looks = poisson(generator, [first] * (25 - since) + [first * times] * since)
        found = forecast(looks, 45, 125.0)
        carried += found is not None and found.images_per_s > 1.2 * first * times
    assert carried <= 2


@pytest.mark.parametrize(("first", "last", "over"), [(100, 200, 12), (20, 240, 24), (100, 300, 6), (60, 180, 24)])
def test_a_rise_that_has_ended_is_not_carried_on_for_two_minutes(first, last, over):
    """Half a minute after its end, and for as long as the long window still sees it."""
    generator, rise = random.Random(9), [first + (last - first) * i / over for i in range(over)]
    for since in range(9, 24, 3):
        found = [forecast(poisson(generator, [*rise, *[last] * since])[-25:], 45, (over + since) * 5.0) for _ in range(20)]
        assert sum(one is not None and one.images_per_s > 1.2 * last for one in found) <= 4


@pytest.mark.parametrize("first", [0, 100, 500])
@pytest.mark.parametrize("partial", [0.0, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("since", range(1, 7))
def test_a_step_is_never_carried_further(first, partial, since):
    rates = [first] * 6 + [first + partial * 1000] + [first + 1000] * 6
    found = ahead(*rates[since : since + 6])
    if found is not None:
        assert found.images_per_s <= first + 1000
        assert found.lead_s == 0


def test_a_step_counts_at_once():
    error_per_s = math.sqrt(5000) / 5
    assert ahead(100, 100, 100, 100, 100, 1000) == Forecast(1000 - error_per_s, 1000, 0.0)


@pytest.mark.parametrize("looks", [6, 25, 61])
def test_poisson_noise_is_hardly_ever_taken_for_more(looks):
    generator, false = random.Random(5), 0
    for _ in range(2000):
        rate = generator.choice([2, 20, 300])
        false += forecast(poisson(generator, [rate] * looks), 40, looks * 5.0) is not None
    assert false / 2000 < 0.003


@settings(max_examples=200)
@given(st.lists(st.integers(0, 5000), min_size=0, max_size=25), st.floats(0, 300))
def test_a_forecast_is_within_its_bounds(counts, lead):
    looks = [DemandInterval(i * 5.0, i * 5.0 + 5, count) for i, count in enumerate(counts)]
    found = forecast(looks, lead, len(counts) * 5.0)
    if found is not None:
        assert found.now_per_s == looks[-1].per_s
        error_per_s = math.sqrt(counts[-1]) / 5
        assert found.now_per_s - error_per_s <= found.images_per_s <= 3 * found.now_per_s


def test_old_intervals_say_nothing():
    looks = intervals(100, 200, 300, 400, 500, 600)
    assert forecast(looks, 40, 30) is not None
    assert forecast(looks, 40, 90) is None  # the trend may be in sight yet, the demand now is not


def worker(name, total, per_s=0.0, *, phase="Ready", worker_id=None):
    told = state(arrived_per_s=per_s)
    told = told.model_copy(update={"worker_id": worker_id or name, "phase": phase})
    told = told.model_copy(update={"load": told.load.model_copy(update={"demand_images": total})})
    return replace(view(name), state=Fresh(told))


def seen(*views):
    return Observation(Fleet(len(views), tuple(one.worker for one in views), "r1"), views)


def test_demand_is_counted_between_looks_while_workers_come_and_go():
    policy = remember(PolicyState(), seen(worker("a", 1000)), 0.0)
    assert policy.intervals == ()  # the first look only begins
    policy = remember(policy, seen(worker("a", 1500, 100)), 2.0)
    assert policy.intervals == ()  # too soon
    policy = remember(policy, seen(worker("a", 1500, 100)), 5.0)
    policy = remember(policy, seen(worker("a", 1750, 83), worker("b", 250, 50)), 10.0)
    policy = remember(policy, seen(worker("b", 750, 50)), 15.0)
    policy = remember(policy, seen(worker("b", 1250, 83), worker("c", 90000, 4)), 20.0)  # c was silent for a day
    assert [one.images for one in policy.intervals] == [500, 500, 500, 560]
    hours = policy
    for turn in range(100):
        hours = remember(hours, seen(worker("b", 1250 + turn, worker_id=f"b{turn}")), 25.0 + 5 * turn)
    assert len(hours.intervals) <= 62
    assert len(hours.totals) <= 26


def test_what_a_worker_is_sent_before_it_leaves_counts():
    policy = remember(PolicyState(), seen(worker("a", 1000), worker("b", 1000)), 0.0)
    policy = remember(policy, seen(worker("a", 1100), worker("b", 1030, phase="Draining")), 5.0)
    assert [one.images for one in policy.intervals] == [130]


def test_a_total_that_falls_is_no_demand_taken_back():
    policy = remember(PolicyState(), seen(worker("a", 1000), worker("b", 1000)), 0.0)
    policy = remember(policy, seen(worker("a", 10), worker("b", 1100)), 5.0)
    assert [one.images for one in policy.intervals] == [100]


@pytest.mark.parametrize("silent", [replace(worker("b", 10), state=Missing("hangs")), worker("b", None)])
def test_without_every_total_nothing_is_counted(silent):
    policy = remember(PolicyState(), seen(worker("a", 1000)), 0.0)
    assert remember(policy, seen(worker("a", 2000), silent), 5.0) == policy
    assert remember(policy, seen(worker("a", 2000)), 10.0).intervals == (DemandInterval(0.0, 10.0, 1000),)


def test_what_was_counted_knows_its_noise():
    assert counted((), 0.0) is None
    assert counted(intervals(100, 100), 10.0) is None  # not the whole window
    assert counted(intervals(100, 100, 100), 15.0) == pytest.approx(100 + 3 * 1500**0.5 / 15)
    assert counted(intervals(100, 100, 100), 25.0) is None


def test_the_lead_is_what_workers_needed():
    def ready(name, after_s, started_s, created_s):
        one = worker(name, 0)
        assert isinstance(one.state, Fresh)
        told = one.state.value.model_copy(update={"ready_after_s": after_s, "started_s": started_s})
        return replace(one, state=Fresh(told), worker=replace(one.worker, created_s=created_s))

    assert lead_s(seen(worker("a", 0))) == FIRST_LEAD_S + 5
    assert lead_s(seen(ready("a", 30.0, 110.0, 100.0))) == 45.0
    assert lead_s(seen(ready("a", 30.0, 99_000.0, 100.0))) == 35.0  # its container was started again
    assert lead_s(seen(ready("a", 30.0, 90.0, 100.0))) == 35.0  # its node's clock is behind
    assert lead_s(seen(ready("a", 900.0, 0.0, 0.0))) == 305.0  # nobody plans for longer
    leaving = ready("b", 90.0, 0.0, 0.0)
    assert lead_s(seen(ready("a", 30.0, 0.0, 0.0), with_phase(leaving, "Draining"))) == 35.0
    assert lead_s(seen(*(ready(name, after_s, 0.0, 0.0) for name, after_s in (("a", 20.0), ("b", 30.0), ("c", 900.0))))) == 35.0


def loaded(name, ratio, per_s):
    told = state(arrived_per_s=per_s)
    load = told.load.model_copy(update={"capacity_per_s": 100.0, "ratio": ratio})
    return replace(view(name, ratio), state=Fresh(told.model_copy(update={"load": load})))


def with_load(one, **fields):
    told = one.state.value
    return replace(one, state=Fresh(told.model_copy(update={"load": told.load.model_copy(update=fields)})))


@pytest.mark.parametrize(
    ("forecast_per_s", "in_s", "counted_per_s", "replicas", "reason"),
    [
        (None, 0.0, None, 2, "WithinTolerance"),
        (100.0, 40.0, None, 2, "WithinTolerance"),  # less than there is already
        (300.0, 40.0, None, 4, "ForecastAboveTarget"),
        (300.0, 40.0, 100.0, 4, "ForecastAboveTarget"),
        (162.0, 40.0, None, 3, "ForecastAboveTarget"),  # a line is beyond its noise: no tolerance for that
        (175.0, 0.0, None, 2, "WithinTolerance"),
        (177.0, 0.0, None, 3, "ForecastAboveTarget"),
    ],
)
def test_the_larger_proposal_wins(forecast_per_s, in_s, counted_per_s, replicas, reason):
    workers = [loaded("a", 0.8, 80.0), loaded("b", 0.8, 80.0)]
    found = None if forecast_per_s is None else Forecast(forecast_per_s, 160.0, in_s)
    proposal = propose(workers, 2, autoscaled().autoscaling, ahead=found, counted_per_s=counted_per_s)
    assert (proposal.replicas, proposal.reason) == (replicas, reason)


@pytest.mark.parametrize(
    ("steady_per_s", "rules", "replicas", "reason"),
    [
        (None, {}, 2, "WithinTolerance"),
        (159.0, {}, 2, "WithinTolerance"),
        (162.0, {}, 3, "LoadAboveTarget"),
        (162.0, {"forecast": "None"}, 2, "WithinTolerance"),
        (162.0, {"behavior": {"scaleUp": {"tolerance": "0.1"}}}, 2, "WithinTolerance"),  # who gives one means it
        (162.0, {"behavior": {"scaleDown": {"tolerance": "0.1"}}}, 3, "LoadAboveTarget"),
    ],
)
def test_what_lasts_for_a_minute_is_not_the_noise_that_the_tolerance_is_for(steady_per_s, rules, replicas, reason):
    workers = [loaded("a", 0.83, 83.0), loaded("b", 0.83, 83.0)]
    proposal = propose(workers, 2, autoscaled(1, 8, **rules).autoscaling, steady_per_s=steady_per_s)
    assert (proposal.replicas, proposal.reason) == (replicas, reason)
    (told,) = [step.text for step in proposal.steps if step.about == "Forecast"]
    assert told.endswith("demand has been at least 162/s for a minute: 3 workers") == (replicas == 3)


def test_what_a_minute_tells_is_its_lesser_half_less_noise():
    calm, busy = [100.0] * 6, [200.0] * 6
    assert steady(intervals(*calm, *calm), 60.0) == pytest.approx(100 - 2 * math.sqrt(100 / 30))
    assert steady(intervals(*calm, *busy), 60.0) == steady(intervals(*busy, *calm), 60.0) == steady(intervals(*calm, *calm), 60.0)
    assert steady(intervals(*calm), 30.0) is None
    assert steady(intervals(*calm, *calm), 90.0) is None
    assert steady(intervals(*[0.0] * 12), 60.0) == 0


@pytest.mark.parametrize(
    ("ratio", "counted_per_s", "replicas", "reason"),
    [
        (1.6, None, 4, "LoadAboveTarget"),
        (1.6, 500.0, 4, "LoadAboveTarget"),  # what was counted beside them orders nothing either: that is the forecast's
        (1.6, 320.0, 4, "LoadAboveTarget"),
        (1.6, 200.0, 3, "LoadAboveTarget"),
        (1.6, 100.0, 2, "WithinTolerance"),
        (1.6, 10.0, 2, "WithinTolerance"),
        (0.5, 10.0, 2, "SurvivorsTooBusy"),
        (0.05, 500.0, 1, "LoadBelowTarget"),
    ],
)
def test_what_was_counted_twice_orders_nothing_and_shrinks_nothing(ratio, counted_per_s, replicas, reason):
    workers = [loaded("a", ratio, 100 * ratio), loaded("b", ratio, 100 * ratio)]
    proposal = propose(workers, 2, autoscaled().autoscaling, counted_per_s=counted_per_s)
    assert (proposal.replicas, proposal.reason) == (replicas, reason)


def test_a_worker_never_counts_for_less_than_none():
    """Of 320/s that the two tell of, 120/s were counted: more than the one has is not taken off the other as well."""
    uneven = [loaded("a", 0.1, 10.0), loaded("b", 3.1, 310.0)]
    assert propose(uneven, 2, autoscaled().autoscaling, counted_per_s=120.0).replicas == 3


def test_a_forecast_of_less_than_there_is_asks_in_words_for_what_there_is():
    workers = [loaded("a", 0.8, 80.0), loaded("b", 0.8, 80.0)]
    proposal = propose(workers, 2, autoscaled().autoscaling, ahead=Forecast(60.0, 50.0, 40.0))
    assert [step.text for step in proposal.steps if step.about == "Forecast"] == ["demand will be 60/s in 40 s: 2 workers"]


def test_what_was_refused_counts_twice_as_well_as_what_was_accepted():
    refusing = [with_load(loaded(name, 1.6, 80.0), refused_per_s=80.0) for name in ("a", "b")]
    assert propose(refusing, 2, autoscaled().autoscaling, counted_per_s=200.0).replicas == 3


@pytest.mark.parametrize(
    "workers",
    [
        [replace(loaded("a", 0.8, 80.0), state=Missing("no answer")), loaded("b", 0.8, 80.0)],
        [with_load(loaded(name, 0.8, 80.0), capacity_per_s=0.0) for name in ("a", "b")],
    ],
    ids=["one is silent", "no speed is known"],
)
def test_where_a_load_ratio_is_all_that_is_known_no_rates_are_compared(workers):
    """Prometheus knows it. The rates of the others alone would look like far too little beside the demand of all."""
    rules = autoscaled().autoscaling
    assert propose(workers, 2, rules, ahead=Forecast(300.0, 160.0, 40.0)).replicas == 2
    calm = [replace(one, load_ratio=Fresh(0.05)) for one in workers]
    assert propose(calm, 2, rules, carried_per_s=160.0).replicas == 1


def test_partial_figures_are_not_lessened_by_what_was_counted_of_all():
    workers = [loaded("a", 2.4, 240.0), loaded("b", 2.4, 240.0), replace(loaded("c", 0.0, 0.0), load_ratio=Missing("no answer"))]
    rules = autoscaled().autoscaling
    assert propose(workers, 3, rules, counted_per_s=300.0).replicas == propose(workers, 3, rules).replicas == 6


def test_what_workers_carried_that_have_just_gone_is_not_shrunk_away():
    """Four of ten end at once. The other six say what they were sent until then; they will be sent all of it."""
    gone = [view(f"new-{i}", phase="Starting") for i in range(4)]
    workers = [*(loaded(f"w{i}", 0.7, 70.0) for i in range(6)), *gone]
    quick = autoscaled(behavior={"scaleDown": {"stabilizationWindowSeconds": 0}}).autoscaling
    alone = propose(workers, 10, quick)
    assert (alone.replicas, alone.reason) == (7, "LoadBelowTarget")
    result = propose(workers, 10, quick, carried_per_s=700.0)
    assert (result.replicas, result.reason) == (10, "SurvivorsTooBusy")
    assert "with what came to workers that have just gone" in result.message
    # Less load than before is less load, whoever has gone.
    assert propose(workers, 10, quick, carried_per_s=400.0).replicas == 7


def test_a_shrink_after_some_workers_ended_waits_until_the_others_have_their_load():
    quick, policy = autoscaled(behavior={"scaleDown": {"stabilizationWindowSeconds": 0}}), PolicyState()
    for second in range(0, 30, 5):
        views = [worker(f"w{i}", 350 * second // 5, 70.0) for i in range(10)]
        policy = decide(seen(*(with_ratio(one, 0.7) for one in views)), quick, RUNTIME, policy, float(second)).state
    left = [with_ratio(worker(f"w{i}", 350 * 5 + 80, 71.0), 0.71) for i in range(6)]
    gone = [view(f"new-{i}", phase="Starting") for i in range(4)]
    assert decide(seen(*left, *gone), quick, RUNTIME, policy, 26.0).replicas.desired == 10


def test_a_shrink_leaves_enough_for_what_was_counted_and_not_for_its_noise_as_well():
    quick, policy = autoscaled(behavior={"scaleDown": {"stabilizationWindowSeconds": 0}}), PolicyState()
    for second in range(0, 30, 5):
        views = [with_ratio(worker(f"w{i}", 42 * second, 42.0), 0.42) for i in range(3)]
        decision = decide(seen(*views), quick, RUNTIME, policy, float(second))
        policy = replace(decision.state, desired_replicas=3)
    assert counted(policy.intervals, 25.0) > 2 * 65.0 > 3 * 42.0
    assert decision.replicas.desired == 2


def with_ratio(one, ratio):
    return with_load(replace(one, load_ratio=Fresh(ratio)), capacity_per_s=100.0, ratio=ratio)
