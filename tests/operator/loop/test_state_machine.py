"""Random histories of load, faults, edits and restarts against the cluster in memory: what must hold after every turn, and that
all of it comes to rest when it is over.
"""

import asyncio
import contextlib
import math
import selectors
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.inference_status import InferenceStatus
from yolastic_operator.cluster.base import ClusterError, WorkerError
from yolastic_operator.cluster.fake import FakeCluster
from yolastic_operator.loop import Loop, LoopSettings
from yolastic_operator.model import Fleet, Fresh, Missing, Ref, Stale, Worker
from yolastic_operator.observe.prometheus import LoadRatios, Prometheus
from yolastic_operator.policy.conditions import TYPES

REF = Ref("plant", "weld", "uid-1")
CAPACITY_PER_S = 32 / 0.052
"""Images/s of a worker of the fake at a ceiling of 32."""
PHASES = [Phase.generate, Phase.shrink]
VERBS = ["runtime", "ensure", "fleet", "scale", "state", "grant", "drain", "rebalance", "write_status", "post_event", "url"]
WORKER_VERBS = {"state", "grant", "drain", "rebalance"}
PERCENT = 40
"""Headroom that makes memory bind: (4096*0.6 - 600)/60 = 30 images."""


def _with(part: str, **fields: Any) -> Any:
    return lambda state: state.model_copy(update={part: getattr(state, part).model_copy(update=fields)})


LIES = {
    "NaN": _with("load", ratio=math.nan),
    "negative": _with("load", ratio=-1.0),
    "endless": _with("load", ratio=math.inf),
    "huge": _with("load", ratio=1e9),
    "ceiling above its limit": lambda state: state.model_copy(
        update={"ceiling": state.ceiling.model_copy(update={"ceiling": state.max_batch * 8, "base": 1, "granted": True})}
    ),
    "queue below zero": _with("load", queue_images=-5),
}


def _bound(spec: InferenceSpec) -> int:
    """What the specification and the memory allow, images."""
    budget = 4096 * (100 - spec.memory.headroom_percent) // 100
    return min(spec.batching.max_size, max((budget - 600) // 60, 1))


class Instant(selectors.DefaultSelector):
    """Waits no time for what is due later: the loop's clock is set to it, so that no time-out depends on how busy the host is."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "a turn waits for what never comes"
        self.now_s += max(timeout, 0.0)
        return super().select(0)


def instant_loop() -> asyncio.AbstractEventLoop:
    selector = Instant()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now_s  # type: ignore[method-assign]
    return loop


class Scrapes(Prometheus):
    """A Prometheus that knows the true ratios, or has the fault of the day."""

    def __init__(self, stage: "Stage") -> None:
        self.stage = stage
        self.fault: str | None = None

    async def load_ratios(self, ref: Ref) -> LoadRatios:
        match self.fault:
            case "gone":
                return LoadRatios(newest=Missing("Prometheus: no answer within 3 s"))
            case "empty":
                return LoadRatios()
            case "old":
                return LoadRatios({name: Stale(0.0, 300.0) for name in self.stage.cluster.workers}, Stale(300.0, 300.0))
            case "partial":
                first = next(iter(self.stage.cluster.workers), None)
                return LoadRatios({} if first is None else {first: Fresh(0.0, 5.0)}, Fresh(5.0, 5.0))
        ratio = self.stage.ratio
        return LoadRatios({name: Fresh(ratio, 5.0) for name in self.stage.cluster.workers}, Fresh(5.0, 5.0))


class Watched(FakeCluster):
    """Notes who was taken away by an order while it served, and orders beyond what may be."""

    def __init__(self, stage: "Stage") -> None:
        super().__init__(lambda: stage.now_s)
        self.stage = stage
        self.cut_off: list[str] = []
        self.early: set[str] = set()
        """Ordered away before they served."""
        self.shown: Fleet | None = None
        """What the watches showed before they stood still."""
        self.blind: list[str] = []
        """What was ordered or told to make the fleet smaller while nobody confirmed which workers there are."""

    async def fleet(self, ref: Ref) -> Fleet:
        fleet = await super().fleet(ref)
        return fleet if self.shown is None else self.shown

    async def drain(self, ref: Ref, worker: Worker) -> None:
        if self.shown is not None and self.shown.unconfirmed:
            self.blind.append(f"drain {worker.name}")
        await super().drain(ref, worker)

    async def scale(self, ref: Ref, replicas: int, victims: Any) -> None:
        if self.shown is not None and self.shown.unconfirmed and replicas <= (self.shown.replicas or 0):
            self.blind.append(f"scale {replicas}")
        # A worker of an older revision goes with its rollout, not with the order, and while a rollout has one too many the
        # cluster chooses. One that could not be told to drain goes when its time is over, and one that was ordered away before
        # it served may have come up since: the signal with which a cluster ends it makes it drain.
        revision = self.workload.revision if self.workload else ""
        deaf = {name for name, fake in self.workers.items() if fake.broken or fake.hangs or "drain" in self.faults}
        serving = {name for name, fake in self.workers.items() if self._ready(fake)}
        self.early |= set(victims) - serving
        surges = len(self.workers) > (self.replicas or 0)
        before = set() if surges else {name for name in serving if self.workers[name].revision == revision} - deaf - self.early
        await super().scale(ref, replicas, victims)
        if self.shown is not None:  # one's own order is known
            self.shown = replace(self.shown, replicas=replicas)
        self.cut_off += sorted(before - self.workers.keys())


class KilledError(BaseException):
    """The operator's process is no more."""


class Mortal:
    """The cluster as one operator reaches it, which ends at one of its calls."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster
        self.left: int | None = None
        """Calls until it is killed; None: it is not."""
        self.heard = False
        """The last call arrives."""

    def __getattr__(self, verb: str) -> Any:
        call = getattr(self._cluster, verb)

        async def mortal(*about: Any) -> Any:
            last = self.left is not None and self.left <= 0
            if last and not (self.heard and self.left == 0):
                raise KilledError
            self.left = None if self.left is None else self.left - 1
            answer = await call(*about)
            if last:
                raise KilledError
            return answer

        return mortal


@dataclass
class Known:
    """What the last turn wanted, under which spec."""

    desired: int
    generation: int


class Stage:
    """One inference in its world: two clocks, a cluster, a Prometheus, and the operator's loop."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0
        self.stepped_s = 0.0
        """How far the wall clock was set from the true time."""
        self.cluster = Watched(self)
        self.scrapes = Scrapes(self)
        self.generation = 0
        self.size: dict[str, Any] = {}
        self.fields: dict[str, Any] = {}
        self.autoscaled()
        self.runner = asyncio.Runner(loop_factory=instant_loop)
        self.restart()

    @property
    def ratio(self) -> float:
        ready = sum(self.cluster._ready(fake) for fake in self.cluster.workers.values())
        return self.cluster.demand_per_s / max(ready, 1) / CAPACITY_PER_S

    @property
    def status(self) -> dict[str, Any]:
        return self.cluster.statuses[-1] if self.cluster.statuses else {}

    def make_loop(self, prometheus: Prometheus | None = None) -> Loop:
        pace = LoopSettings(turn_s=5.0, control_timeout_s=0.003)
        wall = lambda: self.now_s + self.stepped_s  # noqa: E731
        self.reach = Mortal(self.cluster)
        reach: Any = self.reach
        return Loop(reach, REF, pace, monotonic=lambda: self.now_s, wall=wall, prometheus=prometheus or self.scrapes)

    def restart(self) -> None:
        self.loop = self.make_loop()
        self.known: Known | None = None

    def autoscaled(self, minimum: int = 1, maximum: int = 5, mode: str = "Active") -> None:
        window = {"scaleDown": {"stabilizationWindowSeconds": 30}}
        self.edit({"autoscaling": {"minReplicas": minimum, "maxReplicas": maximum, "mode": mode, "behavior": window}})

    def edit(self, size: dict[str, Any] | None = None, **fields: Any) -> None:
        self.size = self.size if size is None else size
        self.fields |= fields
        self.generation += 1

    @property
    def spec(self) -> InferenceSpec:
        model = {"uri": "https://models/m.onnx", "sha256": self.fields.get("sha256", "0" * 64)}
        rest = {name: value for name, value in self.fields.items() if name != "sha256"}
        return InferenceSpec.model_validate({"model": model, "drain": {"timeoutSeconds": 20}, **rest, **self.size})

    @property
    def active(self) -> bool:
        return self.size.get("autoscaling", {}).get("mode") == "Active"

    def turn(self, loop: Loop | None = None) -> float:
        return self.runner.run((loop or self.loop).turn(self.spec, self.generation, self.status))

    def silent(self) -> dict[str, str]:
        """Workers that serve and have no fresh figures, whoever is asked, with their revisions."""
        if self.scrapes.fault is None:
            return {}
        serving = {name: fake for name, fake in self.cluster.workers.items() if self.cluster._ready(fake)}
        if self.scrapes.fault == "partial":
            serving.pop(next(iter(self.cluster.workers), ""), None)
        quiet = "state" in self.cluster.faults
        wrong = (fake for fake in serving.values() if quiet or fake.hangs or fake.broken or fake.state_change)
        return {fake.name: fake.revision for fake in wrong}


class History(RuleBasedStateMachine):
    """What may happen, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.it = Stage()

    @initialize(load=st.floats(0.0, 4.0))
    def begin(self, load: float) -> None:
        self.it.cluster.demand_per_s = load * CAPACITY_PER_S
        self.turns(6)

    def turns(self, number: int) -> None:
        for _ in range(number):
            self.one_turn()

    def one_turn(self) -> None:
        it = self.it
        it.cluster._settle()  # what the cluster does by itself is no doing of this turn
        silent, known, told = it.silent(), it.known, len(it.cluster.calls)
        leaving = {name for name, fake in it.cluster.workers.items() if fake.drains_s is not None}
        there = set(it.cluster.workers)
        known_grants = {name for name, fake in it.cluster.workers.items() if fake.ceiling.granted}
        pause_s = it.turn()
        policy, work = it.loop._policy, it.cluster.workload
        # Who went with a rollout that the turn ordered need not be heard.
        blind = any(name in it.cluster.workers or (work and revision == work.revision) for name, revision in silent.items())
        orders = it.cluster.calls[told:]
        granted = [about for verb, about in orders if verb == "grant"]
        self.check_grants(granted)
        mode = it.size.get("autoscaling", {}).get("mode")
        if mode in {"Advisory", "Paused"}:
            assert {verb for verb, _ in orders} <= {"ensure", "grant"}
            assert mode == "Paused" or not granted
            assert not {name for name, *_ in granted} & known_grants, "held, and told another"
        desired = policy.desired_replicas
        if it.active and desired is not None and "fleet" not in it.cluster.faults and "runtime" not in it.cluster.faults:
            bounds = it.size["autoscaling"]
            assert bounds["minReplicas"] <= desired <= bounds["maxReplicas"]
            if known is not None and known.generation == it.generation and blind:
                assert desired >= known.desired, "shrunk although a serving worker is silent"
                drained = {about for verb, about in orders if verb == "drain"}
                begun = {name for name in drained - leaving if it.cluster.workers.get(name) and name in there}
                assert desired < known.desired or not begun or known.desired < (it.cluster.replicas or 0) + len(leaving)
            it.known = Known(desired, it.generation)
        else:
            it.known = None
        it.now_s += pause_s

    def check_grants(self, grants: list[tuple[str, int, int]]) -> None:
        # A spec that was rolled back is not the one that runs.
        work = self.it.cluster.workload
        bound = max(map(_bound, [self.it.spec, *([work.spec] if work else [])]))
        for name, base, ceiling in grants:
            assert 1 <= base <= ceiling <= bound, (name, base, ceiling, bound)

    # Load and time ----------------------------------------------------------------------------------------------------------

    @rule(load=st.one_of(st.floats(0.0, 7.0), st.sampled_from([0.0, 0.6, 2.0, 4.0])))
    def load_changes(self, load: float) -> None:
        self.it.cluster.demand_per_s = load * CAPACITY_PER_S
        self.turns(2)

    @rule(number=st.integers(1, 12))
    def time_passes(self, number: int) -> None:
        self.turns(number)

    @rule(seconds=st.sampled_from([30.0, 120.0, 700.0]))
    def the_operator_sleeps(self, seconds: float) -> None:
        self.it.now_s += seconds
        self.turns(1)

    @rule(step_s=st.sampled_from([-3600.0, -30.0, 30.0, 3600.0, 86400.0 * 40]))
    def the_wall_clock_is_set(self, step_s: float) -> None:
        self.it.stepped_s += step_s
        self.turns(2)

    # Workers ----------------------------------------------------------------------------------------------------------------

    def pick(self, number: int) -> Any:
        workers = list(self.it.cluster.workers.values())
        return workers[number % len(workers)]

    @precondition(lambda self: self.it.cluster.workers)
    @rule(number=st.integers(0, 5), fault=st.sampled_from(["hang", "unreachable", *LIES]))
    def a_worker_goes_wrong(self, number: int, fault: str) -> None:
        fake = self.pick(number)
        if fault == "hang":
            fake.hangs = True
        elif fault == "unreachable":
            fake.broken = "connection refused"
        else:
            fake.state_change = LIES[fault]
        self.turns(2)

    @rule(number=st.integers(0, 5), load=st.floats(0.0, 0.4))
    def the_load_goes_while_one_is_silent(self, number: int, load: float) -> None:
        self.heal()
        self.it.cluster.demand_per_s = 2.2 * CAPACITY_PER_S
        self.turns(12)
        self.it.scrapes.fault = "gone"
        self.pick(number).broken = "connection refused"
        self.it.cluster.demand_per_s = load * CAPACITY_PER_S
        self.turns(12)

    @precondition(lambda self: self.it.cluster.workers)
    @rule(number=st.integers(0, 5))
    def a_worker_is_killed(self, number: int) -> None:
        del self.it.cluster.workers[self.pick(number).name]
        self.turns(2)

    @precondition(lambda self: self.it.cluster.workers)
    @rule(number=st.integers(0, 5))
    def a_worker_crashes_again_and_again(self, number: int) -> None:
        self.pick(number).failure_reason = "WorkerExited"
        self.turns(2)

    @rule()
    def workers_are_well_again(self) -> None:
        for fake in self.it.cluster.workers.values():
            fake.hangs, fake.broken, fake.state_change, fake.failure_reason = False, None, None, None
        self.turns(2)

    @rule(places=st.sampled_from([None, 0, 1, 2, 3]))
    def devices_come_and_go(self, places: int | None) -> None:
        self.it.cluster.places = places
        self.turns(2)

    @rule(quota=st.sampled_from([None, 0, 1, 2, 3]))
    def a_quota_is_set(self, quota: int | None) -> None:
        self.it.cluster.quota = quota
        self.turns(2)

    # Prometheus and the API server ------------------------------------------------------------------------------------------

    @rule(fault=st.sampled_from([None, "gone", "empty", "old", "partial"]))
    def prometheus_changes(self, fault: str | None) -> None:
        self.it.scrapes.fault = fault
        self.turns(2)

    @rule(verbs=st.sets(st.sampled_from(VERBS), min_size=1, max_size=3), code=st.sampled_from([409, 410, 429, 500, 0]))
    def the_cluster_refuses(self, verbs: set[str], code: int) -> None:
        for verb in verbs:
            kind = WorkerError if verb in WORKER_VERBS else ClusterError
            self.it.cluster.faults[verb] = kind(f"{verb}: {code}")
        self.turns(2)

    @rule()
    def the_cluster_answers_again(self) -> None:
        self.it.cluster.faults.clear()
        self.turns(2)

    # People and operators ---------------------------------------------------------------------------------------------------

    @rule(minimum=st.integers(1, 3), more=st.integers(0, 4), mode=st.sampled_from(["Active"] * 3 + ["Advisory", "Paused"]))
    def the_bounds_are_edited(self, minimum: int, more: int, mode: str) -> None:
        self.it.autoscaled(minimum, minimum + more, mode)
        self.turns(2)

    @rule(replicas=st.integers(0, 4))
    def the_size_is_fixed(self, replicas: int) -> None:
        self.it.edit({"replicas": replicas})
        self.turns(2)

    @rule(letter=st.sampled_from("0ab"))
    def the_model_changes(self, letter: str) -> None:
        self.it.edit(sha256=letter * 64)
        self.turns(2)

    @rule(size=st.sampled_from([4, 8, 32]), headroom=st.sampled_from([10, PERCENT, 80]))
    def the_batch_is_edited(self, size: int, headroom: int) -> None:
        self.it.edit(batching={"maxSize": size}, memory={"headroomPercent": headroom})
        self.turns(2)

    @precondition(lambda self: self.it.cluster.replicas is not None)
    @rule(size=st.integers(0, 6))
    def somebody_scales_the_deployment(self, size: int) -> None:
        self.it.cluster.replicas = size
        self.it.cluster._settle()
        self.turns(2)

    @precondition(lambda self: self.it.cluster.replicas is not None)
    @rule()
    def somebody_deletes_the_deployment(self) -> None:
        self.it.cluster.replicas, self.it.cluster.workload = None, None
        self.it.cluster.workers.clear()
        self.turns(2)

    @rule()
    def the_operator_restarts(self) -> None:
        self.it.restart()
        self.turns(2)

    @rule(calls=st.integers(0, 20), heard=st.booleans())
    def the_operator_is_killed_in_the_middle_of_a_turn(self, calls: int, heard: bool) -> None:
        self.it.reach.left, self.it.reach.heard = calls, heard
        with contextlib.suppress(KilledError):
            self.turns(2)
        self.it.restart()
        self.turns(2)

    @rule(number=st.integers(1, 6))
    def a_second_operator_turns_as_well(self, number: int) -> None:
        own = self.it.reach
        other = self.it.make_loop()
        self.it.reach = own
        for _ in range(number):
            self.it.turn(other)
            self.it.known = None
            self.turns(1)

    @rule(orphans=st.booleans())
    def the_object_is_made_anew(self, orphans: bool) -> None:
        if not orphans:
            self.it.cluster.replicas, self.it.cluster.workload = None, None
            self.it.cluster.workers.clear()
        self.it.cluster.statuses.clear()
        self.it.generation = 0
        self.it.edit()
        self.it.restart()
        self.turns(2)

    @precondition(lambda self: self.it.cluster.workers)
    @rule(number=st.integers(0, 5), size=st.one_of(st.none(), st.integers(1, 5)), wanted=st.one_of(st.none(), st.integers(0, 4)))
    def the_watch_stands_still_while_things_happen(self, number: int, size: int | None, wanted: int | None) -> None:
        cluster = self.it.cluster
        self.it.cluster.shown = self.it.runner.run(FakeCluster.fleet(cluster, REF)) if "fleet" not in cluster.faults else None
        del cluster.workers[self.pick(number).name]
        if size is not None and cluster.replicas is not None:
            cluster.replicas = size
        cluster._settle()
        self.turns(2)  # after which what contradicts it has made a list due
        if cluster.shown is not None and wanted is not None:
            cluster.shown = replace(cluster.shown, unconfirmed="list: 429")
            self.it.edit({"replicas": wanted})
            self.turns(wanted + 1)
        cluster.shown = None
        self.turns(1)

    # What must hold ---------------------------------------------------------------------------------------------------------

    @invariant()
    def nobody_is_cut_off_while_serving(self) -> None:
        assert self.it.cluster.cut_off == []

    @invariant()
    def nothing_shrinks_while_nobody_confirms_who_is_there(self) -> None:
        assert self.it.cluster.blind == []

    @invariant()
    def the_status_is_one(self) -> None:
        if not self.it.status:
            return
        status = InferenceStatus.model_validate(self.it.status)
        kinds = [condition.type for condition in status.conditions]
        assert len(kinds) == len(set(kinds))
        assert set(kinds) <= set(TYPES)
        ready = next(item for item in status.conditions if item.type == "Ready")
        if ready.status == "True" and ready.reason == "WorkersReady":
            assert status.ready_replicas > 0
        assert status.batch.ceiling is None or status.batch.ceiling <= 32

    def teardown(self) -> None:
        it = self.it
        try:
            self.heal()
            self.converges()
            self.rests()
        finally:
            it.runner.close()

    def heal(self) -> None:
        it = self.it
        it.cluster.faults.clear()
        it.scrapes.fault = None
        it.cluster.places, it.cluster.quota = None, None
        for fake in it.cluster.workers.values():
            fake.hangs, fake.broken, fake.state_change, fake.failure_reason = False, None, None, None
        it.cluster.demand_per_s = 1.5 * CAPACITY_PER_S
        it.autoscaled(1, 5)
        it.edit(batching={"maxSize": 32}, memory={"headroomPercent": 10})

    def converges(self) -> None:
        it = self.it
        serving = {name for name, fake in it.cluster.workers.items() if it.cluster._ready(fake)}
        self.turns(2)
        if serving & {name for name, fake in it.cluster.workers.items() if it.cluster._ready(fake)}:
            for kind in ("MetricsAvailable", "ScalingActive"):
                assert self.condition(kind) == "True", (kind, "two turns after all is well")
        end_s = it.now_s + 600
        while not self.settled():
            assert it.now_s < end_s, (it.cluster.replicas, it.cluster.workers, it.status)
            self.one_turn()

    def condition(self, kind: str) -> str:
        found: str = next(item["status"] for item in self.it.status["conditions"] if item["type"] == kind)
        return found

    def settled(self) -> bool:
        cluster, spec = self.it.cluster, self.it.spec
        ready = [fake for fake in cluster.workers.values() if cluster._ready(fake) and fake.ceiling.granted]
        size = self.it.loop._policy.desired_replicas
        whole = len(ready) == len(cluster.workers) == cluster.replicas == size
        right = all(fake.ceiling.ceiling == 32 and cluster.workload.revision == fake.revision for fake in ready)  # type: ignore[union-attr]
        status = self.it.status
        said = (status.get("readyReplicas"), status["observedGeneration"]) == (size, self.it.generation)
        said = said and self.condition("Progressing") == "False"
        return whole and right and said and size in {2, 3} and spec.batching.max_size == 32

    def rests(self) -> None:
        it = self.it
        wanted = {"Ready", "ModelLoaded", "MemoryBudgetResolved", "MetricsAvailable", "ScalingActive"}
        assert {kind for kind in TYPES if self.condition(kind) == "True"} - {"ScalingLimited"} == wanted
        self.turns(24)
        told, written, size = len(it.cluster.calls), len(it.cluster.statuses), it.cluster.replicas
        self.turns(24)
        sizes = [about for verb, about in it.cluster.calls[told:] if verb == "scale"]
        assert len(sizes) <= 1, "constant load flaps"
        assert it.cluster.replicas in {size, 2}
        assert len(it.cluster.statuses) - written <= 2 + 12 * len(sizes)  # the base tier may follow the demand


@pytest.mark.parametrize("_", [0])
def test_whatever_happens_nothing_is_lost_and_all_comes_to_rest(_: int) -> None:
    chosen = settings(
        max_examples=60, stateful_step_count=20, phases=PHASES, report_multiple_bugs=False, deadline=None, derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )  # fmt: skip
    run_state_machine_as_test(History, settings=chosen)
