"""Folds a turn into the status of an inference. Pure: the old status and the facts of a turn give the new one."""

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.inference_status import (
    KEPT_DECISIONS,
    MOST_STEPS,
    STEP_LENGTH,
    AutoscalingStatus,
    BatchBounds,
    BatchStatus,
    Condition,
    DecisionStatus,
    ExplanationStep,
    InferenceStatus,
    LatencyStatus,
    MemoryStatus,
    MetricStatus,
    ModelStatus,
    ScaleEventStatus,
)
from yolastic_contract.metrics import LOAD_RATIO
from yolastic_contract.names import worker_labels
from yolastic_contract.quantity import format_bytes, parse_bytes, parse_quantity
from yolastic_operator.act.ceilings import applied_replicas
from yolastic_operator.act.words import without_numbers
from yolastic_operator.model import CeilingDecision, ConditionUpdate, Decision, Missing, Observation, Ref, Step
from yolastic_operator.policy.conditions import TYPES
from yolastic_operator.policy.workers import current_revision

NOISE: Final = 0.05
"""A measured number that moved by less than this share is left as it was: an idle turn then writes nothing."""
BOUND_NOISE: Final = 0.1
"""The same for a bound of the ceiling, a quotient of two measured numbers, and never less than `BOUND_NOISE_IMAGES`."""
BOUND_NOISE_IMAGES: Final = 2
LOAD_NOISE: Final = 0.05
"""The same for the load ratio, absolute."""
_REASON: Final = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")
"""As Kubernetes has a condition's."""
_MOST_STRANGE: Final = 100
"""Of so many places that a status of another version has and this one does not understand it is read no further."""
_TELLS_LOAD: Final = frozenset({"ScalingActive", "ScalingLimited"})
"""Conditions that say how the size follows from the load."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a turn found and did."""

    ref: Ref
    spec: InferenceSpec
    generation: int
    now_s: float
    """Unix time, seconds."""
    observation: Observation | None = None
    """None: the turn ended before it could look."""
    decision: Decision | None = None
    url: str | None = None
    conditions: Sequence[ConditionUpdate] = ()
    """Beside those of the decision, and instead of them where they name the same type."""
    changes: Sequence[DecisionStatus] = ()
    """Changes of size or ceiling that this turn made, oldest first."""
    scale_events: Sequence[ScaleEventStatus] = ()
    """Changes of size that rates still count, newest first."""
    scaled: bool = False
    """A new size was ordered."""
    written: str = ""
    """What this turn sent to workers and ordered, in words."""


def timestamp(time_s: float) -> str:
    """Unix time as Kubernetes writes it."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(time: str) -> float | None:
    """Unix time of what `timestamp` wrote; None for anything else."""
    try:
        return datetime.strptime(time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def read(status: Mapping[str, Any]) -> InferenceStatus:
    """The status as it stands in the object; what this version does not understand is left out, and nothing else of it."""
    known = copy.deepcopy(dict(status))
    for _ in range(_MOST_STRANGE):
        try:
            return InferenceStatus.model_validate(known)
        except ValidationError as error:
            if not _leave_out(known, error.errors(include_url=False, include_input=False)[0]["loc"]):
                break
    return InferenceStatus()


def _leave_out(known: dict[str, Any], place: tuple[int | str, ...]) -> bool:
    """Take away what stands in a place, or what lacks something there; False: there is nothing to take."""
    holder: Any = known
    found: tuple[Any, int | str] | None = None
    for key in place:
        stands = key in holder if isinstance(holder, dict) else isinstance(holder, list) and isinstance(key, int)
        if not stands:
            break
        found, holder = (holder, key), holder[key]
    if found is None:
        return False
    del found[0][found[1]]
    return True


def render(status: InferenceStatus) -> dict[str, Any]:
    """The status as it is written."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def fold(previous: InferenceStatus, facts: Facts) -> InferenceStatus:
    """The status after a turn."""
    update: dict[str, Any] = {
        "observed_generation": facts.generation,
        "selector": ",".join(f"{key}={value}" for key, value in sorted(worker_labels(facts.ref.name).items())),
        "url": facts.url if facts.url is not None else previous.url,
        "conditions": _conditions(previous.conditions, facts),
    }
    if facts.observation is not None:
        live = [worker for worker in facts.observation.fleet.workers if worker.phase != "Terminating"]
        update["replicas"] = len(live)
        update["ready_replicas"] = sum(worker.ready for worker in live)
        update["model"] = _model(facts.observation, facts.spec)
    if facts.decision is None:
        # The sum of a turn before explains nothing about a spec that is refused.
        update["autoscaling"] = _unexplained(previous.autoscaling)
    elif facts.observation is not None:
        update["desired_replicas"] = facts.decision.replicas.desired
        update["autoscaling"] = _autoscaling(previous.autoscaling, facts, facts.decision)
        if facts.decision.ceiling is None:
            # What was last granted and measured is kept for the next worker; nobody works with it now.
            update["batch"] = previous.batch.model_copy(update={"applied_replicas": 0})
        else:
            update["batch"] = _batch(previous.batch, facts.observation, facts.decision.ceiling)
            update["memory"] = _memory(previous.memory, facts.observation, facts.decision.ceiling)
            update["latency"] = _latency(previous.latency, facts.decision.ceiling)
    now = _steady_words(previous, previous.model_copy(update=update))
    # What is as it was is the same object: two statuses of each inference are kept, and at rest they are one but for the ages.
    return now.model_copy(update={name: before for name in update if (before := getattr(previous, name)) == getattr(now, name)})


def with_conditions(
    previous: InferenceStatus, updates: Iterable[ConditionUpdate], generation: int, now_s: float
) -> InferenceStatus:
    """The status with these conditions and nothing else changed: for a spec that cannot be read."""
    conditions = _merged(previous.conditions, updates, generation, now_s)
    update = {"observed_generation": generation, "conditions": conditions, "autoscaling": _unexplained(previous.autoscaling)}
    return previous.model_copy(update=update)


def _steady_words(previous: InferenceStatus, now: InferenceStatus) -> InferenceStatus:
    """The status whose sum in words keeps its numbers as long as the load and every size in it are the same, noise apart."""
    was, known = previous.autoscaling, {condition.type: condition for condition in previous.conditions}
    sizes = ("replicas", "ready_replicas", "desired_replicas")
    moved = any(getattr(previous, name) != getattr(now, name) for name in sizes)
    if moved or (was.metrics, was.recommended_replicas) != (now.autoscaling.metrics, now.autoscaling.recommended_replicas):
        return now
    conditions = [
        condition.model_copy(update={"message": before.message})
        if (before := known.get(condition.type)) is not None
        and condition.type in _TELLS_LOAD
        and before.reason == condition.reason
        and without_numbers(before.message) == without_numbers(condition.message)
        else condition
        for condition in now.conditions
    ]
    return now.model_copy(update={"conditions": conditions})


def _unexplained(status: AutoscalingStatus) -> AutoscalingStatus:
    return status.model_copy(update={"explained_time": None, "explanation": []})


def _conditions(previous: Iterable[Condition], facts: Facts) -> list[Condition]:
    decided = facts.decision.conditions if facts.decision is not None else ()
    # Later ones win: what went wrong in the turn overrules what was decided for it.
    updates = {update.type: update for update in (*decided, *facts.conditions)}
    return _merged(previous, updates.values(), facts.generation, facts.now_s)


def _merged(previous: Iterable[Condition], updates: Iterable[ConditionUpdate], generation: int, now_s: float) -> list[Condition]:
    # Of others there may be some, too: they are theirs, and as they were when this operator began they would come back.
    known = {condition.type: condition for condition in previous if condition.type in TYPES}
    known |= {update.type: _condition(known.get(update.type), update, generation, now_s) for update in updates}
    rank = {name: index for index, name in enumerate(TYPES)}
    return sorted(known.values(), key=lambda item: rank[item.type])


def _condition(before: Condition | None, update: ConditionUpdate, generation: int, now_s: float) -> Condition:
    # The transition time moves with the status alone, as everywhere in Kubernetes.
    same = before is not None and before.status == update.status
    # Some of both is said by others, and no word of theirs may cost the turn its status.
    reason, message = update.reason[:64], update.message
    if not _REASON.fullmatch(reason):
        reason, message = "Unknown", f"{update.reason}: {message}"
    return Condition(
        type=update.type,
        status=update.status,
        reason=reason,
        message=message.encode("utf-8", "replace").decode()[:1024],
        observed_generation=generation,
        last_transition_time=before.last_transition_time if before is not None and same else timestamp(now_s),
    )


def _model(observation: Observation, spec: InferenceSpec) -> ModelStatus:
    models = [
        view.state.value.model
        for view in current_revision(observation)
        if not isinstance(view.state, Missing) and view.worker.ready
    ]
    loaded = [model for model in models if model is not None and model.sha256 == spec.model.sha256]
    if not loaded:
        return ModelStatus()
    return ModelStatus(sha256=loaded[0].sha256, task=loaded[0].task, loaded_replicas=len(loaded))


def _batch(previous: BatchStatus, observation: Observation, decision: CeilingDecision) -> BatchStatus:
    now, limited_by = decision.bounds, decision.limited_by
    bounds = BatchBounds(spec=now.spec, memory=now.memory, latency=now.latency, efficiency=now.efficiency, lease=now.lease)
    # Only as long as the ceiling is the same: then the numbers it was first made of still tell why.
    if previous.ceiling == decision.tiers.ceiling and previous.limited_by is not None and _same_bounds(previous.bounds, bounds):
        bounds, limited_by = previous.bounds, previous.limited_by
    return BatchStatus(
        base=decision.tiers.base,
        ceiling=decision.tiers.ceiling,
        bounds=bounds,
        limited_by=limited_by,
        applied_replicas=applied_replicas(observation, decision),
    )


def _same_bounds(previous: BatchBounds, now: BatchBounds) -> bool:
    measured = ((previous.memory, now.memory), (previous.latency, now.latency), (previous.efficiency, now.efficiency))
    return (previous.spec, previous.lease) == (now.spec, now.lease) and all(
        _is_same_bound(before, after) for before, after in measured
    )


def _is_same_bound(before: int | None, after: int | None) -> bool:
    if before is None or after is None:
        return before is after
    return (before == 0) == (after == 0) and abs(after - before) <= max(BOUND_NOISE * before, BOUND_NOISE_IMAGES)


def _memory(previous: MemoryStatus, observation: Observation, decision: CeilingDecision) -> MemoryStatus:
    peak_bytes = None
    if decision.fixed_bytes is not None and decision.per_image_bytes is not None:
        peak_bytes = decision.fixed_bytes + decision.per_image_bytes * decision.tiers.ceiling
    observed = [
        view.state.value.memory.observed_peak_bytes or 0
        for view in current_revision(observation)
        if not isinstance(view.state, Missing)
    ]
    return MemoryStatus(
        budget=_steady_bytes(previous.budget, decision.budget_bytes),
        fixed=_steady_bytes(previous.fixed, decision.fixed_bytes),
        per_image=_steady_bytes(previous.per_image, decision.per_image_bytes),
        predicted_peak=_steady_bytes(previous.predicted_peak, peak_bytes),
        observed_peak=_steady_bytes(previous.observed_peak, max(observed, default=0) or None),
        source=decision.budget_source,
    )


def _latency(previous: LatencyStatus, decision: CeilingDecision) -> LatencyStatus:
    return LatencyStatus(
        fixed_microseconds=_steady_microseconds(previous.fixed_microseconds, decision.fixed_s),
        per_image_microseconds=_steady_microseconds(previous.per_image_microseconds, decision.per_image_s),
    )


def _autoscaling(previous: AutoscalingStatus, facts: Facts, decision: Decision) -> AutoscalingStatus:
    replicas = decision.replicas
    metrics = []
    if replicas.load_ratio is not None and replicas.source is not None and replicas.target_percent is not None:
        before = next((float(parse_quantity(metric.current)) for metric in previous.metrics), None)
        steady = before is not None and abs(before - replicas.load_ratio) <= LOAD_NOISE
        ratio = before if before is not None and steady else replicas.load_ratio
        target = f"{replicas.target_percent * 10}m"
        metrics = [MetricStatus(name=LOAD_RATIO.name, current=f"{round(ratio * 1000)}m", target=target, source=replicas.source)]
    return AutoscalingStatus(
        recommended_replicas=replicas.recommended,
        advised_replicas=replicas.advised,
        metrics_lost_time=_lost_time(previous.metrics_lost_time, replicas.lost_for_s, facts.now_s),
        last_scale_time=timestamp(facts.now_s) if facts.scaled else previous.last_scale_time,
        limited_by=replicas.limited_by,
        metrics=metrics,
        decisions=[*reversed(facts.changes), *previous.decisions][:KEPT_DECISIONS],
        scale_events=list(facts.scale_events),
        objective_load_percent=decision.state.objective_percent,
        demand_swing_percent=round(decision.state.swing * 100) or None,
        explained_time=timestamp(facts.now_s),
        explanation=[_step(step) for step in (*decision.explanation, Step("Written", facts.written))][:MOST_STEPS],
    )


def _step(step: Step) -> ExplanationStep:
    text = " ".join(step.text.split())
    return ExplanationStep(about=step.about[:32], text=text if len(text) <= STEP_LENGTH else text[: STEP_LENGTH - 1] + "…")


def _lost_time(previous: str | None, lost_for_s: float | None, now_s: float) -> str | None:
    """Once written it stays as it is: it is what an operator that restarts counts from."""
    if lost_for_s is None:
        return None
    return previous if previous is not None else timestamp(now_s - lost_for_s)


def _steady_bytes(previous: str | None, size_bytes: int | None) -> str | None:
    if size_bytes is None:
        return None
    if previous is not None and _is_noise(parse_bytes(previous), size_bytes):
        return previous
    return format_bytes(size_bytes)


def _steady_microseconds(previous: int | None, time_s: float | None) -> int | None:
    if time_s is None:
        return None
    time_us = round(time_s * 1e6)
    return previous if previous is not None and _is_noise(previous, time_us, floor=20) else time_us


def _is_noise(previous: int, now: int, floor: int = 0) -> bool:
    return abs(now - previous) <= max(NOISE * previous, floor)
