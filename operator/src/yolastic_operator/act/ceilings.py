"""Which workers must be told other tiers than they work with. Pure."""

from collections.abc import Iterator

from yolastic_contract.state import CeilingGrant, WorkerState
from yolastic_operator.model import CeilingDecision, Decision, Fresh, Missing, Observation, Tiers, Worker, WorkerView
from yolastic_operator.policy.workers import current_revision


def grant_for(decision: CeilingDecision, state: WorkerState) -> CeilingGrant:
    """The grant for one worker: the decided tiers, cut to what this worker has warmed up."""
    own_limit = max(state.buckets, default=state.max_batch)
    ceiling = max(min(decision.tiers.ceiling, own_limit), 1)
    return CeilingGrant(
        base=min(decision.tiers.base, ceiling),
        ceiling=ceiling,
        bounds=decision.bounds.own(),
        budget_bytes=decision.budget_bytes,
    )


def to_send(decision: Decision) -> CeilingDecision | None:
    """What workers are to be told in this mode. In Paused that is what is held, if anything is; in Advisory nothing."""
    ceiling = decision.ceiling
    is_sent = decision.mode == "Active" or (decision.mode == "Paused" and ceiling is not None and ceiling.held)
    return ceiling if is_sent else None


def pending(observation: Observation, decision: CeilingDecision) -> Iterator[tuple[Worker, CeilingGrant]]:
    """Ready workers of the current revision without a lease whose own state shows other tiers, each with its grant.

    Of tiers that are held only those that were granted nothing yet: they have come since.
    """
    for view, state in _granted(observation):
        if view.worker.name in decision.leased or (decision.held and state.ceiling.granted):
            continue
        grant = grant_for(decision, state)
        if isinstance(view.state, Fresh) and not _works_with(state, grant):
            yield view.worker, grant


def applied_replicas(observation: Observation, decision: CeilingDecision) -> int:
    """Workers whose own state shows the tiers they were granted; a moment of silence takes nothing back."""
    leased = decision.leased
    return sum(
        _is_at(state, leased[view.worker.name]) if view.worker.name in leased else _works_with(state, grant_for(decision, state))
        for view, state in _granted(observation)
    )


def _is_at(state: WorkerState, tiers: Tiers) -> bool:
    return state.ceiling.granted and (state.ceiling.base, state.ceiling.ceiling) == (tiers.base, tiers.ceiling)


def _granted(observation: Observation) -> Iterator[tuple[WorkerView, WorkerState]]:
    for view in current_revision(observation):
        if not isinstance(view.state, Missing) and view.state.value.phase == "Ready":
            yield view, view.state.value


def _works_with(state: WorkerState, grant: CeilingGrant) -> bool:
    """A changed budget is told too: the worker gives memory back for a smaller one."""
    now = state.ceiling
    return now.granted and (now.base, now.ceiling, now.budget_bytes) == (grant.base, grant.ceiling, grant.budget_bytes)
