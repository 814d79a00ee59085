"""Modes, outages of figures and explanations over many turns of the loop, on a cluster in memory."""

import asyncio
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolastic_operator.cluster.base import ClusterError

FAST = {"scaleDown": {"stabilizationWindowSeconds": 30}}
ELASTIC = {"minReplicas": 1, "maxReplicas": 6, "behavior": FAST}
CAPACITY_PER_S = 32 / 0.052
"""Images/s of a worker of the fake at a ceiling of 32."""
SILENCE = ClusterError("no route to the workers")


def effects(it: Any) -> list[tuple[str, Any]]:
    return [(verb, about) for verb, about in it.cluster.calls if verb != "ensure"]


def told(it: Any, reason: str) -> list[str]:
    return [event.message for event in it.cluster.events if event.reason == reason]


def explained(it: Any, about: str) -> list[str]:
    return [step["text"] for step in it.status["autoscaling"]["explanation"] if step["about"] == about]


def test_advisory_tells_all_and_touches_nothing(world: Any) -> None:
    it = world(autoscaling={**ELASTIC, "mode": "Advisory"})
    it.run(30)
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    it.run(120)
    assert effects(it) == []
    assert (it.cluster.replicas, it.ready) == (1, 1)
    autoscaling = it.status["autoscaling"]
    assert (autoscaling["recommendedReplicas"], autoscaling["advisedReplicas"], it.status["desiredReplicas"]) == (3, 3, 1)
    assert it.figures.recommendations[-1] == 3
    assert it.figures.desired[-1] == (1, 1)
    size, ceiling = autoscaling["decisions"][:2]
    assert (size["from"], size["to"], size["reason"], size["advice"]) == (1, 3, "LoadAboveTarget", True)
    assert (ceiling["batchTo"], ceiling["advice"]) == (32, True)
    assert it.figures.reasons == ["AdviceLimitedBySpec", "AdviceLoadAboveTarget"]
    assert [re.split("[:;]", message)[0] for message in told(it, "Advised")] == [
        "batches of up to 32 images",
        "3 workers instead of 1 advised",
    ]
    assert explained(it, "Result") == ["1 worker, 3 advised: LoadAboveTarget"]
    assert told(it, "Rescaled") == told(it, "BatchCeilingChanged") == []
    assert it.condition("ScalingActive")["reason"] == "Advisory"
    assert it.condition("Ready")["status"] == "True"
    assert it.condition("Progressing")["reason"] == "Stable"
    assert it.status["batch"]["ceiling"] == 32
    assert it.status["batch"]["appliedReplicas"] == 0
    assert explained(it, "Written") == ["nothing, the mode is Advisory"]

    it.change(autoscaling=ELASTIC)
    it.run_until(lambda: it.ready == 3)
    assert len(told(it, "BatchCeilingChanged")) == 1  # now it was granted
    assert "advisedReplicas" not in it.status["autoscaling"]
    assert it.condition("ScalingActive")["reason"] == "ValidMetrics"


def test_advice_that_stands_is_told_once_and_a_restart_tells_nothing_new(world: Any) -> None:
    it = world(autoscaling={**ELASTIC, "mode": "Advisory"})
    it.run(30)
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    it.run(900)
    for _ in range(3):
        it.restart()
        it.run(30)
    assert len(told(it, "Advised")) == 2
    it.run(900)  # by then the base tier has followed the demand
    written = len(it.cluster.statuses)
    it.run(600)
    assert len(it.cluster.statuses) == written


def test_advice_in_gusts_is_told_seldom(world: Any) -> None:
    it = world(autoscaling={**ELASTIC, "mode": "Advisory"})
    it.run(30)
    for step in range(120):
        it.cluster.demand_per_s = (1.4, 2.2, 3.9)[step % 3] * CAPACITY_PER_S
        it.run(5)
    assert len(told(it, "Advised")) <= 12


@pytest.mark.parametrize("mode", ["Advisory", "Paused"])
def test_a_size_that_others_order_is_left_alone(world: Any, mode: str) -> None:
    """A stock autoscaler on the Deployment, fed with the workers' own load ratio, has the word."""
    it = world(autoscaling={**ELASTIC, "mode": mode})
    it.run(30)
    for size in (4, 8, 2):
        it.cluster.replicas = size
        it.run(60)
        assert (it.cluster.replicas, it.ready, it.status["desiredReplicas"]) == (size, size, size)
    assert effects(it) == []


def test_paused_holds_and_goes_on_where_it_was(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    it.run_until(lambda: it.ready == 3)
    it.run(60)
    it.cluster.calls.clear()
    it.change(autoscaling={**ELASTIC, "mode": "Paused"}, memory={"headroomPercent": 80})
    it.cluster.demand_per_s = 5.0 * CAPACITY_PER_S
    it.run(120)
    it.cluster.demand_per_s = 0.1 * CAPACITY_PER_S
    it.run(120)
    assert effects(it) == []
    assert it.condition("ScalingActive")["reason"] == "Paused"
    assert it.condition("ScalingLimited")["status"] == "False"
    assert it.status["batch"]["ceiling"] == 32
    assert "paused at 3 workers" in it.condition("ScalingActive")["message"]
    it.restart()
    it.run(60)
    assert effects(it) == []
    it.change(autoscaling=ELASTIC, memory={"headroomPercent": 80})
    it.run_until(lambda: it.cluster.replicas == 1)
    assert it.status["batch"]["ceiling"] < 32


def test_who_comes_during_a_pause_is_granted_what_is_held(world: Any) -> None:
    bounded = {"objective": {"latencyMilliseconds": 60}}
    it = world(autoscaling={**ELASTIC, "minReplicas": 2}, **bounded)
    it.cluster.demand_per_s = 1.0 * CAPACITY_PER_S
    it.run(120)
    (granted,) = {(fake.ceiling.base, fake.ceiling.ceiling) for fake in it.cluster.workers.values()}
    assert granted[1] == 8
    it.change(autoscaling={**ELASTIC, "minReplicas": 2, "mode": "Paused"}, **bounded)
    it.run(30)
    it.cluster.calls.clear()
    for number in (1, 2):
        for name in list(it.cluster.workers)[:number]:
            del it.cluster.workers[name]  # evicted: its ReplicaSet makes another
        it.run(60)
        now = {(fake.ceiling.base, fake.ceiling.ceiling, fake.ceiling.granted) for fake in it.cluster.workers.values()}
        assert now == {(*granted, True)}
        assert it.status["batch"]["appliedReplicas"] == len(it.cluster.workers)
    assert {verb for verb, _ in effects(it)} == {"grant"}


def test_what_one_that_ran_out_of_memory_tells_is_not_what_is_held(world: Any) -> None:
    it = world(autoscaling={**ELASTIC, "minReplicas": 2})
    it.run(120)
    it.change(autoscaling={**ELASTIC, "minReplicas": 2, "mode": "Paused"})
    it.run(30)
    first, second = it.cluster.workers
    capped = it.cluster.workers[first]
    granted = capped.ceiling
    capped.ceiling = granted.model_copy(update={"base": 4, "ceiling": 4})
    health = {"health": {"out_of_memory_cap": 4}}
    capped.state_change = lambda state: state.model_copy(
        update={"buckets": [1, 2, 4], "health": state.health.model_copy(update=health["health"])}
    )
    del it.cluster.workers[second]
    it.run(60)
    (newcomer,) = set(it.cluster.workers) - {first}
    now = it.cluster.workers[newcomer].ceiling
    assert (now.base, now.ceiling, now.granted) == (granted.base, granted.ceiling, True)
    assert it.status["batch"]["ceiling"] == granted.ceiling


def test_advice_while_the_load_falls_only_falls(world: Any) -> None:
    it = world(autoscaling={"minReplicas": 1, "maxReplicas": 30, "mode": "Advisory", "forecast": "None"})
    it.run(30)
    it.cluster.replicas = 20
    it.cluster.demand_per_s = 14 * CAPACITY_PER_S
    it.run(420)
    advised = []
    for turn in range(150):
        it.cluster.demand_per_s = max(14 * (1 - turn / 60), 0.2) * CAPACITY_PER_S
        it.run(5)
        advised.append(it.status["autoscaling"].get("advisedReplicas", 20))
    assert advised == sorted(advised, reverse=True)
    assert advised[-1] < 5


def test_a_new_object_that_is_paused_is_told_nothing(world: Any) -> None:
    it = world(autoscaling={**ELASTIC, "mode": "Paused"}, objective={"latencyMilliseconds": 60})
    it.run(60)
    assert effects(it) == []


def test_advice_that_comes_again_is_told_again(world: Any) -> None:
    it = world(autoscaling={**ELASTIC, "mode": "Advisory"})
    for _ in range(3):
        it.cluster.demand_per_s = 0.1 * CAPACITY_PER_S
        it.run(900)
        it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
        it.run(900)
    assert len([message for message in told(it, "Advised") if "3 workers instead of 1" in message]) == 3


def test_a_pause_amid_a_drain_sends_nothing_and_the_drained_are_replaced_after_it(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    it.run_until(lambda: it.ready == 3)
    it.cluster.drain_s = 50
    it.cluster.demand_per_s = 1.0 * CAPACITY_PER_S
    it.run_until(lambda: bool(it.cluster.told("drain")))
    it.change(autoscaling={**ELASTIC, "mode": "Paused"})
    it.cluster.calls.clear()
    it.run(120)
    assert effects(it) == []
    assert (it.cluster.replicas, it.ready) == (3, 2)
    progressing = it.condition("Progressing")
    assert (progressing["status"], progressing["reason"]) == ("False", "Paused")
    assert progressing["message"] == "2 of 3 workers ready, 1 drained before: removed or replaced once the mode is Active again"
    it.change(autoscaling=ELASTIC)
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    it.run_until(lambda: it.ready == 3)
    assert all(fake.drains_s is None for fake in it.cluster.workers.values())


# Outages of figures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fallback", "size"),
    [
        ({}, 3),
        ({"policy": "AtLeast", "replicas": 5}, 5),
        ({"policy": "AtLeast", "replicas": 2}, 3),
        ({"policy": "Static", "replicas": 4}, 4),
        ({"policy": "Static", "replicas": 2}, 2),
    ],
)
def test_an_outage_from_its_first_turn_to_its_last(world: Any, fallback: dict[str, Any], size: int) -> None:
    it = world(autoscaling={**ELASTIC, "fallback": fallback}, drain={"timeoutSeconds": 20})
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    it.run_until(lambda: it.ready == 3)
    it.run(60)
    it.cluster.calls.clear()
    it.cluster.faults["state"] = SILENCE
    it.run(175)
    assert effects(it) == []
    assert it.condition("FallbackActive")["reason"] == "Waiting"
    assert "metricsLostTime" in it.status["autoscaling"]
    it.run(120)
    assert it.cluster.replicas == it.ready == size
    assert it.condition("FallbackActive")["reason"] == "MetricOutage"
    assert it.condition("ScalingActive")["reason"] == "MetricsUnavailable"
    assert len(told(it, "FallbackEntered")) == 1
    assert "no route to the workers" in it.condition("MetricsAvailable")["message"]
    if size != 3:
        assert it.status["autoscaling"]["decisions"][0]["reason"] == f"Fallback{fallback['policy']}"
        assert it.figures.reasons[-1] == f"Fallback{fallback['policy']}"
    del it.cluster.faults["state"]
    it.run(10)
    assert it.condition("FallbackActive")["reason"] == "NotNeeded"
    assert len(told(it, "FallbackLeft")) == 1
    assert "metricsLostTime" not in it.status["autoscaling"]
    # From above, four are what leaves nobody beyond 65 % with one fewer.
    it.run_until(lambda: it.cluster.replicas == it.ready == min(max(size, 3), 4))


def test_a_restart_amid_an_outage_counts_from_its_beginning(world: Any) -> None:
    it = world(autoscaling={**ELASTIC, "fallback": {"policy": "AtLeast", "replicas": 4}})
    it.run(30)
    it.cluster.faults["state"] = SILENCE
    began_s = it.now_s
    for _ in range(5):
        it.run(30)
        it.restart()
    assert it.cluster.told("scale") == []
    it.run_until(lambda: bool(it.cluster.told("scale")))
    assert 180 <= it.now_s - began_s <= 190
    it.restart()
    it.run(60)
    assert it.cluster.told("scale") == [(4, ())]
    assert len(told(it, "FallbackEntered")) == 1


def test_a_clock_that_is_set_back_does_not_make_the_outage_shorter_than_none(world: Any) -> None:
    it = world(autoscaling={**ELASTIC, "fallback": {"policy": "AtLeast", "replicas": 4}})
    it.run(30)
    it.cluster.faults["state"] = SILENCE
    it.run(60)
    it.now_s -= 3600  # another host, whose clock is late
    it.restart()
    it.run(170)
    assert it.cluster.told("scale") == []
    it.run(30)
    assert it.cluster.told("scale") == [(4, ())]


def test_an_inference_that_never_becomes_ready_is_no_outage(world: Any) -> None:
    it = world(autoscaling={**ELASTIC, "fallback": {"policy": "AtLeast", "replicas": 4}})
    it.cluster.start_s = 1e9
    it.run(600)
    assert it.cluster.told("scale") == []
    assert it.condition("FallbackActive")["reason"] == "NotNeeded"


def test_one_silent_worker_of_three_stops_shrinking_and_not_growing(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    it.run_until(lambda: it.ready == 3)
    it.cluster.calls.clear()
    it.cluster.workers["worker-1"].broken = "status 500"
    it.cluster.demand_per_s = 0.1 * CAPACITY_PER_S
    it.run(600)
    assert it.cluster.told("scale") == it.cluster.told("drain") == []
    assert it.condition("FallbackActive")["reason"] == "NotNeeded"
    assert "not shrinking without fresh figures of every worker (worker-1" in it.condition("ScalingActive")["message"]
    it.cluster.demand_per_s = 6.0 * CAPACITY_PER_S
    it.run_until(lambda: it.cluster.replicas == 6)
    it.cluster.demand_per_s = 0.1 * CAPACITY_PER_S
    it.cluster.workers["worker-1"].broken = None
    it.run_until(lambda: it.cluster.replicas == 1)


# The explanation ----------------------------------------------------------------------------------------------------------


def test_the_status_explains_the_decision_and_what_was_written(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.run(30)
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    asyncio.run(it.turn())
    assert explained(it, "Load") == ["load ratio 2.20 over 1 worker, target 0.80: 3 workers"]
    assert explained(it, "Result") == ["3 workers: LoadAboveTarget"]
    assert explained(it, "Written") == ["3 workers ordered, 1 before"]
    it.run_until(lambda: it.ready == 3)
    it.run(60)
    assert explained(it, "Written") == ["nothing, all is as decided"]
    it.cluster.demand_per_s = 1.0 * CAPACITY_PER_S
    it.run_until(lambda: bool(it.cluster.told("drain")))
    assert explained(it, "Written") == ["1 worker asked to drain, the order follows when they are empty"]


def test_the_order_that_was_not_taken_is_told(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.run(30)
    it.cluster.faults["scale"] = ClusterError("409 conflict")
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    it.run(10)
    assert explained(it, "Written") == ["the size was not taken: 409 conflict"]


def test_a_refused_spec_has_nothing_to_explain(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.run(30)
    assert it.status["autoscaling"]["explanation"]
    it.change(autoscaling=ELASTIC, runtime="tpu")
    it.run(10)
    assert it.status["autoscaling"]["explanation"] == []
    assert "explainedTime" not in it.status["autoscaling"]
    it.change(autoscaling=ELASTIC)
    it.run(10)
    assert it.status["autoscaling"]["explanation"]
    asyncio.run(it.loop.refuse(4, it.status, "InvalidSpec", "x"))
    assert it.status["autoscaling"]["explanation"] == []


# Random histories ---------------------------------------------------------------------------------------------------------

MODES = st.sampled_from(["Active", "Advisory", "Paused"])
STEPS = st.lists(
    st.tuples(MODES, st.floats(0.0, 5.0), st.booleans(), st.booleans(), st.sampled_from([5.0, 30.0, 200.0])),
    min_size=1,
    max_size=6,
)
"""Mode, load of so many workers, whether figures are lost, whether the operator restarts first, for how long."""


@given(steps=STEPS, policy=st.sampled_from(["Hold", "AtLeast"]))
@settings(max_examples=40, deadline=None)
def test_only_active_writes_and_no_outage_shrinks(world: Any, steps: Any, policy: str) -> None:
    it = world(autoscaling=ELASTIC)
    it.run(30)
    for mode, load, lost, restarts, seconds in steps:
        if restarts:
            it.restart()
        it.change(autoscaling={**ELASTIC, "mode": mode, "fallback": {"policy": policy, "replicas": 3}})
        it.cluster.demand_per_s = load * CAPACITY_PER_S
        it.cluster.faults = {"state": SILENCE} if lost else {}
        leaving = any(fake.drains_s is not None for fake in it.cluster.workers.values())
        before = it.cluster.replicas
        were_granted = {name for name, fake in it.cluster.workers.items() if fake.ceiling.granted}
        it.cluster.calls.clear()
        it.run(seconds)
        # Who came during a pause is told what is held; those that were told it are told nothing.
        kinds = {"Active": {"grant", "drain", "scale", "rebalance"}, "Paused": {"grant"}, "Advisory": set()}
        assert {verb for verb, _ in effects(it)} <= kinds[mode]
        assert mode == "Active" or not {about[0] for _, about in effects(it)} & were_granted
        # A shrink that figures had begun may end without them.
        assert not lost or leaving or it.cluster.replicas >= before
    it.cluster.faults = {}
    it.change(autoscaling=ELASTIC)
    it.cluster.demand_per_s = 1.5 * CAPACITY_PER_S
    it.run_until(lambda: it.ready == it.cluster.replicas == len(it.cluster.workers) and it.ready in {2, 3})
