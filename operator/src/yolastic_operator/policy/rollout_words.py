"""What is said of a rollout: what it waits for, and why one went back. Pure."""

from collections.abc import Collection
from typing import Final

from yolastic_contract.inference import RolloutStrategy
from yolastic_operator.model import ConditionUpdate, Fleet, Observation, Worker
from yolastic_operator.policy.rollout import LOST_WAIT_S, PLACE_WAIT_S, STUCK_S, GivenUp, is_last, is_refused_for_quota
from yolastic_operator.policy.workers import MODEL_REASONS, count, is_serving

_PATIENT: Final = "it waits for one, as rollout.strategy RollingUpdate says"


def rolled_back(given_up: GivenUp, observation: Observation) -> list[ConditionUpdate]:
    """Conditions of an inference whose spec asks for what was given up."""
    serving = sum(is_serving(view) for view in observation.workers)
    before = f"{count(serving)} of the revision before {'serves' if serving == 1 else 'serve'}"
    again = "change the YoloRuntime or more of the spec than replicas and autoscaling to try again"
    message = f"{before}; the new one did not start and was rolled back, {again}: {given_up.message}"
    told = [ConditionUpdate(kind, "False", "RolledBack", message) for kind in ("Ready", "Progressing")]
    if given_up.reason in MODEL_REASONS:
        told.append(ConditionUpdate("ModelLoaded", "False", given_up.reason, given_up.message))
    return told


def waits_for(fleet: Fleet, strategy: RolloutStrategy, desired: int, *, for_memory: bool = False) -> str:
    """What a rollout that is under way waits for, in words."""
    new = [worker for worker in fleet.workers if worker.revision == fleet.revision and worker.phase != "Terminating"]
    if fleet.manner == "OneByOne":
        return _one_by_one(fleet, strategy, desired, new)
    if any(worker.unschedulable for worker in new):
        then = f"after {PLACE_WAIT_S:.0f} s an old worker makes room" if strategy == "Auto" else _PATIENT
        return f"the scheduler finds no place for a new worker beside the old ones: {then}"
    if is_refused_for_quota(fleet, new):
        then = f"after {PLACE_WAIT_S:.0f} s an old worker makes room" if strategy == "Auto" else _PATIENT
        return f"a quota has no room for a new worker beside the old ones: {then}"
    if for_memory:
        return "the new worker waits for memory of the shared device"
    if any(worker.phase in {"Pending", "Starting"} for worker in new):
        return "waiting for the new worker to be ready"
    return "waiting for the cluster to start the next one and to end the old ones"


def _one_by_one(fleet: Fleet, strategy: RolloutStrategy, desired: int, new: Collection[Worker]) -> str:
    why = "because a quota has no room for one more" if fleet.is_full else "because no device is free for one more"
    why = "as rollout.strategy Recreate says" if strategy == "Recreate" else why
    said = [f"one by one, an old worker goes before its successor starts, {why}"]
    if fleet.unplaced:
        there = "has no place" if fleet.unplaced == 1 else "have no place"
        said.append(f"{fleet.unplaced} of {fleet.replicas} ordered {there}, and one that serves goes at a time")
    leaving = any(worker.phase == "Terminating" for worker in fleet.workers)
    old = [worker for worker in fleet.workers if worker.revision != fleet.revision]
    refused = is_refused_for_quota(fleet, new)
    if old and not leaving and (refused or sum(worker.unschedulable for worker in new) > fleet.unplaced):
        wait = "a few minutes" if refused else f"{LOST_WAIT_S:.0f} s"
        then = f"when that stays so for {wait}, the next old one makes room"
        if is_last(old) and all(worker.unschedulable for worker in new):
            then = f"when that stays so for {STUCK_S:.0f} s, the revision before comes back"
        what = "a quota has no room for a new worker" if refused else "the scheduler finds no place for a new worker"
        said.append(f"{what}: {then}")
    elif desired - fleet.unplaced <= 1:
        said.append("nobody serves until the new worker is ready")
    return "; ".join(said)
