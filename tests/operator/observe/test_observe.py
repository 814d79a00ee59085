"""Gathering: every number Fresh, Stale or Missing, and nobody waits for somebody else's fault."""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_contract.state import WorkerState
from yolastic_operator.cluster.base import ClusterError
from yolastic_operator.cluster.fake import FakeCluster
from yolastic_operator.model import Fresh, Missing, Observation, Reading, Ref, Stale, Worker, Workload
from yolastic_operator.observe.observe import Observer, view_of
from yolastic_operator.observe.plausible import implausible
from yolastic_operator.observe.prometheus import LoadRatios

REF = Ref("plant", "weld")
SPEC = InferenceSpec.model_validate({"model": {"uri": "file:///m.onnx", "sha256": "0" * 64}})
RUNTIME = RuntimeSpec(image="example/worker:1")


@dataclass
class World:
    cluster: FakeCluster
    observer: Observer
    now_s: list[float]

    async def look(self) -> Observation:
        return await self.observer.observe(await self.cluster.fleet(REF))


async def world(workers: int, timeout_s: float = 0.2) -> World:
    now_s = [100.0]
    cluster = FakeCluster(lambda: now_s[0], start_s=0.0)
    await cluster.ensure(Workload(REF, SPEC, "cpu", RUNTIME, revision="a"), workers)
    observer = Observer(cluster, REF, monotonic=lambda: now_s[0], timeout_s=timeout_s, stale_after_s=60, prometheus=None)
    return World(cluster, observer, now_s)


def test_hung_and_broken_workers_do_not_delay_the_others() -> None:
    async def scenario() -> tuple[Observation, float]:
        made = await world(6)
        for name in ("worker-2", "worker-3", "worker-5"):
            made.cluster.workers[name].hangs = True
        made.cluster.workers["worker-4"].broken = "status 500"
        began_s = time.monotonic()
        return await made.look(), time.monotonic() - began_s

    observation, took_s = asyncio.run(scenario())
    assert took_s < 0.5
    kinds = [type(view.state) for view in observation.workers]
    assert kinds == [Fresh, Missing, Missing, Missing, Missing, Fresh]
    assert observation.workers[1].state == Missing("no answer within 0.2 s")
    assert observation.workers[3].state == Missing("worker-4: status 500")
    assert observation.workers[3].load_ratio == Missing("worker-4: status 500")


def test_a_worker_that_falls_silent_turns_stale_and_then_missing() -> None:
    async def scenario() -> list[Reading[WorkerState]]:
        made = await world(1)
        readings = [(await made.look()).workers[0].state]
        made.cluster.faults["state"] = ClusterError("the way to it is broken")
        for pause_s in (20, 40, 1):
            made.now_s[0] += pause_s
            readings.append((await made.look()).workers[0].state)
        return readings

    fresh, stale, older, missing = asyncio.run(scenario())
    assert isinstance(fresh, Fresh)
    assert stale == Stale(fresh.value, 20)
    assert older == Stale(fresh.value, 60)
    assert missing == Missing("the way to it is broken")


@pytest.mark.parametrize("change", [{"phase": "Terminating"}, {"phase": "Failed"}, {"phase": "Pending"}, {"address": None}])
def test_who_cannot_answer_is_not_asked(change: Any) -> None:
    async def scenario() -> Reading[WorkerState]:
        made = await world(1)
        fleet = await made.cluster.fleet(REF)
        told = await made.observer.observe(replace(fleet, workers=(replace(fleet.workers[0], **change),)))
        return told.workers[0].state

    assert asyncio.run(scenario()) == Missing(f"the worker is {change.get('phase', 'Ready')}")


def test_of_workers_that_are_gone_nothing_is_kept() -> None:
    async def scenario() -> World:
        made = await world(2)
        await made.look()
        fleet = await made.cluster.fleet(REF)
        await made.observer.observe(replace(fleet, workers=fleet.workers[1:]))
        return made

    assert list(asyncio.run(scenario()).observer._seen) == ["worker-2"]


MODEL = {"sha256": "0" * 64, "task": "Detect", "names": ["a"], "input_width": 64, "input_height": 64, "precision": "FP32"}
IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "held": ({"memory": {"held_images": -1}}, "memory.held_images is negative (-1)"),
    "device": ({"memory": {"device_bytes": -5}}, "memory.device_bytes is negative (-5)"),
    "calm": ({"ceiling": {"calm_s": math.nan}}, "ceiling.calm_s is not a finite number"),
    "serial": ({"ceiling": {"serial": 10**17}}, "ceiling.serial is impossible (1e+17)"),
    "endless count": ({"load": {"demand_images": 10**18}}, "load.demand_images is impossible (1e+18)"),
    "a count that is no float": ({"load": {"demand_images": 10**400}}, "load.demand_images is impossible (more than 300 digits)"),
    "a negative one": ({"load": {"queue_images": -(10**400)}}, "load.queue_images is impossible (more than 300 digits)"),
    "NaN ratio": ({"load": {"ratio": math.nan}}, "load.ratio is not a finite number"),
    "endless ratio": ({"load": {"ratio": math.inf}}, "load.ratio is not a finite number"),
    "negative ratio": ({"load": {"ratio": -0.1}}, "load.ratio is negative (-0.1)"),
    "absurd ratio": ({"load": {"ratio": 1e7}}, "load.ratio is impossible (1e+07)"),
    "negative arrivals": ({"load": {"arrived_per_s": -1.0}}, "load.arrived_per_s is negative (-1)"),
    "negative queue": ({"load": {"queue_images": -1}}, "load.queue_images is negative (-1)"),
    "negative in flight": ({"load": {"inflight_images": -3}}, "load.inflight_images is negative (-3)"),
    "endless batch": ({"speed": {"fixed": 1e4, "per_image": 0.1}}, "speed.fixed is impossible (10000)"),
    "negative speed": ({"speed": {"fixed": -0.1, "per_image": 0.1}}, "speed.fixed is negative (-0.1)"),
    "endless plan": ({"memory": {"plan": {"fixed": math.inf, "per_image": 1}}}, "memory.plan.fixed is not a finite number"),
    "NaN memory": ({"memory": {"fit": {"fixed": 1.0, "per_image": math.nan}}}, "memory.fit.per_image is not a finite number"),
    "less than no scatter": (
        {"memory": {"fit": {"fixed": 1.0, "per_image": 1.0, "residual": -1e12}}},
        "memory.fit.residual is negative (-1e+12)",
    ),
    "endless memory": ({"memory": {"fit": {"fixed": 1.0, "per_image": 1e308}}}, "memory.fit.per_image is impossible (1e+308)"),
    "endless device": ({"memory": {"device_bytes": 2**64}}, "memory.device_bytes is impossible (1.84467e+19)"),
    "endless budget": ({"ceiling": {"budget_bytes": 2**64}}, "ceiling.budget_bytes is impossible (1.84467e+19)"),
    "ready before its start": ({"ready_after_s": -5.0}, "ready_after_s is negative (-5)"),
    "negative refusals": ({"load": {"refused_per_s": -1.0}}, "load.refused_per_s is negative (-1)"),
    "negative capacity": ({"load": {"capacity_per_s": -1.0}}, "load.capacity_per_s is negative (-1)"),
    "no capacity to speak of": ({"load": {"capacity_per_s": 5e-324}}, "load.capacity_per_s is impossible (4.94066e-324)"),
    "negative demand": ({"load": {"demand_images": -1}}, "load.demand_images is negative (-1)"),
    "negative peak": ({"memory": {"observed_peak_bytes": -1}}, "memory.observed_peak_bytes is negative (-1)"),
    "negative limit": ({"memory": {"limit_bytes": -5}}, "memory.limit_bytes is negative (-5)"),
    "base above ceiling": ({"ceiling": {"base": 8, "ceiling": 4}}, "ceiling.base 8 and ceiling.ceiling 4 do not go together"),
    "ceiling of nothing": ({"ceiling": {"base": 0, "ceiling": 0}}, "ceiling.base 0 and ceiling.ceiling 0 do not go together"),
    "ceiling above its own limit": ({"ceiling": {"ceiling": 64}}, "ceiling.ceiling 64 is above its own max_batch 32"),
    "no batch at all": ({"max_batch": 0}, "max_batch is 0"),
    "endless batches": ({"max_batch": 2**40}, f"max_batch is {2**40}"),
    "bucket of nothing": ({"buckets": [0, 1]}, "buckets holds 0, which is not from 1 to its own max_batch 32"),
    "negative bucket": ({"buckets": [-5]}, "buckets holds -5, which is not from 1 to its own max_batch 32"),
    "bucket above its own limit": ({"buckets": [1, 64]}, "buckets holds 64, which is not from 1 to its own max_batch 32"),
    "nothing wanted": ({"ceiling": {"wanted": 0}}, "ceiling.wanted is 0"),
    "endlessly much wanted": ({"ceiling": {"wanted": 257}}, "ceiling.wanted is 257"),
    "less than nothing reachable": ({"ceiling": {"reachable": -1}}, "ceiling.reachable is -1"),
    "endlessly much reachable": ({"ceiling": {"reachable": 2**40}}, f"ceiling.reachable is {2**40}"),
    "ceiling beyond all before Ready": (
        {"phase": "Starting", "ceiling": {"ceiling": 2**40}},
        f"ceiling.ceiling is {2**40}",
    ),
    "endless task": ({"model": {**MODEL, "task": "x" * 5000}}, "model.task has 5000 letters"),
    "endless digest": ({"model": {**MODEL, "sha256": "0" * 65}}, "model.sha256 has 65 letters"),
}


def changed(state: WorkerState, change: dict[str, Any]) -> WorkerState:
    merged = state.model_dump()
    for part, values in change.items():
        merged[part] = {**merged[part], **values} if isinstance(merged[part], dict) else values
    return WorkerState.model_validate(merged)


@pytest.mark.parametrize(("change", "reason"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_numbers_are_no_numbers(change: dict[str, Any], reason: str) -> None:
    async def scenario() -> Observation:
        made = await world(2)
        made.cluster.workers["worker-1"].state_change = lambda state: changed(state, change)
        return await made.look()

    broken, sound = asyncio.run(scenario()).workers
    assert broken.state == Missing(reason)
    assert isinstance(broken.load_ratio, Missing)
    assert isinstance(sound.state, Fresh)
    assert implausible(sound.state.value) is None


READY = Worker("w", "a", "Ready", 0.0, address="127.0.0.1", ready=True)
Make = Callable[[WorkerState], Reading[WorkerState]]
CHOICES: dict[str, tuple[Reading[float] | None, Make, Reading[float], str]] = {
    "no Prometheus": (None, Fresh, Fresh(0.25), "Workers"),
    "Prometheus first": (Fresh(0.5, 9), Fresh, Fresh(0.5, 9), "Prometheus"),
    "stale Prometheus, fresh worker": (Stale(0.5, 90), Fresh, Fresh(0.25), "Workers"),
    "missing series, fresh worker": (Missing("x"), Fresh, Fresh(0.25), "Workers"),
    "stale Prometheus, silent worker": (Stale(0.5, 90), lambda _: Missing("silent"), Stale(0.5, 90), "Prometheus"),
    "fresh Prometheus, silent worker": (Fresh(0.5, 9), lambda _: Missing("silent"), Fresh(0.5, 9), "Prometheus"),
    "both stale": (Stale(0.5, 90), lambda state: Stale(state, 30), Stale(0.25, 30), "Workers"),
    "leaves by its own word": (
        None, lambda state: Fresh(changed(state, {"phase": "Draining"})), Missing("the worker is Draining"), "Workers",
    ),
    "nothing": (None, lambda _: Missing("silent"), Missing("silent"), "Workers"),
}  # fmt: skip


@pytest.mark.parametrize(("scraped", "make", "expected", "source"), CHOICES.values(), ids=CHOICES)
def test_prometheus_comes_first_and_the_worker_fills_in(
    scraped: Reading[float] | None, make: Make, expected: Reading[float], source: str
) -> None:
    state = asyncio.run(a_state())
    view = view_of(READY, make(changed(state, {"load": {"ratio": 0.25}})), scraped)
    assert (view.load_ratio, view.load_source) == (expected, source)


@pytest.mark.parametrize("phase", ["Starting", "Draining", "Terminating", "Failed", "Pending"])
def test_the_load_of_a_worker_that_does_not_serve_means_nothing(phase: Any) -> None:
    state = asyncio.run(a_state())
    view = view_of(replace(READY, phase=phase, ready=False), Fresh(state), Fresh(0.0))
    assert view.load_ratio == Missing(f"the worker is {phase}")


def test_a_worker_that_does_not_know_its_speed_has_no_load_ratio() -> None:
    """It says 0 then, also to Prometheus, whatever comes to it."""
    state = changed(asyncio.run(a_state()), {"load": {"ratio": 0.0, "capacity_per_s": 0.0, "arrived_per_s": 800.0}})
    for told in (Fresh(state), Stale(state, 10.0)):
        for scraped in (None, Fresh(0.0)):
            assert view_of(READY, told, scraped).load_ratio == Missing("it does not know its speed yet")
    assert view_of(READY, Fresh(changed(state, {"phase": "Starting"})), None).load_ratio == Missing("the worker is Starting")


class Counted:
    """A Prometheus that counts its questions."""

    def __init__(self) -> None:
        self.asked = 0

    async def load_ratios(self, ref: Ref) -> LoadRatios:
        self.asked += 1
        return LoadRatios({"worker-1": Fresh(0.5, 57.0), "worker-2": Missing("Prometheus: odd")}, Fresh(57.0, 57.0))


def test_quick_turns_do_not_ask_prometheus_each_time_and_its_figures_grow_older_meanwhile() -> None:
    async def scenario() -> tuple[list[Observation], list[int]]:
        made, asked = await world(2), Counted()
        made.observer = Observer(
            made.cluster, REF, monotonic=lambda: made.now_s[0], timeout_s=0.2, stale_after_s=60, prometheus=asked, ask_every_s=5
        )  # type: ignore[arg-type]
        seen, counts = [], []
        for pause_s in (0, 2, 2, 1):
            made.now_s[0] += pause_s
            seen.append(await made.look())
            counts.append(asked.asked)
        return seen, counts

    seen, counts = asyncio.run(scenario())
    assert counts == [1, 1, 1, 2]
    newest = [observation.prometheus for observation in seen]
    assert newest == [Fresh(57.0, 57.0), Fresh(59.0, 59.0), Stale(61.0, 61.0), Fresh(57.0, 57.0)]
    first = [(observation.workers[0].load_source, type(observation.workers[0].load_ratio)) for observation in seen]
    assert first == [("Prometheus", Fresh), ("Prometheus", Fresh), ("Workers", Fresh), ("Prometheus", Fresh)]
    assert {observation.workers[1].load_source for observation in seen} == {"Workers"}


async def a_state() -> WorkerState:
    made = await world(1)
    return await made.cluster.state(REF, READY_NAMED)


READY_NAMED = replace(READY, name="worker-1")
