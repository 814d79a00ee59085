"""Carries a decision out: tiers to workers, sizes to the cluster, drains and rebalancing. What fails is tried again next turn."""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass

from yolastic_contract.state import CeilingGrant
from yolastic_operator.act import ceilings, shrink
from yolastic_operator.act.complaints import Complaints
from yolastic_operator.cluster.base import Cluster, ClusterError, WorkerError
from yolastic_operator.model import CeilingDecision, Decision, Observation, Ref, Worker


@dataclass(frozen=True, slots=True)
class Resized:
    """What became of the wish for another size."""

    begun: bool = False
    """Growing was ordered, or the first step of shrinking taken: a change to tell."""
    ordered: bool = False
    """A size was ordered in this turn."""
    size: int | None = None
    """Which one."""
    waiting: bool = False
    """Workers drain; the order waits for them."""
    failure: str | None = None
    """Why the cluster did not take the order."""
    held: bool = False
    """Fewer are wanted, and are ordered later, for the sake of a rollout."""


class Effects:
    """Acts on one inference; remembers who is on the way out and who was ready."""

    def __init__(
        self, cluster: Cluster, ref: Ref, complaints: Complaints, timeout_s: float, propagation_delay_s: float = 0.0
    ) -> None:
        """`propagation_delay_s`: until all clients have heard of a worker that became ready, seconds."""
        self._cluster = cluster
        self._ref = ref
        self._complaints = complaints
        self._timeout_s = timeout_s
        self._propagation_delay_s = propagation_delay_s
        self._leaving: Mapping[str, float] = {}
        self._unbidden: Mapping[str, float] = {}
        self._dismissed: Mapping[str, float] = {}
        self._deaf: frozenset[str] = frozenset()
        self._ready: frozenset[str] | None = None
        self._again_s: float | None = None
        """When to rebalance once more."""

    async def grant(self, observation: Observation, decision: CeilingDecision | None) -> bool:
        """Push the tiers to whoever does not work with them; True when somebody did not, so confirmation is due."""
        if decision is None:
            return False
        grants = list(ceilings.pending(observation, decision))
        await asyncio.gather(
            *(self._ask(worker, "ceiling", self._cluster.grant(self._ref, worker, grant)) for worker, grant in grants)
        )
        return bool(grants)

    async def lease(self, observation: Observation, grants: Mapping[str, CeilingGrant]) -> None:
        """Send workers on a shared device what the ledger grants them."""
        told = [(worker, grants[worker.name]) for worker in observation.fleet.workers if worker.name in grants]
        await asyncio.gather(
            *(self._ask(worker, "ceiling", self._cluster.grant(self._ref, worker, grant)) for worker, grant in told)
        )

    async def resize(self, observation: Observation, decision: Decision, now_s: float, drain_timeout_s: float) -> Resized:
        """Take the next step towards the wanted size."""
        self._unbidden = shrink.unbidden(observation, self._leaving, self._unbidden, now_s)
        self._dismissed = shrink.still_dismissed(observation, self._dismissed, now_s)
        step = shrink.plan(
            observation,
            desired=decision.replicas.desired,
            victims=decision.victims,
            leaving=self._leaving,
            seen=self._unbidden,
            dismissed=self._dismissed,
            deaf=self._deaf,
            now_s=now_s,
            timeout_s=drain_timeout_s,
        )
        ordered = observation.fleet.replicas or 0
        begun = decision.replicas.desired < ordered and any(name not in self._leaving for name in step.leaving)
        self._leaving, self._deaf = step.leaving, step.deaf
        workers = {worker.name: worker for worker in observation.fleet.workers}
        await asyncio.gather(
            *(self._ask(workers[name], "drain", self._cluster.drain(self._ref, workers[name])) for name in step.drain)
        )
        if step.order is None:
            return Resized(begun, waiting=bool(step.waiting))
        try:
            await self._cluster.scale(self._ref, step.order, step.victims)
        except ClusterError as error:
            self._complaints.add("scale", error)
            return Resized(begun, waiting=bool(step.waiting), failure=str(error))
        self._complaints.clear("scale")
        # They are not in the ordered size any more: until the cluster removes them they must not be taken off it once more.
        self._dismissed = {**self._dismissed, **dict.fromkeys(step.victims, now_s)}
        self._leaving = {name: since_s for name, since_s in step.leaving.items() if name not in step.victims}
        # An order without victims grows, or gives up workers that were never made.
        return Resized(begun or not step.victims, ordered=True, size=step.order, waiting=bool(step.waiting))

    async def rebalance(self, observation: Observation, now_s: float) -> bool:
        """When workers became ready, let the others go of their keep-alive connections, so that the new get their share.

        At once, and again when all clients have heard of the new ones: a connection made anew before that goes to an old one.
        Then all are told, the new ones too: if only the old gave up theirs a second time, the new would end up with too many.
        True while that is still to come.
        """
        ready = {worker.name: worker for worker in observation.fleet.workers if worker.ready and worker.phase == "Ready"}
        before, self._ready = self._ready, frozenset(ready)
        told: frozenset[str] = frozenset()
        if before is not None and self._ready - before:
            told = self._ready & before
            self._again_s = now_s + self._propagation_delay_s if told and self._propagation_delay_s else None
        elif self._again_s is not None and now_s >= self._again_s:
            told, self._again_s = self._ready, None
        staying = [ready[name] for name in sorted(told - self._leaving.keys())]
        await asyncio.gather(*(self._ask(item, "rebalance", self._cluster.rebalance(self._ref, item)) for item in staying))
        return self._again_s is not None

    async def _ask(self, worker: Worker, what: str, call: Awaitable[None]) -> None:
        """One call to a worker; when it fails the next turn sees by `/state` that it is still to do."""
        step = f"{what} of {worker.name}"
        try:
            async with asyncio.timeout(self._timeout_s):
                await call
            self._complaints.clear(step)
        except TimeoutError:
            self._complaints.add(step, f"no answer within {self._timeout_s:g} s")
        except (WorkerError, ClusterError) as error:
            self._complaints.add(step, error)
