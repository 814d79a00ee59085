"""Whether a status says anything new beside the one that was written last: the rest is numbers that moved. Pure."""

import math
import re
from collections.abc import Iterable
from typing import Any, Final

from yolastic_contract.inference_status import AutoscalingStatus, Condition, ExplanationStep, InferenceStatus
from yolastic_operator.act.status import render
from yolastic_operator.act.words import without_numbers
from yolastic_operator.policy.demand import QUEUE_WINDOW_S

LOAD_SHARE: Final = 0.25
"""A load that moved by no more than this share of the larger is told anew only with something else."""
LOAD_SIGMAS: Final = 5.0
"""Nor is one that chance alone may have moved: so many standard deviations of the difference of two Poisson counts."""
_PASSING: Final = re.compile(r"(?<=: )(?:WithinTolerance|SurvivorsTooBusy|LastWorker)$|; it grows to .*$")
"""Words that come and go with the noise of a load, or of learned times, while nothing changes."""
_UNKNOWN: Final = "not known"
"""In the text of a step whose figures are still being counted."""
_LOAD: Final = re.compile(r"told of (\d+) images/s and (\d+) queued")
"""As the explanation says it."""


def same_but_for_explanation(one: InferenceStatus, other: InferenceStatus) -> bool:
    """The two differ at most in how they explain the same decision, and in who told the figures for it."""
    explained = one.autoscaling.model_copy(update=_explained(one.autoscaling, other.autoscaling))
    return other == one.model_copy(update={"autoscaling": explained, "conditions": _told_by(one, other)})


def same_explanation(one: InferenceStatus, other: InferenceStatus) -> bool:
    """The two explain with the same words and figures of the same source, whatever the numbers."""
    return _about(one.autoscaling.explanation) == _about(other.autoscaling.explanation) and _sources(one) == _sources(other)


def knows_less(one: InferenceStatus, other: InferenceStatus) -> bool:
    """The first says `not known` where the second tells something, and else the same: so it is for a while after a restart."""
    now, before = _about(one.autoscaling.explanation), _about(other.autoscaling.explanation)
    if [about for about, _ in now] != [about for about, _ in before] or _sources(one) != _sources(other):
        return False
    differ = [told for (_, told), (_, was) in zip(now, before, strict=True) if told != was]
    return bool(differ) and all(_UNKNOWN in told for told in differ)


def same_load(one: InferenceStatus, other: InferenceStatus) -> bool:
    """What the two explanations tell of the load differs by no more than noise; one that tells none is as any other."""
    before, now = _told_images(one.autoscaling.explanation), _told_images(other.autoscaling.explanation)
    if before is None or now is None:
        return True
    return abs(now - before) <= max(LOAD_SHARE * max(before, now), LOAD_SIGMAS * math.sqrt(before + now))


def same_but_for_numbers(one: InferenceStatus, other: InferenceStatus) -> bool:
    """The two differ at most in numbers told in messages and in the current load: not worth a write at once."""
    return _essence(one) == _essence(other)


def _essence(status: InferenceStatus) -> dict[str, Any]:
    essence = render(status)
    for condition in essence["conditions"]:
        condition["message"] = without_numbers(condition["message"])
        if (condition["type"], condition["status"]) == ("MetricsAvailable", "True"):
            condition["reason"] = condition["message"] = "#"  # by Prometheus or by the workers: one late scrape is no news
    for metric in essence["autoscaling"]["metrics"]:
        metric["current"] = metric["target"] = metric["source"] = "#"
    for name in ("recommendedReplicas", "objectiveLoadPercent", "demandSwingPercent", "explanation", "explainedTime"):
        essence["autoscaling"].pop(name, None)
    return essence


def _about(explanation: Iterable[ExplanationStep]) -> list[tuple[str, str]]:
    return [(step.about, without_numbers(_PASSING.sub("", step.text))) for step in explanation]


def _told_images(explanation: Iterable[ExplanationStep]) -> float | None:
    """Images behind the load: those that came within the workers' window, and the queue."""
    found = next((match for step in explanation if (match := _LOAD.search(step.text))), None)
    return None if found is None else int(found[1]) * QUEUE_WINDOW_S + int(found[2])


def _explained(one: AutoscalingStatus, other: AutoscalingStatus) -> dict[str, Any]:
    told = {"explained_time": other.explained_time, "explanation": other.explanation}
    if len(one.metrics) != len(other.metrics):
        return told
    pairs = zip(one.metrics, other.metrics, strict=True)
    return told | {"metrics": [before.model_copy(update={"source": now.source}) for before, now in pairs]}


def _told_by(one: InferenceStatus, other: InferenceStatus) -> list[Condition]:
    """The conditions of the first, with those of the second where both have figures, by whomever they were told."""
    later = {condition.type: condition for condition in other.conditions}
    return [later[item.type] if _is_told(item) and _is_told(later.get(item.type)) else item for item in one.conditions]


def _is_told(condition: Condition | None) -> bool:
    return condition is not None and (condition.type, condition.status) == ("MetricsAvailable", "True")


def _sources(status: InferenceStatus) -> list[str]:
    reasons = [condition.reason for condition in status.conditions if condition.type == "MetricsAvailable"]
    return [*reasons, *(metric.source for metric in status.autoscaling.metrics)]
