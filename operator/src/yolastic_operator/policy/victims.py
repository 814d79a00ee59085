"""Which workers go when fewer are wanted."""

from yolastic_operator.model import Missing, Observation, WorkerView
from yolastic_operator.policy.workers import is_draining, is_serving


def choose(observation: Observation, desired: int) -> tuple[str, ...]:
    """Names of the workers to lose, in the order they should go: as many as there are too many.

    Of the workers that the ordered size is above `desired`, those that were never made go without being named.
    Those that drain already come first, they never serve again; then the worst: failed, without a place, not serving, of an
    older revision, silent, on a device whose memory ran out, least in flight, newest.
    """
    ordered = observation.fleet.replicas
    if ordered is None:
        return ()
    candidates = [view for view in observation.workers if view.worker.phase != "Terminating"]
    candidates.sort(key=lambda view: _rank(view, observation.fleet.revision))
    return tuple(view.worker.name for view in candidates[: max(min(ordered, len(candidates)) - desired, 0)])


def _rank(view: WorkerView, revision: str | None) -> tuple[bool, bool, bool, bool, bool, bool, int, float, str]:
    worker = view.worker
    told = None if isinstance(view.state, Missing) else view.state.value
    return (
        not is_draining(view),
        worker.phase != "Failed" and worker.failure_reason is None,
        not worker.unschedulable,
        is_serving(view),
        worker.revision == revision,
        told is not None and told.health.out_of_memory_cap is None,
        -1 if told is None else told.load.inflight_images,
        -worker.created_s,
        worker.name,
    )
