"""Events are the differences between two statuses, one event a change. Pure."""

from collections.abc import Iterator
from typing import Final

from yolastic_contract.inference_status import Condition, DecisionStatus, InferenceStatus
from yolastic_operator.cluster.base import Event

_STARTING: Final = frozenset({"Starting", "NoWorkers"})
"""Reasons of Ready=False that are no fault: what every inference passes through."""
_TOLD_ELSEWHERE: Final = frozenset({"ModelLoadFailed", "DoesNotFit"})
"""Reasons of Ready=False that another condition tells as well: one event a change."""
_TOLD_LIMITS: Final = frozenset({"Unschedulable", "TooManyReplicas"})
"""Clamps worth an event; the others come and go with every calm hour."""

_GOOD: Final = {
    ("Ready", "True"): "Ready",
    ("ModelLoaded", "True"): "ModelLoaded",
    ("MetricsAvailable", "True"): "MetricsAvailable",
    ("FallbackActive", "False"): "FallbackLeft",
}
_BAD: Final = {
    ("Ready", "False"): "NotReady",
    ("ModelLoaded", "False"): "ModelLoadFailed",
    ("MemoryBudgetResolved", "False"): "MemoryBudgetUnresolved",
    ("MetricsAvailable", "False"): "MetricsUnavailable",
    ("ScalingLimited", "True"): "ScalingLimited",
    ("FallbackActive", "True"): "FallbackEntered",
}


def between(before: InferenceStatus, after: InferenceStatus) -> list[Event]:
    """What to tell about the way from one status to the next, in the order it should be read."""
    known = {condition.type: condition for condition in before.conditions}
    events = [event for change in _new_decisions(before, after) for event in _decision_events(change)]
    for condition in after.conditions:
        event = _condition_event(known.get(condition.type), condition)
        if event is not None:
            events.append(event)
    return events


def _new_decisions(before: InferenceStatus, after: InferenceStatus) -> Iterator[DecisionStatus]:
    """Those that were not there, oldest first."""
    old = list(before.autoscaling.decisions)
    for decision in reversed(after.autoscaling.decisions):
        if decision in old:
            old.remove(decision)
        else:
            yield decision


def _decision_events(change: DecisionStatus) -> Iterator[Event]:
    if change.advice:
        ceiling = f"batches of up to {change.batch_to} images: " if change.batch_from != change.batch_to else ""
        yield Event("Normal", "Advised", f"{ceiling}{change.message}")
        return
    if change.from_ != change.to:
        yield Event("Normal", "Rescaled", f"from {change.from_} to {change.to} workers: {change.message}")
    if change.batch_from != change.batch_to:
        start = "" if change.batch_from is None else f"from {change.batch_from} "
        yield Event("Normal", "BatchCeilingChanged", f"{start}to {change.batch_to} images: {change.message}")


def _condition_event(before: Condition | None, after: Condition) -> Event | None:
    if before is not None and (before.status, before.reason) == (after.status, after.reason):
        return None
    event = _GOOD.get((after.type, after.status))
    if event is not None:
        turned = before is None or before.status != after.status
        # Metrics that are there from the beginning are nothing to tell; that they came back is.
        away = {"MetricsAvailable": "False", "FallbackActive": "True"}.get(after.type)
        told = turned and (away is None or _was(before, away))
        return Event("Normal", event, after.message or after.reason) if told else None
    event = _BAD.get((after.type, after.status))
    if event is None or not _is_fault(before, after):
        return None
    if after.type == "Ready" and not _was(before, "True"):
        # Never ready so far: the reason alone says it best.
        return Event("Warning", after.reason, after.message or after.reason)
    return Event("Warning", event, f"{after.reason}: {after.message}" if after.message else after.reason)


def _is_fault(before: Condition | None, after: Condition) -> bool:
    if after.type == "ScalingLimited":
        return after.reason in _TOLD_LIMITS
    if after.type == "MetricsAvailable" or (after.type == "Ready" and after.reason in _TOLD_ELSEWHERE):
        return _was(before, "True")
    return after.type != "Ready" or after.reason not in _STARTING or _was(before, "True")


def _was(condition: Condition | None, status: str) -> bool:
    return condition is not None and condition.status == status
