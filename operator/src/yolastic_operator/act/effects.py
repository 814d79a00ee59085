"""Carries a decision out: tiers to workers, sizes to the cluster, drains and rebalancing. What fails is tried again next turn."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace

from yolastic_contract.state import CeilingGrant
from yolastic_operator.act import ceilings, shrink
from yolastic_operator.act.complaints import Complaints
from yolastic_operator.act.rebalancing import Rebalancing
from yolastic_operator.cluster.base import Cluster, ClusterError, WorkerError
from yolastic_operator.model import CeilingDecision, Decision, Observation, Ref, Worker
from yolastic_operator.policy.workers import is_draining


@dataclass(frozen=True, slots=True)
class Resized:
    """What became of the wish for another size."""

    moved: tuple[int, int] | None = None
    """From which size to which, when this turn's orders and the drains that were taken lead nearer to the wanted one: a change
    to tell. Workers that took a drain do not count, ordered or not."""
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
        self._taken: frozenset[str] = frozenset()
        """Of those that leave, who took the drain."""
        self._size: int | None = None
        """Ordered when the last turn ended."""
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
        drained = frozenset(view.worker.name for view in observation.workers if is_draining(view))
        # Of those that drain unasked it was told before a restart.
        known = self._lost(observation) | drained.intersection(step.leaving).difference(self._leaving)
        start = max((observation.fleet.replicas or 0) - len(known), 0)
        drained |= await self._drain(observation, step.drain)
        self._leaving, self._deaf = step.leaving, step.deaf
        self._taken = (self._taken | drained).intersection(step.leaving)
        resized = await self._order(step, now_s)
        self._size = observation.fleet.replicas if resized.size is None else resized.size
        end, desired = max((self._size or 0) - len(self._taken), 0), decision.replicas.desired
        return replace(resized, moved=(start, end)) if abs(end - desired) < abs(start - desired) else resized

    def _lost(self, observation: Observation) -> frozenset[str]:
        """Who took a drain and still counts in the ordered size. Who has gone since does, unless the size was changed with it."""
        if observation.fleet.replicas == self._size:
            return self._taken
        return self._taken.intersection(worker.name for worker in observation.fleet.workers)

    async def _drain(self, observation: Observation, names: Sequence[str]) -> frozenset[str]:
        """Who took it."""
        workers = {worker.name: worker for worker in observation.fleet.workers}
        asked = (self._ask(workers[name], "drain", self._cluster.drain(self._ref, workers[name])) for name in names)
        return frozenset(name for name, took in zip(names, await asyncio.gather(*asked), strict=True) if took)

    async def _order(self, step: shrink.SizeStep, now_s: float) -> Resized:
        waiting = bool(step.waiting)
        if step.order is None:
            return Resized(waiting=waiting)
        try:
            await self._cluster.scale(self._ref, step.order, step.victims)
        except ClusterError as error:
            self._complaints.add("scale", error)
            return Resized(waiting=waiting, failure=str(error))
        self._complaints.clear("scale")
        # They are not in the ordered size any more: until the cluster removes them they must not be taken off it once more.
        self._dismissed = {**self._dismissed, **dict.fromkeys(step.victims, now_s)}
        self._leaving = {name: since_s for name, since_s in step.leaving.items() if name not in step.victims}
        self._taken = self._taken.difference(step.victims)
        return Resized(ordered=True, size=step.order, waiting=waiting)

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
        try:
            async with asyncio.timeout(self._timeout_s):
                await call
        except TimeoutError:
            self._complaints.add(what, f"no answer within {self._timeout_s:g} s", worker.name)
            return False
        except (WorkerError, ClusterError) as error:
            self._complaints.add(what, error, worker.name)
            return False
        self._complaints.clear(what, worker.name)
        return True
