"""Conditions as renderings of an observation and the decisions made from it: status, reason, and a sentence with numbers."""

from collections.abc import Sequence
from typing import Final, Literal

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.quantity import format_bytes
from yolastic_operator.model import (
    CeilingDecision,
    ConditionUpdate,
    Fresh,
    Missing,
    Observation,
    ReplicaDecision,
    Stale,
    Worker,
    WorkerView,
)
from yolastic_operator.policy import rollout_words
from yolastic_operator.policy.demand import why_not_fresh
from yolastic_operator.policy.workers import (
    MODEL_REASONS,
    count,
    current_revision,
    is_draining,
    is_leaving,
    is_serving,
    is_starting,
    waits_for_memory,
)

TYPES: Final = (
    "Ready", "ModelLoaded", "MemoryBudgetResolved", "MetricsAvailable", "ScalingActive", "ScalingLimited",
    "FallbackActive", "Progressing",
)  # fmt: skip
_MESSAGE_LENGTH: Final = 1024

Status = Literal["True", "False", "Unknown"]


def refused(reason: str, message: str) -> tuple[ConditionUpdate, ...]:
    """Conditions of an inference that cannot be run as it is written: nothing was looked at, nothing is changed."""
    false = {"Ready", "ScalingActive", "Progressing"}
    return tuple(_update(kind, "False" if kind in false else "Unknown", reason, message) for kind in TYPES)


def conditions(
    observation: Observation, spec: InferenceSpec, replicas: ReplicaDecision, ceiling: CeilingDecision | None
) -> tuple[ConditionUpdate, ...]:
    """All conditions, in the order of `TYPES`."""
    return (
        ready(observation, replicas),
        model_loaded(observation, spec, replicas),
        memory_budget_resolved(observation, ceiling),
        metrics_available(observation),
        scaling_active(spec, replicas),
        scaling_limited(replicas),
        fallback_active(spec, replicas),
        progressing(observation, spec, replicas),
    )


def ready(observation: Observation, replicas: ReplicaDecision) -> ConditionUpdate:
    """A worker of the current revision serves, or none is wanted. Workers of an older revision do not make it true."""
    views = current_revision(observation)
    serving = sum(is_serving(view) for view in views)
    of_all = f"{serving} of {count(replicas.desired)} ready"
    if replicas.desired == 0:
        return _update("Ready", "True", "ScaledToZero", "no worker is wanted")
    failed = _failed(views)
    if serving:
        why = _hindrance(views, observation) if serving < replicas.desired else ""
        return _update("Ready", "True", "WorkersReady", of_all + why)
    older = sum(is_serving(view) for view in observation.workers) - serving
    still = f"; {count(older)} of an older revision still serving" if older else ""
    if failed is not None:
        reason = failed.failure_reason or "WorkerFailed"
        shown = "ModelLoadFailed" if reason in MODEL_REASONS else reason
        return _update("Ready", "False", shown, f"{of_all}; {_failure_words(failed)}{still}")
    homeless = sum(view.worker.unschedulable for view in views)
    if homeless and homeless == sum(is_starting(view) for view in views):
        return _update("Ready", "False", "NoCapacity", f"{of_all}; {_homeless_words(views)}{still}")
    if not views:
        reason = "FailedCreate" if observation.fleet.refusal else "NoWorkers"
        return _update("Ready", "False", reason, f"{of_all}; none has been created yet{_hindrance(views, observation)}{still}")
    return _update("Ready", "False", "Starting", f"{of_all}; {_phases(views)}{still}")


def model_loaded(observation: Observation, spec: InferenceSpec, replicas: ReplicaDecision) -> ConditionUpdate:
    """The model with the right checksum is loaded by every serving worker of the current revision."""
    views = current_revision(observation)
    failed = _failed(views, MODEL_REASONS)
    digest = spec.model.sha256[:12]
    serving = [view for view in views if is_serving(view)]
    models = [view.state.value.model for view in serving if not isinstance(view.state, Missing)]
    loaded = sum(model is not None and model.sha256 == spec.model.sha256 for model in models)
    strange = next((model.sha256[:12] for model in models if model is not None and model.sha256 != spec.model.sha256), None)
    if strange is not None:
        return _update("ModelLoaded", "False", "ChecksumMismatch", f"a worker serves model {strange}, the spec says {digest}")
    if loaded:
        why = f"; {_failure_words(failed)}" if failed else ""
        return _update("ModelLoaded", "True", "Loaded", f"model {digest} is loaded by {count(loaded)}{why}")
    if failed is not None and failed.failure_reason is not None:
        return _update("ModelLoaded", "False", failed.failure_reason, _failure_words(failed))
    if replicas.desired == 0:
        return _update("ModelLoaded", "Unknown", "ScaledToZero", "no worker is wanted")
    if serving and not models:
        return _update("ModelLoaded", "Unknown", "Silent", f"{count(len(serving))} ready, none tells which model it serves")
    return _update("ModelLoaded", "Unknown", "Loading", f"no worker has loaded model {digest} yet")


def memory_budget_resolved(observation: Observation, ceiling: CeilingDecision | None) -> ConditionUpdate:
    """The budget is known and at least a batch of 1 fits into it."""
    kind = "MemoryBudgetResolved"
    failed = _failed(current_revision(observation), frozenset({"DoesNotFit"}))
    if ceiling is None:
        if failed is not None:
            return _update(kind, "False", "DoesNotFit", _failure_words(failed))
        return _update(kind, "Unknown", "Measuring", "no worker has told what its batches take yet")
    if ceiling.budget_bytes is None or ceiling.budget_source is None:
        said = "no limit is declared, and the device does not tell its memory: memory does not bound the ceiling"
        return _update(kind, "Unknown", "BudgetUnknown", said)
    budget = f"budget {format_bytes(ceiling.budget_bytes)}"
    if ceiling.fixed_bytes is None or ceiling.per_image_bytes is None:
        return _update(kind, "Unknown", "Measuring", f"{budget}; no worker has measured what a batch takes")
    fit = f"{format_bytes(ceiling.fixed_bytes)} and {format_bytes(ceiling.per_image_bytes)} an image"
    if not ceiling.fits:
        return _update(kind, "False", "DoesNotFit", f"{budget} is too small for a batch of 1: a worker takes {fit}")
    room = "any batch fits" if ceiling.fitting is None else f"{ceiling.fitting} images fit"
    if ceiling.bounds.memory is not None and ceiling.bounds.memory != ceiling.fitting:
        room += f"; no more than {ceiling.bounds.memory} are warm on every worker, or left since they ran out of memory"
    return _update(kind, "True", ceiling.budget_source, f"{budget}; a worker takes {fit}: {room}")


def metrics_available(observation: Observation) -> ConditionUpdate:
    """At least half of the serving workers have fresh load figures."""
    kind = "MetricsAvailable"
    serving = [view for view in observation.workers if is_serving(view)]
    if not serving:
        return _update(kind, "Unknown", "NoReadyWorkers", "no worker is ready to be asked")
    fresh = [view for view in serving if isinstance(view.load_ratio, Fresh)]
    silent = [view for view in serving if not isinstance(view.load_ratio, Fresh)]
    told = f"fresh figures from {len(fresh)} of {count(len(serving))}"
    if silent:
        told += f"; {why_not_fresh(silent[0])}"
    prometheus = _prometheus_trouble(observation)
    if 2 * len(fresh) >= len(serving):
        if prometheus:
            return _update(kind, "True", "WorkersOnly", f"{prometheus}; {told}, asked directly")
        return _update(kind, "True", "Fresh", told)
    if prometheus:
        return _update(kind, "False", "PrometheusError", f"{prometheus}; {told}")
    reason = "Stale" if all(isinstance(view.load_ratio, Stale) for view in silent) else "NoSeries"
    return _update(kind, "False", reason, told)


def scaling_active(spec: InferenceSpec, replicas: ReplicaDecision) -> ConditionUpdate:
    """A size could be computed from metrics."""
    if spec.autoscaling is None:
        return _update("ScalingActive", "False", "ScalingDisabled", replicas.message)
    if spec.autoscaling.mode != "Active":
        return _update("ScalingActive", "False", spec.autoscaling.mode, replicas.message)
    if replicas.active:
        return _update("ScalingActive", "True", "ValidMetrics", replicas.message)
    return _update("ScalingActive", "False", "MetricsUnavailable", replicas.message)


def scaling_limited(replicas: ReplicaDecision) -> ConditionUpdate:
    """A bound, a rate or a lack of devices cut the wish."""
    if replicas.limited_by is None:
        return _update("ScalingLimited", "False", "DesiredWithinRange", f"{count(replicas.desired)} wanted, nothing cuts it")
    return _update("ScalingLimited", "True", replicas.limited_by, replicas.message)


def fallback_active(spec: InferenceSpec, replicas: ReplicaDecision) -> ConditionUpdate:
    """The size rests on the fallback policy, since there have been no figures for long."""
    kind = "FallbackActive"
    if spec.autoscaling is None:
        return _update(kind, "False", "NotNeeded", "the size is fixed")
    if replicas.fallback:
        return _update(kind, "True", "MetricOutage", replicas.message)
    if replicas.lost_for_s is None:
        return _update(kind, "False", "NotNeeded", "the size rests on figures, or nobody serves yet")
    if spec.autoscaling.mode == "Paused":
        return _update(kind, "False", "Paused", "there are no figures; the size is held all the same")
    fallback = spec.autoscaling.fallback
    rule = f"{fallback.policy} applies after {fallback.failure_duration_seconds} s without"
    return _update(kind, "False", "Waiting", f"there are no figures; {rule}")


def progressing(observation: Observation, spec: InferenceSpec, replicas: ReplicaDecision) -> ConditionUpdate:
    """Workers are still coming or going."""
    current = current_revision(observation)
    serving = sum(is_serving(view) for view in current)
    older = sum(view.worker.revision != observation.fleet.revision and not is_leaving(view) for view in observation.workers)
    leaving = sum(is_leaving(view) for view in observation.workers)
    why = _hindrance(current, observation)
    # One by one the last of the old has gone before the last of the new serves.
    last = observation.fleet.manner == "OneByOne" and spec.rollout.strategy == "Auto" and serving < replicas.desired
    if (older or last) and observation.fleet.revision is not None:
        told = f"{serving} of {count(replicas.desired)} of the new revision ready, {older} of an older one left{why}"
        waits = rollout_words.waits_for(
            observation.fleet, spec.rollout.strategy, replicas.desired, for_memory=any(map(waits_for_memory, current))
        )
        reason = "OneByOne" if observation.fleet.manner == "OneByOne" else "RollingOut"
        return _update("Progressing", "True", reason, f"{told}; {waits}")
    draining = sum(is_draining(view) for view in observation.workers)
    if serving < replicas.desired <= serving + draining and spec.autoscaling is not None and spec.autoscaling.mode != "Active":
        later = "removed or replaced once the mode is Active again"
        told = f"{serving} of {count(replicas.desired)} ready, {draining} drained before: {later}"
        return _update("Progressing", "False", spec.autoscaling.mode, told + why)
    if serving < replicas.desired:
        return _update("Progressing", "True", "ScalingUp", f"{serving} of {count(replicas.desired)} ready{why}")
    if leaving or serving > replicas.desired:
        return _update(
            "Progressing", "True", "ScalingDown", f"{count(replicas.desired)} wanted, {serving} serving, {leaving} leaving"
        )
    return _update("Progressing", "False", "Stable", f"{serving} of {count(replicas.desired)} ready")


def _failed(views: Sequence[WorkerView], among: frozenset[str] | None = None) -> Worker | None:
    """The oldest worker that says why it fails, of those with one of these reasons."""
    failed = [
        view.worker
        for view in views
        if not is_draining(view)
        and (view.worker.failure_reason is not None or (among is None and view.worker.phase == "Failed"))
        and (among is None or view.worker.failure_reason in among)
    ]
    return min(failed, key=lambda worker: (worker.created_s, worker.name), default=None)


def _failure_words(worker: Worker | None) -> str:
    if worker is None:
        return ""
    reason = worker.failure_reason or "failed"
    return f"worker {worker.name}: {reason}" + (f": {worker.failure_message}" if worker.failure_message else "")


def _hindrance(views: Sequence[WorkerView], observation: Observation) -> str:
    """What keeps more workers from serving: one that fails, the cluster, which makes none, or no place for one."""
    failed, refusal = _failed(views), observation.fleet.refusal
    if failed is not None:
        return f"; {_failure_words(failed)}"
    if refusal:
        return f"; the cluster makes no more workers: {refusal}"
    return f"; {_homeless_words(views)}" if any(view.worker.unschedulable for view in views) else ""


def _homeless_words(views: Sequence[WorkerView]) -> str:
    homeless = [view.worker for view in views if view.worker.unschedulable]
    said = next((worker.failure_message for worker in homeless if worker.failure_message), "")
    return f"the scheduler finds no place for {count(len(homeless))}" + (f": {said}" if said else "")


def _phases(views: Sequence[WorkerView]) -> str:
    """`1 starting, 1 draining`."""
    starting = sum(is_starting(view) for view in views)
    draining = sum(is_draining(view) for view in views)
    said = [f"{number} {word}" for number, word in ((starting, "starting"), (draining, "draining")) if number]
    return ", ".join(said) or "none starting"


def _prometheus_trouble(observation: Observation) -> str | None:
    match observation.prometheus:
        case Missing(reason=reason):
            return reason
        case Stale(age_s=age_s):
            return f"Prometheus has nothing newer than {age_s:.0f} s"
        case _:
            return None


def _update(kind: str, status: Status, reason: str, message: str) -> ConditionUpdate:
    text = " ".join(message.split())
    return ConditionUpdate(kind, status, reason, text if len(text) <= _MESSAGE_LENGTH else text[: _MESSAGE_LENGTH - 1] + "…")
