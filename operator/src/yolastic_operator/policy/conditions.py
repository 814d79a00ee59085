"""Conditions as renderings of an observation and the decisions made from it."""

from yolastic_operator.model import ConditionUpdate


def refused(reason: str, message: str) -> tuple[ConditionUpdate, ...]:
    """Conditions of an inference that cannot be run as it is written."""
    return (ConditionUpdate("Ready", "False", reason, message),)
