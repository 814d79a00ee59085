"""How a new revision takes the place of an old one, and when it is given up. Pure.

Whether a device is free is not computed from nodes and pods: that takes the right to read all of both, and guesses what only the
scheduler knows (taints, affinity, other people's pods). The worker that is to come beside the old ones is the question: when the
scheduler finds no place for it, none is free. So `Auto` surges first and goes one by one when that stays unplaced, or when it
is not even made because a quota is used up.

More workers may be ordered than there are places. Those without one serve nothing, yet a Deployment counts them as the one that
may be away, and then takes away nobody who serves. So it is told how many they are: one that serves goes at a time, not a second.
How many places there are is counted before the first one goes. After that more are noticed at once and fewer late: the device of
one that has just gone is nobody's for a moment, and a wrong count costs time that way round, and a worker the other.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from yolastic_contract.inference import InferenceSpec, RolloutStrategy
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.model import Fleet, Manner, Worker

PLACE_WAIT_S: Final = 10.0
"""A new worker without a place beside the old ones gets this long before one of them makes room, seconds."""
LOST_WAIT_S: Final = 60.0
"""One by one: when fewer workers have a place than had one, the scheduler gets this long to find another, seconds.

It tries again within 10 s when something has gone; after that the place is taken for lost, and the next old one makes room. Who
was refused for a quota is tried again ever more rarely: to notice that there is room may take as long as it was refused before,
which comes on top.
"""
LEAVE_MARGIN_S: Final = 60.0
"""Beside its drain a worker that leaves may take so long to go, seconds."""
FAILURES: Final = 3
"""A new revision whose worker has ended this often before it served is given up."""
STUCK_S: Final = 600.0
"""So is one whose worker cannot even start for this long (no image, no Secret, no place though an old one made room, refused by
the cluster), seconds; Kubernetes' progress deadline. Where nobody serves meanwhile, one without a place has `LOST_WAIT_S`.
"""
ASKED_LENGTH: Final = 10


@dataclass(frozen=True, slots=True)
class Kept:
    """What makes the workers of a revision."""

    revision: str
    runtime_name: str
    spec: InferenceSpec
    runtime: RuntimeSpec


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A revision that was rolled back, and why."""

    revision: str
    asked: str
    """What the spec was that asked for it: `asked_by`."""
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Record:
    """What must outlive the operator: kept with the Deployment."""

    running: Kept | None = None
    """What the cluster was last told to run."""
    good: Kept | None = None
    """What served last: `running` itself, or until a worker of it has served what did before; None: nothing has yet.

    Whether one serves at the moment says nothing: it may just start again, or none may be ordered, when the spec is edited.
    """
    given_up: GivenUp | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """Since when something stands still; seconds on the clock of `plan`, None: it does not."""

    unplaced_s: float | None = None
    stuck_s: float | None = None
    leaving_s: float | None = None
    """Some worker leaves: it is about to make room."""
    lost_s: float | None = None
    """One by one, fewer workers have a place than `places`, and none is about to be free."""
    nowhere_s: float | None = None
    """One by one, somebody made room and no worker of the new revision has found a place."""
    places: int | None = None
    """One by one: so many workers find a place at the same time; None: all that are ordered, as far as anybody knows."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run, and how it takes the place of what runs."""

    target: Kept
    manner: Manner
    record: Record
    watch: Watch
    unplaced: int = 0
    """`Workload.unplaced`."""


def plan(
    fleet: Fleet,
    wanted: Kept,
    *,
    record: Record,
    watch: Watch,
    now_s: float,
    homeless: Collection[str] = (),
    waiting: Collection[str] = (),
) -> Plan:
    """The next step of a rollout; the same answer until something moves.

    Args:
        fleet: size, workers and manner of updating as the cluster has them.
        wanted: what the spec asks for.
        record: `Plan.record` of the turn before, or what the cluster kept of it.
        watch: `Plan.watch` of the turn before; empty after a restart.
        now_s: seconds of a clock that is never set.
        homeless: workers that have a place, and find no memory on the shared device there unless an old one makes room.
        waiting: all workers that wait for memory of a shared device, these among them.
    """
    target, given_up = wanted, record.given_up
    if (
        given_up is not None
        and (given_up.revision, given_up.asked) == (wanted.revision, asked_by(wanted.spec))
        and record.running
    ):
        target = record.running
    if record.running is None or record.running.revision != target.revision:
        # What was gone back to had served before, though it may not yet again.
        served = given_up is not None or _serves(fleet, record.running)
        record = Record(target, record.running if served else record.good)
        watch = Watch(places=watch.places)
    elif given_up is None or target is wanted:
        record = Record(target, target if _serves(fleet, target) else record.good)

    watch = _watched(fleet, target, watch, now_s, homeless, waiting)
    failed = _failed(fleet, target, watch, now_s)
    if target is wanted and record.good is not None and record.good.revision != target.revision and failed is not None:
        lost = GivenUp(target.revision, asked_by(wanted.spec), *failed)
        target, watch = record.good, Watch(places=watch.places)
        record = Record(target, target, lost)
    manner = _manner(fleet, target, wanted.spec.rollout.strategy, watch, now_s)
    places = _places(fleet, manner, watch, now_s, _lost_wait_s(fleet, target), waiting)
    unplaced = 0 if places is None else max((fleet.replicas or 0) - places, 0)
    # A new count is a new question: what was missed before says nothing of it.
    watch = replace(watch, places=places, lost_s=watch.lost_s if places == watch.places else None)
    return Plan(target, manner, record, watch, unplaced)


def asked_by(spec: InferenceSpec) -> str:
    """Short digest of a spec less its size: whoever scales a revision that was given up does not ask to try it again.

    Nor does who pauses it, or lets it be scaled: what was given up is known not to serve, and to try it may take one that does.
    """
    text = spec.model_dump_json(by_alias=True, exclude_defaults=True, exclude={"replicas", "autoscaling"})
    return hashlib.sha256(text.encode()).hexdigest()[:ASKED_LENGTH]


def effective(target: Kept, spec: InferenceSpec) -> InferenceSpec:
    """The spec to decide by: that of what runs, with the size that is asked for now."""
    return target.spec.model_copy(update={"replicas": spec.replicas, "autoscaling": spec.autoscaling})


def may_shrink(fleet: Fleet, desired: int) -> bool:
    """Whether `desired` may be ordered now; no fewer while old ones go one by one and some that are ordered have no place.

    A Deployment shares a smaller size between old and new in proportion: it may take one that serves beside the one that is away
    and leave one that has no place. And told that more may be away, it would let another go at once.
    """
    serving = any(worker.ready and worker.revision != fleet.revision for worker in fleet.workers)
    return not (fleet.unplaced and serving and 0 < desired < (fleet.replicas or 0))


def _serves(fleet: Fleet, kept: Kept | None) -> bool:
    return kept is not None and any(worker.ready and worker.revision == kept.revision for worker in fleet.workers)


def _live(fleet: Fleet, kept: Kept) -> tuple[list[Worker], list[Worker]]:
    """Workers of the revision, and the others; those being removed are neither."""
    live = [worker for worker in fleet.workers if worker.phase != "Terminating"]
    new = [worker for worker in live if worker.revision == kept.revision]
    return new, [worker for worker in live if worker.revision != kept.revision]


def _housed(workers: Collection[Worker], waiting: Collection[str]) -> list[Worker]:
    """Workers that have a place, or of whom nobody has said yet that they have none."""
    return [worker for worker in workers if not worker.unschedulable and worker.name not in waiting]


def is_refused_for_quota(fleet: Fleet, new: Collection[Worker]) -> bool:
    """Whether a quota keeps a new worker from being made; one that was made and starts is waited for first."""
    return fleet.is_full and all(worker.ready for worker in new)


def is_last(old: Collection[Worker]) -> bool:
    """Whether nobody of an old revision would serve if one of these went."""
    return sum(worker.ready for worker in old) <= 1


def _watched(  # noqa: PLR0917 - the arguments of `plan`
    fleet: Fleet, target: Kept, watch: Watch, now_s: float, homeless: Collection[str], waiting: Collection[str]
) -> Watch:
    new, old = _live(fleet, target)
    ordered = fleet.replicas or 0
    places = watch.places
    if places is None and fleet.unplaced:  # as the process before this one told the cluster
        places = ordered - fleet.unplaced
    # One that leaves is about to make room: then it is no want of devices. On a node that is off it leaves for ever.
    leaving_s = _since(watch.leaving_s, any(worker.phase == "Terminating" for worker in fleet.workers), now_s)
    leaving = leaving_s is not None and now_s - leaving_s <= target.spec.drain.timeout_seconds + LEAVE_MARGIN_S
    refused = is_refused_for_quota(fleet, new)
    homeless_new = any(worker.unschedulable or worker.name in homeless for worker in new)
    unplaced = bool(old) and not leaving and (homeless_new or refused)
    had = ordered if places is None else min(places, ordered)
    missed = fleet.manner == "OneByOne" and not leaving and len(_housed((*new, *old), waiting)) < had
    # A revision that fits nowhere (a label no node has, more than any node has) is no want of devices: the last old one that
    # serves does not go for it, and in the end the others come back.
    placeless = all(worker.unschedulable for worker in new) if new else refused
    nowhere = missed and placeless and (places is not None or not old)
    lost = unplaced and missed and not (nowhere and is_last(old))
    stuck = any(worker.failure_reason is not None and worker.phase == "Failed" for worker in new)
    stuck = stuck or bool(fleet.refusal and not fleet.is_full and not new)
    return Watch(
        unplaced_s=_since(watch.unplaced_s, unplaced, now_s),
        stuck_s=_since(watch.stuck_s, stuck, now_s),
        leaving_s=leaving_s,
        lost_s=_since(watch.lost_s, lost, now_s),
        nowhere_s=_since(watch.nowhere_s, nowhere, now_s),
        places=places,
    )


def _since(before_s: float | None, holds: bool, now_s: float) -> float | None:
    if not holds:
        return None
    return now_s if before_s is None else before_s


def _failed(fleet: Fleet, target: Kept, watch: Watch, now_s: float) -> tuple[str, str] | None:
    """Reason and words for which the revision is given up; None while it may still come, or where one of it serves."""
    new, _ = _live(fleet, target)
    refused = "FailedCreate", f"the cluster makes no worker of it: {fleet.refusal}"
    wait_s = STUCK_S if any(worker.ready for worker in fleet.workers) else _lost_wait_s(fleet, target)
    if _for_long(watch.nowhere_s, wait_s, now_s):
        return _failure_of(new[0]) if new else refused
    if any(worker.ready for worker in new):
        return None
    stuck = _for_long(watch.stuck_s, STUCK_S, now_s)
    failing = [worker for worker in new if worker.failure_reason is not None]
    if not failing:
        return refused if stuck else None
    worst = max(failing, key=lambda worker: worker.failures)
    return _failure_of(worst) if stuck or worst.failures >= FAILURES else None


def _failure_of(worker: Worker) -> tuple[str, str]:
    reason = worker.failure_reason or "NoCapacity"
    return reason, f"worker {worker.name}: {reason}: {worker.failure_message}"


def _manner(fleet: Fleet, target: Kept, strategy: RolloutStrategy, watch: Watch, now_s: float) -> Manner:
    if strategy != "Auto":
        return "OneByOne" if strategy == "Recreate" else "Surge"
    if fleet.manner == "OneByOne":
        # To its end: a surge in between would only find again that there is no place.
        new, old = _live(fleet, target)
        ordered = fleet.replicas or 0
        placed = ordered if watch.places is None else min(watch.places, ordered)
        over = not old and sum(worker.ready for worker in new) >= placed
        return "Surge" if over else "OneByOne"
    return "OneByOne" if _for_long(watch.unplaced_s, PLACE_WAIT_S, now_s) else "Surge"


def _places(  # noqa: PLR0917 - the arguments of `plan`
    fleet: Fleet, manner: Manner, watch: Watch, now_s: float, lost_wait_s: float, waiting: Collection[str]
) -> int | None:
    """`Watch.places` from here on: counted when it begins and when one was lost, and in between only more."""
    if manner == "Surge":
        return None
    housed = _housed([worker for worker in fleet.workers if worker.phase != "Terminating"], waiting)
    begins = fleet.manner == "Surge" and _for_long(watch.unplaced_s, PLACE_WAIT_S, now_s)
    if begins or _for_long(watch.lost_s, lost_wait_s, now_s):
        return len(housed)
    if watch.places is None:
        return None
    return max(watch.places, sum(worker.phase in {"Starting", "Ready", "Draining"} for worker in housed))


def _lost_wait_s(fleet: Fleet, target: Kept) -> float:
    refused_s = PLACE_WAIT_S + target.spec.drain.timeout_seconds + LEAVE_MARGIN_S
    return LOST_WAIT_S + (refused_s if fleet.is_full else 0.0)


def _for_long(since_s: float | None, wait_s: float, now_s: float) -> bool:
    return since_s is not None and now_s - since_s >= wait_s
