"""Carries a decision out: tiers to workers, sizes to the cluster, drains and rebalancing. What fails is tried again next turn."""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass

from yolastic_contract.state import CeilingGrant
from yolastic_operator.act import ceilings, shrink
from yolastic_operator.act.complaints import Complaints
from yolastic_operator.act.rebalancing import Rebalancing
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


class Effects:
    """Acts on one inference; remembers who is on the way out and who is still to rebalance."""

    def __init__(
        self, cluster: Cluster, ref: Ref, complaints: Complaints, timeout_s: float, propagation_delay_s: float = 0.0
    ) -> None:
        """`propagation_delay_s`: until all clients have heard of a worker that became ready, seconds."""
        self._cluster = cluster
        self._ref = ref
        self._complaints = complaints
        self._timeout_s = timeout_s
        self._leaving: Mapping[str, float] = {}
        self._unbidden: Mapping[str, float] = {}
        self._dismissed: Mapping[str, float] = {}
        self._deaf: frozenset[str] = frozenset()
        self._rebalancing = Rebalancing(propagation_delay_s)

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

    async def rebalance(self, observation: Observation, counted: int, now_s: float, wall_s: float) -> bool:
        """When workers joined, let the others go of their keep-alive connections, so that the new get their share.

        Arguments as those of `Rebalancing.due`. True while somebody is to be told once more at a time of its own.
        """
        due = self._rebalancing.due(observation, self._leaving, counted=counted, now_s=now_s, wall_s=wall_s)
        for worker, took in zip(due, await asyncio.gather(*map(self._rebalance, due)), strict=True):
            if took:
                self._rebalancing.told(worker)
        return self._rebalancing.waits

    async def _rebalance(self, worker: Worker) -> bool:
        return await self._ask(worker, "rebalance", self._cluster.rebalance(self._ref, worker))

    async def _ask(self, worker: Worker, what: str, call: Awaitable[None]) -> bool:
        """One call to a worker; False: it failed, and is made again next turn.

        That a drain or a grant is still to do shows in `/state`; of a rebalance nothing shows, so it is remembered.
        """
        step = f"{what} of {worker.name}"
        try:
            async with asyncio.timeout(self._timeout_s):
                await call
        except TimeoutError:
            self._complaints.add(step, f"no answer within {self._timeout_s:g} s")
            return False
        except (WorkerError, ClusterError) as error:
            self._complaints.add(step, error)
            return False
        self._complaints.clear(step)
        return True
