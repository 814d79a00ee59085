"""Turns what a resource model objects to into a sentence for a condition. Pure."""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_SHOWN = 3


def describe(error: ValidationError, root: str = "spec") -> str:
    """`spec.autoscaling.maxReplicas: Field required; …`: fields by their path in the resource, never the values."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    told = "; ".join(_problem(problem, root) for problem in problems[:_SHOWN])
    return told if len(problems) <= _SHOWN else f"{told}; and {len(problems) - _SHOWN} more"


def _problem(problem: ErrorDetails, root: str) -> str:
    path = root
    for part in problem["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return f"{path}: {problem['msg'].removeprefix('Value error, ')}"
