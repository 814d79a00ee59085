"""A decision in words: what was seen and how old it is, the steps of the sum as they were noted, and what it came to."""

from yolastic_operator.model import CeilingDecision, Fresh, Missing, Observation, ReplicaDecision, Stale, Step, WorkerView
from yolastic_operator.policy.demand import why_not_fresh
from yolastic_operator.policy.workers import count, is_leaving, is_serving, is_starting

NAMED = 3
"""Workers without figures that are named; of the others only the number is told."""


def steps(observation: Observation, replicas: ReplicaDecision, ceiling: CeilingDecision | None) -> tuple[Step, ...]:
    """All of it, in the order it should be read. Nothing is computed here that was not seen or decided."""
    return (
        Step("Workers", _workers(observation)),
        Step("Figures", _figures(observation)),
        *replicas.steps,
        Step("Result", _result(replicas)),
        Step("Ceiling", "no worker has told what its batches take yet" if ceiling is None else ceiling.message),
    )


def _result(replicas: ReplicaDecision) -> str:
    advised = "" if replicas.advised is None else f", {replicas.advised} advised"
    return f"{count(replicas.desired)}{advised}: {replicas.reason}"


def _workers(observation: Observation) -> str:
    views, ordered = observation.workers, observation.fleet.replicas
    groups = ((is_serving, "serving"), (is_starting, "starting"), (is_leaving, "leaving"))
    told = [f"{number} {word}" for group, word in groups if (number := sum(group(view) for view in views))]
    failed = sum(view.worker.phase == "Failed" for view in views)
    told += [f"{failed} failed"] if failed else []
    return f"{'none' if ordered is None else ordered} ordered; {', '.join(told) or 'none there'}"


def _figures(observation: Observation) -> str:
    serving = [view for view in observation.workers if is_serving(view)]
    if not serving:
        return "nobody serves, so there is nobody to ask"
    known = [view for view in serving if not isinstance(view.load_ratio, Missing | Stale)]
    told = [f"fresh from {len(known)} of {count(len(serving))}"]
    told += [f"{len(views)} {how}, {_ages(views)}" for how, views in _by_source(known) if views]
    told += _demand(serving)
    silent = [view for view in serving if view not in known]
    told += [why_not_fresh(view) for view in silent[:NAMED]]
    told += [f"and {len(silent) - NAMED} more without"] if len(silent) > NAMED else []
    match observation.prometheus:
        case Missing(reason=reason):
            told.append(reason)
        case Stale(age_s=age_s):
            told.append(f"Prometheus has nothing newer than {age_s:.0f} s")
    return "; ".join(told)


def _demand(serving: list[WorkerView]) -> list[str]:
    loads = [view.state.value.load for view in serving if isinstance(view.state, Fresh)]
    if not loads:
        return []
    per_s, queued = sum(load.arrived_per_s + load.refused_per_s for load in loads), sum(load.queue_images for load in loads)
    return [f"{count(len(loads))} told of {per_s:.0f} images/s and {queued} queued"]


def _by_source(views: list[WorkerView]) -> tuple[tuple[str, list[WorkerView]], ...]:
    return (
        ("by Prometheus", [view for view in views if view.load_source == "Prometheus"]),
        ("asked directly", [view for view in views if view.load_source == "Workers"]),
    )


def _ages(views: list[WorkerView]) -> str:
    # One form for any ages, so that they can be told from news.
    ages_s = [view.load_ratio.age_s for view in views if not isinstance(view.load_ratio, Missing)]
    return f"up to {max(ages_s):.0f} s old"
