"""Which workers count as what: the groups that every decision shares."""

from collections.abc import Iterable
from typing import Final

from yolastic_contract.state import WorkerState
from yolastic_operator.model import Fresh, Missing, Observation, WorkerView

MODEL_REASONS: Final = frozenset(
    {"DownloadFailed", "ModelNotFound", "ModelUnreadable", "ChecksumMismatch", "UnsupportedModel", "FixedBatch"}
)
"""Failures that are the model's, not the worker's or the device's."""


def is_draining(view: WorkerView) -> bool:
    """It was told to leave, and has not left: it takes no more images and never will again."""
    if view.worker.phase in {"Terminating", "Failed"}:
        return False
    told = isinstance(view.state, Fresh) and view.state.value.phase == "Draining"
    return told or view.worker.phase == "Draining"


def is_leaving(view: WorkerView) -> bool:
    """Draining or being removed: no supply."""
    return view.worker.phase == "Terminating" or is_draining(view)


def is_serving(view: WorkerView) -> bool:
    """Images are sent to it."""
    return view.worker.phase == "Ready" and view.worker.ready and not is_draining(view)


def is_starting(view: WorkerView) -> bool:
    """Ordered, not failed, and not serving yet: supply on its way."""
    return not is_leaving(view) and not is_serving(view) and view.worker.phase != "Failed"


def waits_for_memory(view: WorkerView) -> bool:
    """It starts on a shared device and may not take any of its memory yet."""
    return isinstance(view.state, Fresh) and view.state.value.waits_for_memory


def current_revision(observation: Observation) -> tuple[WorkerView, ...]:
    """Workers of the revision that the cluster was last told to run, those being removed excepted."""
    revision = observation.fleet.revision
    return tuple(
        view
        for view in observation.workers
        if revision is not None and view.worker.revision == revision and view.worker.phase != "Terminating"
    )


def known_states(views: Iterable[WorkerView]) -> tuple[WorkerState, ...]:
    """States of workers that are through their warm-up, stale ones included: what they measured of themselves does not age."""
    usable = (view for view in views if view.worker.phase != "Failed" and not is_leaving(view))
    states = (view.state.value for view in usable if not isinstance(view.state, Missing))
    return tuple(state for state in states if state.phase == "Ready")


def count(number: int, noun: str = "worker") -> str:
    """`1 worker`, `2 workers`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
