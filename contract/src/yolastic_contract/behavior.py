"""`autoscaling/v2` behavior, field by field as Kubernetes has it."""

from typing import Annotated, Literal

from pydantic import Field

from yolastic_contract.base import PositiveInt32, Resource
from yolastic_contract.quantity import Quantity


class ScalingPolicy(Resource):
    """How much may change within a period."""

    type: Literal["Pods", "Percent"]
    """Pods: an absolute number of workers; Percent: a share of the current workers."""
    value: PositiveInt32
    """The amount of change that is allowed; greater than zero."""
    period_seconds: Annotated[int, Field(ge=1, le=1800)]
    """The window over which the change is counted, seconds."""


class ScalingRules(Resource):
    """Rules for one direction; a field left out takes the autoscaling/v2 default."""

    stabilization_window_seconds: Annotated[int, Field(ge=0, le=3600)] | None = None
    """How far back recommendations are considered, seconds; default 0 up, 300 down."""
    select_policy: Literal["Max", "Min", "Disabled"] | None = None
    """Which policy wins; default Max."""
    policies: Annotated[list[ScalingPolicy], Field(min_length=1, max_length=8)] | None = None
    """Left out: up the larger of 100 % and 4 workers in 15 s; down 100 % in 15 s."""
    tolerance: Quantity | None = None
    """How far the load may be from its target before anything changes, as a ratio; default 0.1."""


class Behavior(Resource):
    """Scaling behavior in both directions. Absent: the rules Kubernetes has without behavior."""

    scale_up: ScalingRules | None = None
    """Rules for growing."""
    scale_down: ScalingRules | None = None
    """Rules for shrinking."""
