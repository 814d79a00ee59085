"""Turns of the loop on a cluster in memory: what it orders, in which order, and what it survives."""

import asyncio
import math
import random
import re
from dataclasses import replace
from typing import Any

import pytest

from yolastic_operator.act.publishing import MOST_UNTOLD
from yolastic_operator.cluster.base import ClusterError, Event, RefusedError, WorkerError
from yolastic_operator.cluster.fake import FakeCluster

FAST = {"scaleDown": {"stabilizationWindowSeconds": 30}}
ELASTIC = {"minReplicas": 1, "maxReplicas": 6, "behavior": FAST}
CAPACITY_PER_S = 32 / 0.052
"""Images/s of a worker of the fake at a ceiling of 32."""


def test_from_nothing_to_serving(world: Any) -> None:
    it = world(autoscaling=ELASTIC, objective={"latencyMilliseconds": 200})
    it.run(30)
    assert it.cluster.replicas == 1
    assert it.status["readyReplicas"] == it.status["replicas"] == it.status["desiredReplicas"] == 1
    assert it.status["url"] == "http://weld.plant.svc/predict"
    assert it.status["selector"].startswith("app.kubernetes.io/managed-by=yolastic,")
    assert it.status["model"] == {"sha256": "0" * 64, "task": "Detect", "loadedReplicas": 1}
    assert it.status["batch"]["ceiling"] == 32
    assert it.status["batch"]["appliedReplicas"] == 1
    assert it.status["batch"]["bounds"]["spec"] == 32
    assert it.status["memory"]["fixed"] == "600Mi"
    assert it.status["memory"]["perImage"] == "60Mi"
    assert it.status["memory"]["predictedPeak"] == "2520Mi"
    assert it.status["latency"] == {"fixedMicroseconds": 20000, "perImageMicroseconds": 1000}
    assert it.condition("Ready")["status"] == "True"
    assert it.condition("ModelLoaded")["status"] == "True"
    assert [event.reason for event in it.cluster.events] == ["BatchCeilingChanged", "Ready", "ModelLoaded"]
    assert it.cluster.told("scale") == []
    assert it.figures.desired[-1] == (1, 1)
    assert it.figures.ceilings[-1]["effective"] == 32


def test_grows_with_load_and_shrinks_in_two_phases(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.run(30)
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    it.run_until(lambda: it.ready == 3)
    assert ("scale", (3, ())) in it.cluster.calls
    rescaled = next(event for event in it.cluster.events if event.reason == "Rescaled")
    assert "from 1 to" in rescaled.message
    assert "load ratio" in rescaled.message
    assert it.status["autoscaling"]["decisions"][0]["to"] == 3
    assert "lastScaleTime" in it.status["autoscaling"]

    it.run(120)
    assert it.cluster.told("drain") == []
    it.cluster.calls.clear()
    it.cluster.demand_per_s = 0.1 * CAPACITY_PER_S
    it.run_until(lambda: it.cluster.replicas == 1)
    verbs = [(verb, about) for verb, about in it.cluster.calls if verb in {"drain", "scale"}]
    drained = [about for verb, about in verbs if verb == "drain"]
    assert len(set(drained)) == 2
    # Nobody is ordered away who was not drained before, and then exactly those who were.
    gone: set[str] = set()
    for verb, about in verbs:
        if verb == "drain":
            gone.add(about)
        else:
            assert set(about[1]) <= gone
    assert set(it.cluster.workers).isdisjoint(gone)


def test_constant_load_changes_nothing(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.cluster.demand_per_s = 1.5 * CAPACITY_PER_S
    it.run(120)
    it.cluster.calls.clear()
    it.run(3600)
    assert it.cluster.told("scale") == it.cluster.told("drain") == []


def test_an_idle_turn_writes_nothing(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.run(900)  # by then the base tier has followed the demand
    written, events, calls = len(it.cluster.statuses), len(it.cluster.events), len(it.cluster.calls)
    it.run(1200)
    assert (len(it.cluster.statuses), len(it.cluster.events), len(it.cluster.calls)) == (written, events, calls)


def test_noise_is_written_seldom(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.run(60)
    written = len(it.cluster.statuses)
    for step in range(240):
        it.cluster.demand_per_s = (0.3 + 0.2 * (step % 3)) * CAPACITY_PER_S
        it.run(5)
    # The base tier follows the demand in the meantime: two writes at once that are no noise.
    assert len(it.cluster.statuses) - written <= 1200 / it.settings.status_every_s + 3


def test_a_gust_that_changes_no_size_is_not_written(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.run(60)
    calm, written = it.loop._publishing.last, len(it.cluster.statuses)
    assert calm is not None
    *steps, last = calm.autoscaling.explanation
    gusty = calm.model_copy(
        update={
            "autoscaling": calm.autoscaling.model_copy(
                update={"explanation": [*steps, last.model_copy(update={"text": "a gust"})]}
            )
        }
    )

    async def publish(*turns: Any) -> None:
        for status in turns:
            it.now_s += it.settings.status_every_s
            await it.loop._publish(status)

    asyncio.run(publish(gusty, calm, gusty, calm))
    assert len(it.cluster.statuses) == written
    asyncio.run(publish(gusty, gusty))
    assert it.status["autoscaling"]["explanation"][-1]["text"] == "a gust", "it has lasted for a turn"


def test_other_words_that_last_are_written(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.cluster.demand_per_s = 0.1 * CAPACITY_PER_S
    it.run(120)
    before = it.status["autoscaling"]["explanation"]
    it.change(autoscaling={**ELASTIC, "forecast": "None"})
    it.run(40)
    assert it.status["autoscaling"]["explanation"] != before


def told_load(it: Any) -> str:
    (figures,) = [step["text"] for step in it.status["autoscaling"]["explanation"] if step["about"] == "Figures"]
    return str(re.search(r"\d+ images/s", figures)[0])  # type: ignore[index]


FIXED, WIDE = {"replicas": 4}, {"autoscaling": {"minReplicas": 4, "maxReplicas": 6}}
"""Nothing but the explanation tells the load of a fixed size; nor, while the load ratio is close to 0, of a large one."""


@pytest.mark.parametrize("spec", [FIXED, WIDE])
def test_the_explanation_follows_the_load_at_a_size_that_stays(world: Any, spec: dict[str, Any]) -> None:
    it = world(**spec)
    it.cluster.demand_per_s = 100.0
    it.run(900)
    for load_per_s in (10.0, 0.0, 100.0, 140.0, 2.0):
        written = len(it.cluster.statuses)
        it.cluster.demand_per_s = load_per_s
        it.run(35)
        assert told_load(it) == f"{load_per_s:.0f} images/s"
        it.run(600)
        assert len(it.cluster.statuses) - written <= 3, "the base tier may follow, and is confirmed"


def test_a_load_that_swings_is_written_seldom(world: Any) -> None:
    it = world(**FIXED)
    it.run(900)
    written = len(it.cluster.statuses)
    for step in range(240):
        it.cluster.demand_per_s = (100.0, 300.0)[step % 2]
        it.run(5)
    assert 20 < len(it.cluster.statuses) - written <= 1200 / it.settings.status_every_s + 3


def test_after_a_restart_the_explanation_is_of_the_load_there_is(world: Any) -> None:
    it = world(**FIXED)
    it.cluster.demand_per_s = 1400.0
    it.run(900)
    it.cluster.demand_per_s = 10.0
    it.now_s += 3600
    it.restart()
    it.run(5)
    assert told_load(it) == "10 images/s"


def poisson(chance: random.Random, mean: float) -> int:
    if mean > 50:
        return max(round(chance.gauss(mean, math.sqrt(mean))), 0)
    limit, product, number = math.exp(-mean), chance.random(), 0
    while product > limit:
        product, number = product * chance.random(), number + 1
    return number


@pytest.mark.parametrize("load_per_s", [1.0, 1400.0])
def test_the_noise_of_a_steady_load_is_not_written(world: Any, load_per_s: float) -> None:
    """Images come as they like, counted over the last 15 s."""
    it = world(**FIXED)
    chance = random.Random(7)
    counts = [0.0, 0.0, 0.0]

    def turns(seconds: float) -> None:
        for _ in range(round(seconds / 5)):
            came = poisson(chance, 5 * load_per_s)
            counts[:] = [*counts[1:], came]
            it.cluster.demand_per_s = sum(counts) / 15
            it.run(5)

    turns(3900)  # by then the base tier has followed the demand
    written = len(it.cluster.statuses)
    turns(3600)
    assert len(it.cluster.statuses) == written


def test_the_noise_of_learned_times_is_not_written(world: Any) -> None:
    it = world(replicas=1, batching={"maxSize": 8}, objective={"latencyMilliseconds": 150})
    it.run(900)
    written = len(it.cluster.statuses)
    for step in range(120):
        wobble = 1 + 0.03 * (step % 3 - 1)
        it.cluster.speed = it.cluster.speed.model_copy(update={"fixed": 0.020 * wobble, "per_image": 0.001 / wobble})
        it.run(5)
    assert len(it.cluster.statuses) == written
    assert it.status["batch"]["bounds"] == {"spec": 8, "memory": 51, "latency": 55, "efficiency": 380}


def test_nor_is_it_where_a_larger_batch_is_just_allowed(world: Any) -> None:
    """Half of 104 ms is a batch of 32: it is given up at the first slower one, and not taken up again for a faster one."""
    it = world(replicas=1, objective={"latencyMilliseconds": 104})
    written = 0
    for step in range(360):
        wobble = 1 + 0.015 * (step % 3 - 1)
        it.cluster.speed = it.cluster.speed.model_copy(update={"fixed": 0.020 * wobble, "per_image": 0.001 * wobble})
        it.run(5)
        written = len(it.cluster.statuses) if step == 240 else written
    assert it.status["batch"]["ceiling"] == 16
    assert len(it.cluster.statuses) - written <= 1


@pytest.mark.parametrize("size", [1, 2])
def test_the_noise_of_a_load_at_the_edge_of_the_tolerance_is_not_written(world: Any, size: int) -> None:
    it = world(autoscaling={"minReplicas": size, "maxReplicas": 10, "secondWorkerLoadPercent": 100})
    chance, counts, written = random.Random(7), [0.0, 0.0, 0.0], 0
    mean = 0.72 * size * CAPACITY_PER_S
    it.cluster.demand_per_s = mean
    it.run(900)
    for turn in range(720):
        counts = [*counts[1:], chance.gauss(5 * mean, math.sqrt(5 * mean))]
        it.cluster.demand_per_s = sum(counts) / 15 if turn > 2 else mean
        it.run(5)
        written = len(it.cluster.statuses) if turn == 5 else written
    assert it.ready == size
    assert len(it.cluster.statuses) - written <= 1


def test_a_restart_changes_nothing(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    it.run_until(lambda: it.ready == 3)
    it.run(60)
    it.cluster.calls.clear()
    written, events = len(it.cluster.statuses), len(it.cluster.events)
    for _ in range(5):
        it.restart()
        it.run(30)
    assert it.cluster.calls == []
    assert len(it.cluster.events) == events
    assert len(it.cluster.statuses) == written


def test_what_is_counted_anew_after_a_restart_writes_nothing_and_what_stays_unknown_is_told(world: Any) -> None:
    it = world(autoscaling={"minReplicas": 2, "maxReplicas": 8})
    it.cluster.demand_per_s, images = 0.5 * CAPACITY_PER_S, [0.0]

    def counted(seconds: float, *, by_the_workers: bool = True) -> None:
        for _ in range(round(seconds / 5)):
            images[0] += 5 * it.cluster.demand_per_s / 2
            count = round(images[0]) if by_the_workers else None
            for fake in it.cluster.workers.values():
                fake.state_change = lambda state: state.model_copy(
                    update={"load": state.load.model_copy(update={"demand_images": count})}  # noqa: B023
                )
            it.run(0)  # one turn
            it.now_s += 5

    def told() -> str:
        return str(next(step["text"] for step in it.status["autoscaling"]["explanation"] if step["about"] == "Forecast"))

    counted(300)
    assert told() == "demand does not rise beyond its noise"
    written = len(it.cluster.statuses)
    for _ in range(3):
        it.restart()
        counted(120)
    assert len(it.cluster.statuses) == written

    it.restart()
    counted(55, by_the_workers=False)
    assert len(it.cluster.statuses) == written
    counted(15, by_the_workers=False)
    assert told().startswith("not known")


def test_a_restart_aims_for_the_same_load(world: Any) -> None:
    """Demand swings by a quarter, and a batch of 32 takes 52 ms of 120: without a window a higher target would shrink at once."""
    elastic = {"minReplicas": 1, "maxReplicas": 20, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}
    it = world(objective={"latencyMilliseconds": 120}, autoscaling=elastic)
    it.cluster.demand_per_s, images, chance = 6.0 * CAPACITY_PER_S, dict[str, float](), random.Random(7)

    def count(name: str, came: float) -> None:
        images[name] = images.get(name, 0.0) + came
        told = {"demand_images": round(images[name])}
        it.cluster.workers[name].state_change = lambda state: state.model_copy(
            update={"load": state.load.model_copy(update=told)}
        )

    def counted(seconds: float) -> None:
        for _ in range(round(seconds / 10)):
            came = 5 * it.cluster.demand_per_s * max(1 + 0.25 * chance.gauss(0, 1), 0.1)
            for _ in range(2):
                for name in it.cluster.workers:
                    count(name, came / len(it.cluster.workers))
                it.run(0)  # one turn
                it.now_s += 5

    counted(900)
    known = it.status["autoscaling"]
    swing, target, size = known["demandSwingPercent"], known["metrics"][0]["target"], it.status["desiredReplicas"]
    assert swing > 15
    assert target == f"{max(math.floor(80 / (1 + 3 * (swing - 10) / 100)), 60)}0m"
    for _ in range(3):
        it.restart()
        it.run(0)
        assert it.status["desiredReplicas"] == size
        assert it.status["autoscaling"]["metrics"][0]["target"] == target
        assert it.status["autoscaling"]["demandSwingPercent"] == swing
        assert it.status["autoscaling"]["objectiveLoadPercent"] == known["objectiveLoadPercent"]
        it.now_s += 5


@pytest.mark.parametrize("up", [True, False])
def test_a_restart_knows_of_more_changes_than_the_status_tells_decisions(world: Any, up: bool) -> None:
    slowly = {"policies": [{"type": "Pods", "value": 8, "periodSeconds": 1800}]}
    behavior = {"scaleUp": slowly} if up else {"scaleDown": {"stabilizationWindowSeconds": 0, **slowly}}
    bounds = {"maxReplicas": 40, "secondWorkerLoadPercent": 100, "forecast": "None"}
    it = world(autoscaling={**bounds, "behavior": behavior})
    it.cluster.demand_per_s = (1 if up else 25) * 0.79 * CAPACITY_PER_S
    it.run(2400)
    top = it.cluster.replicas
    for step in range(1, 15):
        it.cluster.demand_per_s = (top + step if up else top - step - 1) * (0.79 if up else 0.6) * CAPACITY_PER_S
        it.run(80)
        if step == 10:
            assert it.cluster.replicas == top + (8 if up else -8)
            it.restart()
    assert it.cluster.replicas == top + (8 if up else -8)


def test_a_new_worker_of_a_rollout_is_no_supply_for_more_load(world: Any) -> None:
    rules = {"maxReplicas": 8, "secondWorkerLoadPercent": 100}
    it = world(autoscaling=rules)
    it.cluster.demand_per_s = 0.5 * CAPACITY_PER_S
    it.run(120)
    it.cluster.start_s = 600
    it.change(autoscaling=rules, model={"uri": "https://models/other.onnx", "sha256": "1" * 64})
    it.run(20)
    it.cluster.demand_per_s = 1.6 * CAPACITY_PER_S
    it.run(10)
    assert it.cluster.replicas == 2


@pytest.mark.parametrize("missed", ["one", "all"])
def test_an_answer_missed_now_and_then_does_not_begin_a_window_anew(world: Any, missed: str) -> None:
    it = world(autoscaling={"maxReplicas": 10, "secondWorkerLoadPercent": 100})
    it.cluster.demand_per_s = 6 * 0.79 * CAPACITY_PER_S
    it.run(400)
    assert it.cluster.replicas == 6
    it.cluster.demand_per_s = 1.2 * CAPACITY_PER_S
    for turn in range(1, 100):
        if turn % 48 == 0:
            workers = list(it.cluster.workers.values())
            for fake in workers if missed == "all" else workers[:1]:
                fake.broken = "no answer within 2 s"
        it.run(0)
        for fake in it.cluster.workers.values():
            fake.broken = None
        it.now_s += 5
    assert it.cluster.replicas == 2


def test_nor_a_window_of_growth(world: Any) -> None:
    waits = {"scaleUp": {"stabilizationWindowSeconds": 60}}
    it = world(autoscaling={"maxReplicas": 8, "secondWorkerLoadPercent": 100, "behavior": waits})
    it.run(120)
    it.cluster.demand_per_s = 2.5 * CAPACITY_PER_S
    for turn in range(1, 16):
        for fake in it.cluster.workers.values():
            fake.broken = "no answer within 2 s" if turn % 11 == 0 else None
        it.run(0)
        it.now_s += 5
    assert it.cluster.replicas == 4


@pytest.mark.parametrize(("fault", "load", "reason"), [("scale", 2.5, "LoadAboveTarget"), ("drain", 0.3, "LoadBelowTarget")])
def test_a_change_that_fails_at_first_is_told_with_the_reason_it_was_decided_for(
    world: Any, fault: str, load: float, reason: str
) -> None:
    it = world(autoscaling={"maxReplicas": 8, "secondWorkerLoadPercent": 100})
    it.cluster.demand_per_s = (0.5 if fault == "scale" else 4 * 0.79) * CAPACITY_PER_S
    it.run(400)
    it.cluster.demand_per_s = load * CAPACITY_PER_S
    it.cluster.faults[fault] = ClusterError("reset") if fault == "scale" else WorkerError("reset")
    before = it.cluster.replicas
    it.run_until(lambda: it.loop._policy.desired_replicas != before, 900)
    it.run(5)
    it.cluster.faults.clear()
    it.run(60)
    assert it.cluster.replicas != before
    assert it.status["autoscaling"]["decisions"][0]["reason"] == reason


@pytest.mark.parametrize(
    "rules",
    [
        {"fallback": {"policy": "Static", "replicas": 1}},
        {"fallback": {"policy": "AtLeast", "replicas": 1}, "mode": "Advisory"},
        {"mode": "Paused"},
        {},
    ],
)
def test_an_outage_in_which_nothing_changes_writes_nothing(world: Any, rules: dict[str, Any]) -> None:
    it = world(autoscaling={"maxReplicas": 8, "secondWorkerLoadPercent": 100, **rules})
    it.run(120)
    for fake in it.cluster.workers.values():
        fake.broken = "no answer within 2 s"
    it.run(400)
    written = len(it.cluster.statuses)
    it.run(1800)
    assert len(it.cluster.statuses) == written


def test_in_another_mode_nobody_waits_for_those_that_drain(world: Any) -> None:
    rules = {"maxReplicas": 8, "secondWorkerLoadPercent": 100}
    it = world(autoscaling=rules)
    it.cluster.demand_per_s = 4 * 0.79 * CAPACITY_PER_S
    it.run(400)
    it.cluster.drain_s = 50
    it.cluster.demand_per_s = 1.2 * CAPACITY_PER_S
    it.run_until(lambda: bool(it.cluster.told("drain")))
    it.change(autoscaling={**rules, "mode": "Advisory"})
    it.cluster.demand_per_s = 0.5 * CAPACITY_PER_S
    it.run(900)
    assert it.status["autoscaling"]["advisedReplicas"] == 1


def test_restarts_do_not_begin_the_rates_of_scaling_anew(world: Any) -> None:
    slowly = {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 600}]}
    it = world(autoscaling={"minReplicas": 1, "maxReplicas": 8, "behavior": {"scaleUp": slowly}})
    it.cluster.demand_per_s = 500
    it.run(60)
    it.cluster.demand_per_s = 4000
    it.run(60)
    for _ in range(4):
        it.restart()
        it.run(20)
    assert it.cluster.replicas == 2
    it.run(600)
    assert it.cluster.replicas == 3


def test_a_restart_amid_a_drain_finishes_it(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    it.run_until(lambda: it.ready == 3)
    it.cluster.drain_s = 20
    it.cluster.demand_per_s = 1.0 * CAPACITY_PER_S
    it.run_until(lambda: bool(it.cluster.told("drain")))
    it.cluster.calls.clear()
    victims = {name for name, fake in it.cluster.workers.items() if fake.drains_s is not None}
    it.restart()
    it.run_until(lambda: it.cluster.replicas == 2, limit_s=60)
    assert it.cluster.told("drain") == []
    assert victims.isdisjoint(it.cluster.workers)
    it.run(60)
    assert it.cluster.replicas == 2


def test_load_that_comes_back_amid_a_drain_replaces_the_drained(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    it.run_until(lambda: it.ready == 3)
    it.cluster.drain_s = 50
    it.cluster.demand_per_s = 1.0 * CAPACITY_PER_S
    it.run_until(lambda: bool(it.cluster.told("drain")))
    drained = it.cluster.told("drain")[0]
    it.cluster.demand_per_s = 2.6 * CAPACITY_PER_S
    it.run_until(lambda: it.ready >= 3, limit_s=60)
    assert drained not in it.cluster.workers
    assert all(fake.drains_s is None for fake in it.cluster.workers.values())


def test_load_that_comes_back_before_anybody_took_a_drain_keeps_all_of_them(world: Any) -> None:
    capacity_per_s = 32 / 0.052
    it = world(autoscaling={"minReplicas": 1, "maxReplicas": 6, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 30}}})
    it.cluster.demand_per_s = 2.2 * capacity_per_s
    it.run_until(lambda: it.ready == 3)
    it.run(60)
    it.cluster.faults["drain"] = WorkerError("503")
    it.cluster.demand_per_s = 0.1 * capacity_per_s
    it.run_until(lambda: it.status["desiredReplicas"] == 1)
    it.cluster.demand_per_s = 2.2 * capacity_per_s  # 0.73 of three: within the tolerance of their target, and too much for one
    it.run(30)
    assert it.status["desiredReplicas"] == 3
    it.cluster.faults.clear()
    it.run(60)
    assert (it.ready, it.cluster.replicas) == (3, 3)


def test_a_drain_that_never_ends_is_cut_off(world: Any) -> None:
    it = world(autoscaling=ELASTIC, drain={"timeoutSeconds": 20})
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    it.run_until(lambda: it.ready == 3)
    it.cluster.drain_s = 1e9
    it.cluster.demand_per_s = 0.1 * CAPACITY_PER_S
    it.run_until(lambda: bool(it.cluster.told("drain")))
    began_s = it.now_s
    it.run_until(lambda: bool(it.cluster.told("scale")[1:]))
    assert 20 <= it.now_s - began_s <= 25


def test_new_workers_get_their_share(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.run(30)
    assert it.cluster.told("rebalance") == []
    it.cluster.demand_per_s = 1.4 * CAPACITY_PER_S
    it.run_until(lambda: it.ready == 2)
    it.run(10)
    assert it.cluster.told("rebalance") == ["worker-1"]


def test_connections_made_before_all_had_heard_are_made_once_more(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.settings = replace(it.settings, propagation_delay_s=7.0)
    it.restart()
    it.run(30)
    assert it.cluster.told("rebalance") == [], "the first has nobody to share with"
    it.cluster.demand_per_s = 1.4 * CAPACITY_PER_S
    it.run_until(lambda: bool(it.cluster.told("rebalance")))
    joined_s = it.now_s
    it.run_until(lambda: len(it.cluster.told("rebalance")) > 1)
    assert 7 <= it.now_s - joined_s <= 8.5, "turns come every second until then"
    it.run(30)
    assert it.cluster.told("rebalance") == ["worker-1", "worker-1", "worker-2"]


def test_who_could_not_be_told_of_a_new_worker_is_told_later(world: Any) -> None:
    it = world(replicas=1)
    it.run_until(lambda: it.ready == 1)
    it.change(replicas=2)
    it.cluster.faults["rebalance"] = WorkerError("no answer within 2 s")
    it.run_until(lambda: it.ready == 2)
    it.run(20)
    it.cluster.faults.clear()
    it.run(120)
    assert it.cluster.told("rebalance") == ["worker-1"]


def test_who_can_not_be_told_is_let_be_in_the_end(world: Any) -> None:
    it = world(replicas=1)
    it.run_until(lambda: it.ready == 1)
    it.change(replicas=2)
    it.cluster.faults["rebalance"] = WorkerError("status 404", 404)
    it.run_until(lambda: it.ready == 2)
    it.run(61)
    it.cluster.faults.clear()
    it.run(120)
    assert it.cluster.told("rebalance") == []


def test_who_leaves_is_not_told_any_more(world: Any) -> None:
    it = world(replicas=2)
    it.run_until(lambda: it.ready == 2)
    it.change(replicas=3)
    it.cluster.faults["rebalance"] = WorkerError("connection reset")
    it.run_until(lambda: it.ready == 3)
    it.change(replicas=1)
    it.cluster.drain_s = 30.0
    it.run_until(lambda: len(it.cluster.told("drain")) == 2)
    it.cluster.faults.clear()
    it.run(120)
    (stayed,) = it.cluster.workers
    assert set(it.cluster.told("rebalance")) <= {stayed}


@pytest.mark.parametrize("away_s", [2.0, 30.0, 600.0])
def test_a_worker_that_joined_while_nobody_looked_gets_its_share(world: Any, away_s: float) -> None:
    it = world(replicas=1)
    it.run_until(lambda: it.ready == 1)
    it.change(replicas=2)
    it.run(4)
    it.now_s += away_s
    it.restart()
    it.run(120)
    assert sorted(it.cluster.told("rebalance")) in (["worker-1"], ["worker-1", "worker-2"])


def test_a_worker_that_took_the_place_of_another_while_nobody_looked_gets_its_share(world: Any) -> None:
    it = world(replicas=2)
    it.run(300)
    it.cluster.calls.clear()
    del it.cluster.workers["worker-1"]
    asyncio.run(it.cluster.fleet(it.loop._ref))
    it.now_s += 30
    it.restart()
    it.run(60)
    assert it.cluster.told("rebalance") == ["worker-2", "worker-3"]


def test_one_worker_alone_has_nobody_to_share_with(world: Any) -> None:
    it = world(replicas=1)
    it.run(4)
    it.now_s += 10
    it.restart()
    it.run(120)
    assert it.cluster.told("rebalance") == []


@pytest.mark.parametrize("ahead_s", [-7200.0, 0.0, 7200.0])
def test_a_restart_at_rest_moves_no_connection(world: Any, ahead_s: float) -> None:
    it = world(replicas=3)
    it.run(120)
    it.cluster.calls.clear()
    it.restart()
    it.loop._wall = lambda: it.now_s + ahead_s
    it.run(120)
    assert it.cluster.told("rebalance") == []


def test_a_grant_is_pushed_until_confirmed(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.run(15)
    assert [(base, ceiling) for _, base, ceiling in it.cluster.told("grant")] == [(8, 32)]
    it.cluster.workers["worker-1"].ceiling = it.cluster.workers["worker-1"].ceiling.model_copy(update={"ceiling": 4, "base": 1})
    asyncio.run(it.turn())
    assert len(it.cluster.told("grant")) == 2
    it.run(60)
    assert len(it.cluster.told("grant")) == 2
    assert it.status["batch"]["appliedReplicas"] == 1


def test_what_waits_to_be_confirmed_is_looked_at_soon(world: Any) -> None:
    it = world(replicas=3)
    it.run(60)
    at_rest_s, busy_s = it.settings.turn_s, it.settings.busy_turn_s
    assert asyncio.run(it.turn()) == at_rest_s
    one = it.cluster.workers["worker-1"]
    one.ceiling = one.ceiling.model_copy(update={"granted": False})
    assert [asyncio.run(it.turn()) for _ in range(2)] == [busy_s, at_rest_s]
    it.change(replicas=2)
    assert asyncio.run(it.turn()) == busy_s, "one drains"
    it.run(60)
    assert asyncio.run(it.turn()) == at_rest_s


def test_a_worker_that_refuses_the_grant_is_not_counted(world: Any) -> None:
    it = world(replicas=2)
    it.cluster.faults["grant"] = ClusterError("status 500")
    it.run(60)
    assert it.status["batch"]["appliedReplicas"] == 0
    assert it.status["readyReplicas"] == 2
    del it.cluster.faults["grant"]
    it.run(10)
    assert it.status["batch"]["appliedReplicas"] == 2


def test_a_new_ceiling_is_a_decision_with_an_event(world: Any) -> None:
    it = world(autoscaling=ELASTIC, objective={"latencyMilliseconds": 500})
    it.run(30)
    it.cluster.events.clear()
    it.change(autoscaling=ELASTIC, objective={"latencyMilliseconds": 60})
    it.run(30)
    changes = [event.message for event in it.cluster.events if event.reason == "BatchCeilingChanged"]
    assert len(changes) == 1
    assert re.match(r"from 32 to \d+ images: .*latency", changes[0])
    assert it.status["autoscaling"]["decisions"][0]["batchFrom"] == 32
    assert it.status["batch"]["limitedBy"] == "Latency"


def test_a_model_change_rolls_and_grants_anew(world: Any) -> None:
    it = world(replicas=2)
    it.run(30)
    it.change(replicas=2, model={"uri": "https://models/m.onnx", "sha256": "1" * 64})
    it.run(120)
    assert len(it.cluster.told("ensure")) == 2
    assert it.status["model"] == {"sha256": "1" * 64, "task": "Detect", "loadedReplicas": 2}
    assert it.status["batch"]["appliedReplicas"] == 2
    assert {fake.revision for fake in it.cluster.workers.values()} == {it.cluster.workload.revision}


def test_replicas_are_obeyed_both_ways(world: Any) -> None:
    it = world(replicas=1)
    it.run(30)
    it.change(replicas=4)
    it.run(30)
    assert it.cluster.replicas == it.ready == 4
    it.change(replicas=0)
    it.run(60)
    assert it.cluster.replicas == 0
    assert it.cluster.workers == {}
    assert it.condition("Ready")["reason"] == "ScaledToZero"
    assert it.figures.ages[-1] == ("Workers", None)
    assert it.status["batch"]["appliedReplicas"] == it.status["model"]["loadedReplicas"] == 0
    assert it.status["batch"]["ceiling"] == 32


def test_a_cluster_that_is_slow_to_remove_loses_nobody_else(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    it = world(replicas=3)
    it.run(30)
    it.change(replicas=2)
    with monkeypatch.context() as slow:
        it.run_until(lambda: bool(it.cluster.told("drain")))
        slow.setattr(it.cluster, "_settle", lambda: None)
        it.run(9)
    it.run(60)
    assert it.cluster.told("scale") == [(2, tuple(it.cluster.told("drain")[:1]))]
    assert it.ready == 2


def test_a_size_taken_back_before_it_was_made_costs_no_worker(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    it = world(replicas=2)
    it.run(30)
    it.cluster.calls.clear()
    with monkeypatch.context() as slow:
        slow.setattr(it.cluster, "_settle", lambda: None)
        it.change(replicas=6)
        asyncio.run(it.turn())
        it.change(replicas=2)
        asyncio.run(it.turn())
    it.run(60)
    assert it.cluster.told("scale") == [(6, ()), (2, ())]
    assert it.cluster.told("drain") == []
    assert [event.message[:17] for event in it.cluster.events if event.reason == "Rescaled"] == [
        "from 2 to 6 worke",
        "from 6 to 2 worke",
    ]


def test_workers_without_a_place_limit_the_wish(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.cluster.places = 2
    it.cluster.demand_per_s = 3 * CAPACITY_PER_S
    it.run(300)
    assert it.condition("ScalingLimited")["reason"] == "Unschedulable"
    assert [event.type for event in it.cluster.events if event.reason == "ScalingLimited"] == ["Warning"]
    assert it.ready == 2
    scaled = len(it.cluster.told("scale"))
    it.run(600)
    assert len(it.cluster.told("scale")) == scaled


def test_an_unknown_runtime_is_a_condition_and_what_runs_goes_on(world: Any) -> None:
    it = world(replicas=2)
    it.run(30)
    it.change(replicas=2, runtime="tpu")
    it.run(30)
    assert it.condition("Ready") | {"lastTransitionTime": ""} == {
        "type": "Ready", "status": "False", "reason": "RuntimeNotFound", "message": "there is no YoloRuntime tpu",
        "observedGeneration": 2, "lastTransitionTime": "",
    }  # fmt: skip
    assert it.status["readyReplicas"] == it.status["model"]["loadedReplicas"] == 2
    assert len(it.cluster.workers) == 2
    assert [event.reason for event in it.cluster.events if event.type == "Warning"] == ["NotReady"]
    it.change(replicas=2)
    it.run(10)
    assert it.condition("Ready")["status"] == "True"


def test_what_the_cluster_refuses_is_a_condition(world: Any) -> None:
    it = world(replicas=1)
    it.cluster.faults["ensure"] = RefusedError("SchemeNotAllowed", "spec.model.uri: file:// is for local mode")
    it.run(30)
    assert it.condition("Ready")["reason"] == "SchemeNotAllowed"
    assert [event.reason for event in it.cluster.events] == ["SchemeNotAllowed"]
    del it.cluster.faults["ensure"]
    it.run(30)
    assert it.condition("Ready")["status"] == "True"


def test_a_spec_that_cannot_be_read_is_a_condition(world: Any) -> None:
    it = world(replicas=1)
    it.run(30)
    delay_s = asyncio.run(it.loop.refuse(2, it.status, "InvalidSpec", "spec.batching.maxSize: too large"))
    assert delay_s == it.settings.turn_s
    assert it.condition("Ready")["reason"] == "InvalidSpec"
    assert it.status["observedGeneration"] == 2
    assert it.status["readyReplicas"] == 1


def test_a_worker_that_fails_to_load_tells_why(world: Any) -> None:
    it = world(replicas=1)
    asyncio.run(it.turn())
    fake = it.cluster.workers["worker-1"]
    fake.failure_reason, fake.failure_message = "ChecksumMismatch", "sha256 is 12ab, expected 0000"
    it.run(60)
    assert it.condition("ModelLoaded")["status"] == "False"
    assert it.condition("ModelLoaded")["reason"] == "ChecksumMismatch"
    assert [(event.type, event.reason) for event in it.cluster.events] == [("Warning", "ModelLoadFailed")]
    assert "sha256 is 12ab" in it.cluster.events[0].message


@pytest.mark.parametrize(
    "verb", ["runtime", "fleet", "ensure", "url", "state", "grant", "drain", "rebalance", "scale", "write_status", "post_event"]
)
def test_every_verb_may_fail_for_a_while(world: Any, verb: str) -> None:
    it = world(autoscaling=ELASTIC)
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    it.cluster.faults[verb] = ClusterError(f"{verb}: 503 Service Unavailable")
    it.run(120)
    del it.cluster.faults[verb]
    it.run_until(lambda: it.ready == 3)
    it.cluster.faults[verb] = ClusterError(f"{verb}: 503 Service Unavailable")
    it.cluster.demand_per_s = 0.1 * CAPACITY_PER_S
    it.run(120)
    del it.cluster.faults[verb]
    it.run_until(lambda: it.cluster.replicas == 1 and it.ready == 1)
    assert it.condition("Ready")["status"] == "True"


def test_a_change_that_cannot_be_applied_is_told_though_the_old_serves(world: Any) -> None:
    it = world(replicas=2)
    it.run(30)
    it.cluster.faults["ensure"] = ClusterError("apply Deployment: 422 affinity: invalid")
    it.run(300)
    assert it.condition("Ready")["status"] == "True"  # what failed was only the repair of what is there
    it.change(replicas=2, objective={"latencyMilliseconds": 200})
    it.cluster.workers["worker-1"].ceiling = it.cluster.workers["worker-1"].ceiling.model_copy(update={"granted": False})
    it.run(30)
    assert it.condition("Ready")["reason"] == "ApplyFailed"
    assert "422" in it.condition("Ready")["message"]
    assert it.status["batch"]["appliedReplicas"] == it.status["model"]["loadedReplicas"] == 2
    del it.cluster.faults["ensure"]
    it.run(120)
    assert it.condition("Ready")["status"] == "True"


class ForbiddenError(ClusterError):
    in_vain = True


def test_a_child_that_may_not_be_made_is_told_in_every_turn_and_asked_for_ever_more_rarely(world: Any) -> None:
    """The Service is gone, say: its workers serve, and nobody reaches them."""
    it, asked = world(replicas=2), []
    it.run(30)

    async def ensure(workload: Any, replicas: int) -> None:
        asked.append(it.now_s)
        raise ForbiddenError("apply Service: 403 exceeded quota: services")

    it.cluster.ensure = ensure
    it.run(130)  # the next apply is due two minutes after the last
    asked.clear()
    written = len(it.cluster.statuses)
    it.run(300)
    assert len(it.cluster.statuses) == written, "nothing new"
    assert it.condition("Ready")["reason"] == "ApplyFailed"
    assert "exceeded quota: services" in it.condition("Ready")["message"]
    assert 10 <= len(asked) <= 300 / (6 * 5) + 3
    assert [event.reason for event in it.cluster.events].count("NotReady") == 1
    del it.cluster.ensure
    it.run(35)
    assert it.condition("Ready")["status"] == "True"


def test_another_spec_is_tried_at_once_though_the_one_before_was_refused(world: Any) -> None:
    it = world(replicas=2)
    it.cluster.faults["ensure"] = ForbiddenError("apply Deployment: 422 nodeSelector: invalid")
    it.run(300)
    del it.cluster.faults["ensure"]
    it.change(replicas=2, objective={"latencyMilliseconds": 200})
    it.run(0)
    assert it.cluster.workers


def test_beside_a_name_that_is_taken_what_serves_scales_on(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.run(30)
    it.cluster.faults["ensure"] = RefusedError(
        "NameTaken", "PodDisruptionBudget weld exists already and is not of this inference"
    )
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    it.run(180)
    assert it.cluster.replicas == 3
    assert it.condition("Ready")["reason"] == "NameTaken"
    assert it.condition("ScalingActive")["status"] == "True"


def test_while_a_change_is_refused_what_runs_says_nothing_of_it(world: Any) -> None:
    it = world(replicas=2)
    it.run(30)
    it.cluster.faults["ensure"] = ForbiddenError("apply Deployment: 422 nodeSelector: invalid")
    it.change(replicas=2, model={"uri": "https://models/other.onnx", "sha256": "1" * 64})
    it.run(30)
    told = {
        kind: (it.condition(kind)["status"], it.condition(kind)["reason"]) for kind in ("Ready", "Progressing", "ModelLoaded")
    }
    assert told == {
        "Ready": ("False", "ApplyFailed"),
        "Progressing": ("False", "ApplyFailed"),
        "ModelLoaded": ("Unknown", "ApplyFailed"),
    }


def test_conditions_of_others_are_theirs(world: Any) -> None:
    it = world(replicas=1)
    it.run(30)
    verified = {
        "type": "Verified",
        "status": "False",
        "reason": "Before",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    it.cluster.statuses[-1] = {**it.status, "conditions": [*it.status["conditions"], verified]}
    it.restart()
    it.change(replicas=2)
    it.run(60)
    assert "Verified" not in {condition["type"] for condition in it.status["conditions"]}


def test_a_repair_that_fails_while_nobody_serves_is_told(world: Any) -> None:
    it = world(replicas=2)
    it.run(30)
    it.cluster.faults["ensure"] = ClusterError("apply Deployment: 422 affinity: invalid")
    for worker in it.cluster.workers.values():
        worker.starts_s = math.inf
    it.run(300)
    assert it.condition("Ready")["reason"] == "ApplyFailed"


def test_ages_alone_are_written_where_somebody_asked_for_that(world: Any) -> None:
    it = world(replicas=1)
    it.settings = replace(it.settings, status_every_s=5.0, ages_every_s=20.0)
    it.restart()
    it.run(60)
    before = len(it.cluster.statuses)
    it.run(100)
    assert 3 <= len(it.cluster.statuses) - before <= 6


@pytest.mark.parametrize(
    ("change", "after_s"), [({}, 120), ({"edited": True}, 5), ({"revision": "by hand"}, 5), ({"replicas": None}, 5)]
)
def test_children_are_applied_when_they_differ_and_now_and_then_without(world: Any, change: Any, after_s: float) -> None:
    it, applied, fleet = world(replicas=2), [], FakeCluster.fleet
    it.run(20)

    async def ensure(*_: Any) -> None:
        applied.append(it.now_s)

    async def changed(ref: Any) -> Any:
        return replace(await fleet(it.cluster, ref), **({} if applied else change))

    it.cluster.ensure, it.cluster.fleet = ensure, changed
    began_s = it.now_s
    it.run_until(lambda: bool(applied), 200)
    assert after_s - 25 <= applied[0] - began_s <= after_s


@pytest.mark.parametrize("unreadable", [True, False])
def test_what_the_workers_of_a_refused_inference_hold_is_told_to_the_ledger(world: Any, unreadable: bool) -> None:
    it, seen = world(replicas=1), []
    it.run(30)
    it.loop._accounts.turn = lambda ref, observation, wants, *_, **__: seen.append((len(observation.workers), wants))
    if unreadable:
        asyncio.run(it.loop.refuse(2, it.status, "InvalidSpec", "why"))
    else:
        it.change(replicas=1, runtime="tpu")
        asyncio.run(it.turn())
    assert seen == [(1, None)]


def test_a_moment_of_silence_is_not_written(world: Any) -> None:
    it = world(replicas=2)
    it.run(60)
    written = len(it.cluster.statuses)
    it.cluster.workers["worker-1"].broken = "connection reset"
    it.run(5)
    it.cluster.workers["worker-1"].broken = None
    it.run(5)
    applied = {status["batch"]["appliedReplicas"] for status in it.cluster.statuses[written:]}
    assert applied <= {2}
    assert it.cluster.told("grant") == it.cluster.told("grant")[:2]


def test_a_failed_order_is_told_and_repeated(world: Any) -> None:
    it = world(replicas=1)
    it.run(30)
    it.cluster.faults["scale"] = ClusterError("403 Forbidden")
    it.change(replicas=3)
    it.run(20)
    assert it.condition("ScalingActive")["reason"] == "ScaleFailed"
    assert "Rescaled" not in [event.reason for event in it.cluster.events]
    del it.cluster.faults["scale"]
    it.run(10)
    assert it.cluster.replicas == 3
    assert [event.reason for event in it.cluster.events].count("Rescaled") == 1


def sizes_told(it: Any) -> list[tuple[int, int]]:
    """Changes of size in the status, oldest first; each must have its event and its count."""
    changes = [change for change in reversed(it.status["autoscaling"]["decisions"]) if change["from"] != change["to"]]
    events = [event.message for event in it.cluster.events if event.reason == "Rescaled"]
    for change, event in zip(changes, events[-len(changes) :] if changes else [], strict=True):
        assert event.startswith(f"from {change['from']} to {change['to']} workers")
    return [(change["from"], change["to"]) for change in changes]


def test_a_shrink_is_told_when_a_worker_took_it(world: Any) -> None:
    it = world(replicas=3)
    it.run(60)
    counted = len(it.figures.reasons)
    it.cluster.faults["drain"] = WorkerError("status 503", 503)
    it.change(replicas=1)
    it.run(20)
    assert it.status["desiredReplicas"] == 1
    it.change(replicas=3)
    it.run(10)
    it.cluster.faults.clear()
    it.run(60)
    assert it.cluster.told("drain") == it.cluster.told("scale") == []
    assert sizes_told(it) == []
    assert len(it.figures.reasons) == counted
    it.change(replicas=1)
    it.run(60)
    assert sizes_told(it) == [(3, 1)]
    assert len(it.figures.reasons) == counted + 1


def test_of_a_shrink_that_one_of_two_took_one_is_told(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    it = world(replicas=3)
    it.run(30)
    drain = it.cluster.drain

    async def one_refuses(ref: Any, worker: Any) -> None:
        if worker.name == "worker-2":
            raise WorkerError("status 503", 503)
        await drain(ref, worker)

    monkeypatch.setattr(it.cluster, "drain", one_refuses)
    it.change(replicas=1)
    it.run(20)
    assert sizes_told(it) == [(3, 2)]
    it.change(replicas=2)
    it.run(60)
    assert it.ready == it.cluster.replicas == 2
    assert sizes_told(it) == [(3, 2)]


def test_a_drain_that_was_taken_and_came_to_nothing_is_told_too(world: Any) -> None:
    it = world(replicas=2)
    it.run(30)
    it.cluster.drain_s = 60.0
    it.change(replicas=1)
    it.run(10)
    assert sizes_told(it) == [(2, 1)]
    (drained,) = (fake for fake in it.cluster.workers.values() if fake.drains_s is not None)
    drained.drains_s = None  # its container was started anew
    it.change(replicas=2)
    it.run(60)
    assert it.cluster.told("scale") == []
    assert sizes_told(it) == [(2, 1), (1, 2)]


def test_who_drained_and_is_gone_with_its_node_was_no_shrink(world: Any) -> None:
    it = world(replicas=2)
    it.run(30)
    it.cluster.drain_s = 60.0
    it.change(replicas=1)
    it.run(10)
    (drained,) = (name for name, fake in it.cluster.workers.items() if fake.drains_s is not None)
    del it.cluster.workers[drained]
    it.change(replicas=2)
    it.run(60)
    assert sizes_told(it) == [(2, 1), (1, 2)]


def test_who_drained_and_went_with_the_size_that_somebody_set_is_not_told_of_again(world: Any) -> None:
    it = world(replicas=3)
    it.run(30)
    it.cluster.drain_s = 60.0
    it.change(replicas=2)
    it.run(10)
    asyncio.run(it.cluster.scale(it.loop._ref, 2, it.cluster.told("drain")))
    it.run(60)
    assert sizes_told(it) == [(3, 2)]


def test_a_restart_amid_a_drain_tells_it_no_second_time(world: Any) -> None:
    it = world(replicas=3)
    it.run(30)
    it.cluster.drain_s = 20.0
    it.change(replicas=1)
    it.run(5)
    it.restart()
    it.run(60)
    assert it.cluster.replicas == 1
    assert sizes_told(it) == [(3, 1)]


@pytest.mark.parametrize("failing", ["write_status", "post_event"])
def test_an_event_that_could_not_be_posted_is_posted_later(world: Any, failing: str) -> None:
    it = world(replicas=1)
    it.run(60)
    it.cluster.events.clear()
    it.cluster.faults[failing] = ClusterError("500 Internal Server Error")
    it.change(replicas=3)
    it.run(10)
    it.cluster.workers["worker-1"].failure_reason = "DeviceLost"
    it.run(10)
    assert it.cluster.events == []
    it.cluster.faults.clear()
    asyncio.run(it.turn())
    assert [event.message[:16] for event in it.cluster.events][:1] == ["from 1 to 3 work"]
    it.run(120)
    assert len(it.cluster.events) == len(set(it.cluster.events)), "each once"


def test_an_event_that_is_refused_does_not_hold_up_the_next(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    it = world(replicas=1)
    it.run(60)
    it.cluster.events.clear()
    told: list[str] = []

    async def post_event(ref: Any, event: Event) -> None:
        told.append(event.message[:11])
        error = ClusterError("422 Unprocessable Entity")
        error.in_vain = told[-1] == "from 1 to 2"
        raise error

    monkeypatch.setattr(it.cluster, "post_event", post_event)
    for size in (2, 3):
        it.change(replicas=size)
        it.run(10)
    assert told[0] == "from 1 to 2"
    assert len(told) > 2
    assert set(told[1:]) == {"from 2 to 3"}, "which is tried again"
    monkeypatch.undo()
    it.run(5)
    assert [event.message[:11] for event in it.cluster.events] == ["from 2 to 3"]


def test_of_the_events_of_a_long_outage_the_newest_are_kept(world: Any) -> None:
    it = world(replicas=1)
    it.run(60)
    it.cluster.events.clear()
    it.cluster.faults["post_event"] = ClusterError("no answer")
    for size in range(2, 40):
        it.change(replicas=size)
        it.run(5)
    it.cluster.faults.clear()
    it.run(5)
    rescaled = [event.message for event in it.cluster.events if event.reason == "Rescaled"]
    assert len(it.cluster.events) == MOST_UNTOLD
    assert rescaled[-1].startswith("from 38 to 39 workers")


def test_hung_workers_cost_their_timeout_once_not_each(world: Any) -> None:
    it = world(replicas=5)
    it.run(30)
    for fake in it.cluster.workers.values():
        fake.hangs = True
    for _ in range(3):
        it.now_s += 5
        asyncio.run(asyncio.wait_for(it.turn(), timeout=1.0))
    assert it.status["replicas"] == 5


def test_without_figures_the_size_holds(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    it.run_until(lambda: it.ready == 3)
    it.cluster.demand_per_s = 0
    it.cluster.faults["state"] = ClusterError("no route to host")
    it.cluster.calls.clear()
    it.run(900)
    assert it.cluster.told("scale") == it.cluster.told("drain") == []
    assert it.condition("MetricsAvailable")["status"] == "False"
    assert it.figures.ages[-1] == ("Workers", math.inf)
    assert "MetricsUnavailable" in [event.reason for event in it.cluster.events]


def test_a_clock_that_is_set_back_does_not_stop_decisions(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.run(60)
    offset_s = [0.0]
    clock = lambda: it.now_s - offset_s[0]  # noqa: E731
    it.loop._wall = clock
    offset_s[0] = 86_400.0
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    it.run_until(lambda: it.ready == 3, limit_s=60)
    it.cluster.demand_per_s = 0.1 * CAPACITY_PER_S
    it.run_until(lambda: it.ready == 1, limit_s=90)


@pytest.mark.parametrize("set_forward_s", [3600.0, -3600.0])
def test_a_clock_that_is_set_skips_no_window(world: Any, set_forward_s: float) -> None:
    it = world(autoscaling=ELASTIC | {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}}})
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    it.run_until(lambda: it.ready == 3)
    it.cluster.demand_per_s = 0.1 * CAPACITY_PER_S
    it.run(30)
    it.loop._wall = lambda: it.now_s + set_forward_s
    it.run(200)
    assert it.cluster.told("drain") == []
    it.run_until(lambda: it.ready == 1, limit_s=200)


def test_a_fleet_that_somebody_deleted_comes_back_at_its_size(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
    it.run_until(lambda: it.ready == 3)
    it.cluster.replicas, it.cluster.workers = None, {}
    it.run(10)
    assert it.cluster.replicas == 3


def test_complaints_of_workers_end_with_them(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    it = world(autoscaling=ELASTIC)
    it.cluster.faults["grant"] = WorkerError("refused")
    for _ in range(3):
        it.run(60)
        it.cluster.workers.clear()
    it.cluster.faults.clear()
    it.run(60)
    assert len(re.findall(r"ceiling of worker-\d+: refused", caplog.text)) == 3
    assert it.loop._complaints._open == {}, "one more for each worker that ever failed"
