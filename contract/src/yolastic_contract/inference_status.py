"""The status of a `YoloInference`: what is, and why."""

from typing import Annotated, Final, Literal

from pydantic import Field

from yolastic_contract.base import NonNegativeInt32, NonNegativeInt64, Resource, Timestamp
from yolastic_contract.quantity import Quantity

TASK_LENGTH: Final = 32
SHA256_LENGTH: Final = 64
KEPT_DECISIONS: Final = 5
MOST_SCALE_EVENTS: Final = 32
MOST_STEPS: Final = 16
"""Of an explanation."""
STEP_LENGTH: Final = 512


class Condition(Resource):
    """A `metav1.Condition`."""

    type: Annotated[str, Field(max_length=64)]
    """What the condition is about: Ready, ModelLoaded, ScalingLimited..."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    """Why, in one CamelCase word."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Why, for people."""
    observed_generation: NonNegativeInt64 = 0
    """The generation of the spec it speaks of."""
    last_transition_time: Timestamp
    """When its status last changed."""


class ModelStatus(Resource):
    """The model as the workers loaded it."""

    sha256: Annotated[str, Field(max_length=SHA256_LENGTH)] | None = None
    """Digest of the model that is loaded."""
    task: Annotated[str, Field(max_length=TASK_LENGTH)] | None = None
    """What the loaded model does."""
    loaded_replicas: NonNegativeInt32 = 0
    """Workers that have loaded it and are ready."""


class BatchBounds(Resource):
    """The bounds of the ceiling, images; one that does not bind is absent."""

    spec: NonNegativeInt32 | None = None
    """batching.maxSize."""
    memory: NonNegativeInt32 | None = None
    """What fits into the memory budget."""
    latency: NonNegativeInt32 | None = None
    """What the objective's latency allows."""
    efficiency: NonNegativeInt32 | None = None
    """Beyond this a larger batch adds latency and hardly any throughput."""
    lease: NonNegativeInt32 | None = None
    """What a shared device can lend to one worker while the others work with their base."""


class BatchStatus(Resource):
    """The batch ceiling granted to every worker; in mode Advisory the one that Active would grant."""

    base: NonNegativeInt32 | None = None
    """The usual tier, images."""
    ceiling: NonNegativeInt32 | None = None
    """The burst tier, images: never more in one batch."""
    bounds: BatchBounds = BatchBounds()
    limited_by: Literal["Spec", "Memory", "Latency", "Efficiency", "Lease"] | None = None
    """The bound the ceiling comes from."""
    applied_replicas: NonNegativeInt32 = 0
    """Workers that have confirmed this ceiling."""


class MemoryStatus(Resource):
    """The memory fit `fixed + perImage * batch` and the budget it must stay within."""

    budget: Quantity | None = None
    """What one worker may use: the limit less the headroom."""
    fixed: Quantity | None = None
    """Memory that does not depend on the batch."""
    per_image: Quantity | None = None
    """Memory for each image of a batch."""
    predicted_peak: Quantity | None = None
    """Fit at the ceiling."""
    observed_peak: Quantity | None = None
    """The most a worker was seen to use."""
    source: Literal["Declared", "Device"] | None = None
    """Where the limit comes from: declared in a resource, or read from the device."""


class LatencyStatus(Resource):
    """What the workers learned about speed: `fixed + perImage * batch`."""

    fixed_microseconds: NonNegativeInt32 | None = None
    """Time of a batch that does not depend on its size."""
    per_image_microseconds: NonNegativeInt32 | None = None
    """Time of a batch for each image in it."""


class MetricStatus(Resource):
    """A signal as it was last seen."""

    name: Annotated[str, Field(max_length=64)]
    """Name of the metric."""
    current: Quantity
    """Its mean over the workers."""
    target: Quantity
    """The value to aim for: `targetLoadPercent`, or less where the objective or demand that swings leaves no room for that."""
    source: Literal["Prometheus", "Workers"]
    """Where it was read."""


class DecisionStatus(Resource):
    """One change of replicas or of the ceiling, and why."""

    time: Timestamp
    """When it was decided."""
    from_: Annotated[NonNegativeInt32, Field(alias="from")]
    """Replicas before."""
    to: NonNegativeInt32
    """Replicas after."""
    batch_from: NonNegativeInt32 | None = None
    """Batch ceiling before, images."""
    batch_to: NonNegativeInt32 | None = None
    """Batch ceiling after, images."""
    reason: Annotated[str, Field(max_length=64)]
    """Why, in one CamelCase word."""
    message: Annotated[str, Field(max_length=512)]
    """Why, with the numbers."""
    advice: bool | None = None
    """True: what mode Active would have done; nothing was changed."""


class ScaleEventStatus(Resource):
    """One change of the number of workers."""

    time: Timestamp
    """When it was made."""
    change: Annotated[int, Field(ge=-1000, le=1000)]
    """Workers more; negative: fewer."""


class ExplanationStep(Resource):
    """One step of the sum behind the present size and ceiling."""

    about: Annotated[str, Field(max_length=32)]
    """Which step: Workers Figures Load Survivors Forecast Second Windows Room Fallback Mode Result Ceiling Lease Written."""
    text: Annotated[str, Field(max_length=STEP_LENGTH)]
    """What it came to, with the numbers."""


class AutoscalingStatus(Resource):
    """The replica decision."""

    recommended_replicas: NonNegativeInt32 | None = None
    """What the metrics alone would ask for, before windows, rates and bounds."""
    advised_replicas: NonNegativeInt32 | None = None
    """Mode Advisory alone: the size that Active would order."""
    metrics_lost_time: Timestamp | None = None
    """Since when there are no figures to act on; absent while there are. The fallback counts from here."""
    last_scale_time: Timestamp | None = None
    """When the number of workers was last changed."""
    limited_by: Annotated[str, Field(max_length=64)] | None = None
    """Reason of the condition ScalingLimited, while it is True."""
    metrics: Annotated[list[MetricStatus], Field(max_length=8)] = []
    """The signals the decision rests on."""
    decisions: Annotated[list[DecisionStatus], Field(max_length=KEPT_DECISIONS)] = []
    """The last five, newest first."""
    scale_events: Annotated[list[ScaleEventStatus], Field(max_length=MOST_SCALE_EVENTS)] = []
    """Changes of size that a rate of `behavior` counted when the last was made, newest first: a restart goes on from them."""
    objective_load_percent: Annotated[int, Field(ge=1, le=100)] | None = None
    """The load that the objective leaves room for beside a batch; absent: there is no objective, or no speed is known."""
    demand_swing_percent: NonNegativeInt32 | None = None
    """By how much of itself demand swings beyond chance; absent: no more than a tenth, or it is not known."""
    explained_time: Timestamp | None = None
    """When the explanation was written: it is written again when more than ages and noise changes, at most every 30 s for figures
    alone. A load that moved by less than a quarter is noise."""
    explanation: Annotated[list[ExplanationStep], Field(max_length=MOST_STEPS)] = []
    """The present decision in words, step by step; `yolastic explain NAME` prints it. Empty: nothing is decided."""


class InferenceStatus(Resource):
    """What is."""

    observed_generation: NonNegativeInt64 = 0
    """The generation of the spec this status speaks of."""
    replicas: NonNegativeInt32 = 0
    """Workers there are."""
    ready_replicas: NonNegativeInt32 = 0
    """Workers that serve."""
    desired_replicas: NonNegativeInt32 = 0
    """Workers wanted."""
    selector: Annotated[str, Field(max_length=512)] = ""
    """Label selector of the workers, as text."""
    url: Annotated[str, Field(max_length=512)] | None = None
    """Where clients send images."""
    model: ModelStatus = ModelStatus()
    batch: BatchStatus = BatchStatus()
    memory: MemoryStatus = MemoryStatus()
    latency: LatencyStatus = LatencyStatus()
    autoscaling: AutoscalingStatus = AutoscalingStatus()
    conditions: Annotated[
        list[Condition],
        Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
    ] = []
    """What holds and what does not; keyed by type. The operator writes its own eight and leaves those of others alone."""
