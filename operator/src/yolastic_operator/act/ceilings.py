"""Which workers must be told other tiers than they work with. Pure."""

from collections.abc import Iterator
from typing import Literal

from yolastic_contract.state import CeilingGrant, WorkerState
from yolastic_operator.model import CeilingDecision, Fresh, Observation, Worker

_BOUNDS: tuple[Literal["spec", "memory", "latency", "efficiency"], ...] = ("spec", "memory", "latency", "efficiency")


def grant_for(decision: CeilingDecision, state: WorkerState) -> CeilingGrant:
    """The grant for one worker: the decided tiers, cut to what this worker has warmed up."""
    own_limit = max(state.buckets, default=state.max_batch)
    ceiling = max(min(decision.tiers.ceiling, own_limit), 1)
    bounds = {name: value for name in _BOUNDS if (value := getattr(decision.bounds, name)) is not None}
    return CeilingGrant(base=min(decision.tiers.base, ceiling), ceiling=ceiling, bounds=bounds)


def pending(observation: Observation, revision: str, decision: CeilingDecision) -> Iterator[tuple[Worker, CeilingGrant]]:
    """Ready workers of the revision whose own state shows other tiers, each with its grant."""
    for worker, state in _granted(observation, revision):
        grant = grant_for(decision, state)
        if not _works_with(state, grant):
            yield worker, grant


def applied_replicas(observation: Observation, revision: str, decision: CeilingDecision) -> int:
    """Workers whose own state shows the tiers they were granted."""
    return sum(_works_with(state, grant_for(decision, state)) for _, state in _granted(observation, revision))


def _granted(observation: Observation, revision: str) -> Iterator[tuple[Worker, WorkerState]]:
    for view in observation.workers:
        match view.state:
            case Fresh(value=state) if view.worker.revision == revision and state.phase == "Ready":
                yield view.worker, state
            case _:
                continue


def _works_with(state: WorkerState, grant: CeilingGrant) -> bool:
    return state.ceiling.granted and (state.ceiling.base, state.ceiling.ceiling) == (grant.base, grant.ceiling)
