"""One turn: observe -> decide -> act. The single writer of its inference; the same for Kubernetes, this host and tests."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.inference_status import DecisionStatus, InferenceStatus
from yolastic_contract.runtime import RuntimeSpec
from yolastic_contract.state import CeilingGrant
from yolastic_operator.act import status as folding
from yolastic_operator.act import workload
from yolastic_operator.act.ceilings import to_send
from yolastic_operator.act.changes import Changes, gave_up_s, reason_of, scale_events, still_counted, written
from yolastic_operator.act.children import Children
from yolastic_operator.act.complaints import Complaints
from yolastic_operator.act.effects import Effects, Resized
from yolastic_operator.act.publishing import Pace, Publishing
from yolastic_operator.act.rolling import Rolling
from yolastic_operator.cluster.base import Cluster, ClusterError, RefusedError
from yolastic_operator.model import (
    ConditionUpdate,
    Decision,
    Missing,
    Observation,
    PolicyState,
    Reading,
    Ref,
)
from yolastic_operator.observe.observe import Observer
from yolastic_operator.observe.prometheus import Prometheus
from yolastic_operator.policy import leased, rollout, second
from yolastic_operator.policy.accounts import Accounts
from yolastic_operator.policy.conditions import refused
from yolastic_operator.policy.decide import decide
from yolastic_operator.policy.places import Places, lacking, placed
from yolastic_operator.policy.workers import is_serving, waits_for_memory
from yolastic_operator.telemetry import NoTelemetry, Telemetry


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How a loop paces itself."""

    turn_s: float = 5.0
    """From one turn to the next, seconds."""
    busy_turn_s: float = 1.0
    """The same while something waits for confirmation: a drain, a new ceiling."""
    lease_turn_s: float = 0.5
    """The same while a worker on a shared device has not confirmed what it was granted or is to give back."""
    ensure_every_s: float = 120.0
    """The children are applied again this often though no edit was seen: repairs what the watches missed, and the Secret."""
    status_every_s: float = 30.0
    """A status in which only shown numbers moved is written at most this often."""
    ages_every_s: float = math.inf
    """The same for a status in which only ages and noise in the explanation moved; by default that is never written."""
    control_timeout_s: float = 2.0
    """The longest one worker may take to answer."""
    propagation_delay_s: float = 0.0
    """How long clients may not know yet of a worker that became ready, seconds."""
    stale_after_s: float = 60.0
    """A state older than this is Missing instead of Stale."""


class Loop:
    """Turns of one inference. A new object after a restart goes on from the status and the fleet: nothing changes.

    `monotonic` and `wall` are clocks in seconds (`wall`: Unix time); `telemetry` receives figures; without `prometheus` load
    ratios come from the workers themselves. `accounts`, `places`: shared devices, and who waits for one of its own, for all loops
    of an operator.
    """

    def __init__(
        self,
        cluster: Cluster,
        ref: Ref,
        settings: LoopSettings = LoopSettings(),
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        telemetry: Telemetry | None = None,
        prometheus: Prometheus | None = None,
        accounts: Accounts | None = None,
        places: Places | None = None,
    ) -> None:
        self._cluster = cluster
        self._ref = ref
        self._settings = settings
        self._monotonic = monotonic
        self._wall = wall
        self._telemetry = telemetry or NoTelemetry()
        self._accounts = accounts or Accounts()
        self._places = places or Places()
        self._complaints = Complaints(ref)
        self._effects = Effects(cluster, ref, self._complaints, settings.control_timeout_s, settings.propagation_delay_s)
        self._observer = Observer(
            cluster,
            ref,
            monotonic=monotonic,
            timeout_s=settings.control_timeout_s,
            stale_after_s=settings.stale_after_s,
            prometheus=prometheus,
            ask_every_s=settings.turn_s / 2,
        )
        self._policy = PolicyState()
        self._publishing = Publishing(cluster, ref, self._complaints, Pace(settings.status_every_s, settings.ages_every_s))
        self._rolling = Rolling()
        self._homeless: frozenset[str] = frozenset()
        """As the ledger said in the turn before."""
        self._waiting: frozenset[str] = frozenset()
        """Workers that waited for memory of a shared device then."""
        self._children = Children(cluster, ref, self._complaints, turn_s=settings.turn_s, every_s=settings.ensure_every_s)
        self._changes = Changes(InferenceStatus())

    async def turn(self, spec: InferenceSpec, generation: int, status: Mapping[str, Any]) -> float:
        """One turn; returns the seconds to wait before the next one.

        `status` counts at the first turn only. A cluster or a worker that fails costs its step, never the turn.
        """
        started_s = self._monotonic()
        previous = self._seeded(status)
        facts = folding.Facts(self._ref, spec, generation, self._wall())
        try:
            return await self._turn(previous, facts)
        except RefusedError as error:
            # What runs goes on running; it is looked at, and nothing about it is decided.
            refusal, seen = refused(error.reason, str(error)), await self._look()
            self._accounts.turn(self._ref, seen, None, self._monotonic(), facts.now_s, is_known=False)
            await self._publish(folding.fold(previous, replace(facts, observation=seen, conditions=refusal)))
            return self._settings.turn_s
        finally:
            self._telemetry.turn(self._ref, self._monotonic() - started_s)

    async def refuse(self, generation: int, status: Mapping[str, Any], reason: str, message: str) -> float:
        """A turn for a spec that cannot even be read: the conditions say why, what runs goes on running."""
        previous = self._seeded(status)
        self._accounts.turn(self._ref, await self._look(), None, self._monotonic(), self._wall(), is_known=False)
        await self._publish(folding.with_conditions(previous, refused(reason, message), generation, self._wall()))
        return self._settings.turn_s

    def _seeded(self, status: Mapping[str, Any]) -> InferenceStatus:
        last = self._publishing.last
        if last is None:
            last = folding.read(status)
            self._publishing.found(last)
            self._changes = Changes(last)
            now_s, wall_s = self._monotonic(), self._wall()
            known = second.no_places(gave_up_s(last, now_s, wall_s))
            self._policy = replace(
                known,
                lost_s=self._lost_s(last),
                scale_events=scale_events(last, now_s, wall_s),
                objective_percent=last.autoscaling.objective_load_percent,
                swing=(last.autoscaling.demand_swing_percent or 0) / 100,
            )
        return last

    def _lost_s(self, status: InferenceStatus) -> float | None:
        """Since when there were no figures before this process began, on its own clock."""
        lost_time = status.autoscaling.metrics_lost_time
        lost_wall_s = None if lost_time is None else folding.seconds(lost_time)
        return None if lost_wall_s is None else self._monotonic() - max(self._wall() - lost_wall_s, 0.0)

    async def _turn(self, previous: InferenceStatus, facts: folding.Facts) -> float:
        trouble: list[ConditionUpdate] = []
        try:
            runtime = await self._runtime(facts.spec)
            fleet = await self._cluster.fleet(self._ref)
        except ClusterError as error:
            self._complaints.add("look", error)
            return self._settings.turn_s
        if fleet.unconfirmed:
            self._complaints.add("look", fleet.unconfirmed)
        else:
            self._complaints.clear("look")

        work = workload.build(self._ref, facts.spec, facts.spec.runtime, runtime)
        work = self._rolling.follow(
            fleet,
            work,
            self._monotonic(),
            homeless=self._homeless,
            waiting=self._waiting,
        )
        facts, runtime = replace(facts, spec=work.spec), work.runtime
        first = _first_size(work.spec, previous)
        fleet, refused_children = await self._children.ensure(work, facts.generation, fleet, first, self._monotonic())
        trouble += refused_children
        self._complaints.keep({worker.name for worker in fleet.workers})
        observation = await self._observer.observe(fleet)
        # Windows and rates are spans of time: a wall clock that is set would stretch or skip them.
        kind, now_s = runtime.accelerator_resource, self._monotonic()
        wanted_by = self._places.wanted_by(self._ref, kind, now_s)
        decision = decide(observation, facts.spec, runtime, self._policy, now_s, wanted_by)
        self._policy = decision.state
        self._places.tell(self._ref, kind, lacking(observation, decision), placed(observation), now_s)
        leases = self._accounts.turn(
            self._ref, observation, leased.wants(decision, facts.spec, runtime), self._monotonic(), facts.now_s
        )
        self._homeless = leases.homeless
        self._waiting = frozenset(view.worker.name for view in observation.workers if waits_for_memory(view))
        await self._effects.lease(observation, leases.grants)
        decision = leased.with_leases(decision, leases)
        trouble += leased.trouble(leases)
        facts = replace(facts, observation=observation, decision=decision, url=self._children.url)
        trouble += self._rolling.conditions(observation)
        pause_s = await self._act(previous, facts, observation, decision, trouble, leased_to=leases.grants)
        if leases.shared:  # a backlog must be seen at once: the burst is not the worker's to take
            pause_s = min(pause_s, self._settings.lease_turn_s if leases.grants else self._settings.busy_turn_s)
        return pause_s

    async def _runtime(self, spec: InferenceSpec) -> RuntimeSpec:
        runtime = await self._cluster.runtime(spec.runtime)
        if runtime is None:
            raise RefusedError("RuntimeNotFound", f"there is no YoloRuntime {spec.runtime}")
        return runtime

    async def _look(self) -> Observation | None:
        try:
            return await self._observer.observe(await self._cluster.fleet(self._ref))
        except ClusterError as error:
            self._complaints.add("look", error)
            return None

    async def _act(
        self,
        previous: InferenceStatus,
        facts: folding.Facts,
        observation: Observation,
        decision: Decision,
        trouble: list[ConditionUpdate],
        *,
        leased_to: Mapping[str, CeilingGrant],
    ) -> float:
        unconfirmed, rebalancing, resized = False, False, Resized()
        unconfirmed = await self._effects.grant(observation, to_send(decision))
        if decision.mode == "Active":
            if rollout.may_shrink(observation.fleet, decision.replicas.desired):
                resized = await self._effects.resize(observation, decision, self._monotonic(), facts.spec.drain.timeout_seconds)
            else:
                resized = Resized(held=True)
            rebalancing = await self._effects.rebalance(observation, previous.ready_replicas, self._monotonic(), facts.now_s)
        size = observation.fleet.replicas or 0
        changes = self._changes.of(decision, size, moved=resized.moved, now_s=self._monotonic(), wall_s=facts.now_s)
        if resized.failure is not None:
            trouble.append(ConditionUpdate("ScalingActive", "False", "ScaleFailed", resized.failure))
        done = written(observation, decision, resized, leased_to)
        rules = facts.spec.autoscaling
        before = previous.autoscaling.scale_events
        events = [] if rules is None else still_counted(before, changes, rules.behavior, facts.now_s)
        facts = replace(facts, conditions=trouble, changes=changes, scaled=resized.ordered, written=done, scale_events=events)
        status = folding.fold(previous, facts)
        self._tell(observation, decision, status, changes)
        await self._publish(status)
        busy = unconfirmed or resized.waiting or rebalancing
        return min(self._settings.busy_turn_s, self._settings.turn_s) if busy else self._settings.turn_s

    async def _publish(self, status: InferenceStatus) -> None:
        await self._publishing.publish(status, self._monotonic())

    def _tell(self, observation: Observation, decision: Decision, status: InferenceStatus, changes: list[DecisionStatus]) -> None:
        for change in changes:
            self._telemetry.decision(self._ref, reason_of(change))
        advised = decision.replicas.advised
        self._telemetry.sizes(self._ref, decision.replicas.desired, status.ready_replicas)
        self._telemetry.recommended(self._ref, decision.replicas.desired if advised is None else advised)
        if decision.ceiling is not None:
            bounds = decision.ceiling.bounds
            told = {str(name): value for name, value in bounds.own().items()}
            told |= {} if bounds.lease is None else {"lease": bounds.lease}
            self._telemetry.ceiling(self._ref, {"effective": decision.ceiling.tiers.ceiling, **told})
        serving = [view for view in observation.workers if is_serving(view)]
        newest_s = min((_age_s(view.state) for view in serving), default=None)
        self._telemetry.observation_age(self._ref, "Workers", newest_s)
        if observation.prometheus is not None:
            self._telemetry.observation_age(self._ref, "Prometheus", _age_s(observation.prometheus) if serving else None)


def _age_s(reading: Reading[Any]) -> float:
    # A figure that stood still through an outage would look like health.
    return math.inf if isinstance(reading, Missing) else reading.age_s


def _first_size(spec: InferenceSpec, previous: InferenceStatus) -> int:
    """The size of a fleet that has none yet: what was wanted last when somebody deleted it, else the smallest."""
    if spec.replicas is not None:
        return spec.replicas
    if spec.autoscaling is None:
        return 1
    return min(max(previous.desired_replicas, spec.autoscaling.min_replicas), spec.autoscaling.max_replicas)
