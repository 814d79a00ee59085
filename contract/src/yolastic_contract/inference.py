"""The `YoloInference` resource: what to serve and within which limits."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from yolastic_contract.base import DnsName, NonNegativeInt32, Resource
from yolastic_contract.behavior import Behavior
from yolastic_contract.quantity import Quantity

Task = Literal["Detect"]
URI_PATTERN = r"^(https?://[^\s/?#@]+/\S+|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/\S+|file:///\S+)$"
Replicas = Annotated[int, Field(ge=0, le=1000)]


class InputSize(Resource):
    """Pixels the images are letterboxed to; both sides multiples of 32."""

    width: Annotated[int, Field(ge=32, le=4096, multiple_of=32)]
    """Pixels."""
    height: Annotated[int, Field(ge=32, le=4096, multiple_of=32)]
    """Pixels."""


class Model(Resource):
    """Which model, and how to be sure it is the right one."""

    uri: Annotated[str, Field(pattern=URI_PATTERN, max_length=1024)]
    """Where the ONNX file is: https://, http:// or pvc://CLAIM/path; file:// in local mode only."""
    sha256: Annotated[str, Field(pattern=r"^[a-f0-9]{64}$", max_length=64)]
    """Digest of the file, verified by the process that loads it, before it is loaded."""
    task: Task | None = None
    """Default: what the model's metadata says."""
    input_size: InputSize | None = None
    """Default: what the model's metadata says."""
    credentials_secret_name: DnsName | None = None
    """Secret of the same namespace for http(s): keys `username` and `password`, or `token` (bearer)."""


class Autoscaling(Resource):
    """How many workers, as the Horizontal Pod Autoscaler would decide, from the workers' load ratio."""

    min_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Never fewer workers than this."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)]
    """Never more workers than this."""
    target_load_percent: Annotated[int, Field(ge=1, le=100)] = 80
    """Mean load ratio of the workers to aim for: demand over capacity at the batch ceiling."""
    scale_down_load_percent: Annotated[int, Field(ge=1, le=99)] = 65
    """Shrink only if one worker fewer would stay below this."""
    behavior: Behavior | None = None
    """Exactly autoscaling/v2: windows, policies, selectPolicy, tolerance."""

    @model_validator(mode="after")
    def _ordered(self) -> "Autoscaling":
        if self.min_replicas > self.max_replicas:
            raise ValueError("minReplicas must not exceed maxReplicas")
        if self.scale_down_load_percent >= self.target_load_percent:
            raise ValueError("scaleDownLoadPercent must be below targetLoadPercent")
        return self


class Batching(Resource):
    """How images are gathered into batches."""

    policy: Literal["Computed", "Fixed"] = "Computed"
    """Computed: the ceiling follows memory, objective and efficiency; Fixed: it is maxSize as long as memory allows."""
    max_size: Annotated[int, Field(ge=1, le=256)] = 32
    """Never more images in one batch."""
    window: Literal["Adaptive", "Fixed"] = "Adaptive"
    """Adaptive: do not wait unless it pays; Fixed: wait for eagerSize images or maxDelayMilliseconds, always."""
    max_delay_milliseconds: Annotated[int, Field(ge=0, le=1000)] = 10
    """The longest an image waits for company while the engine is idle."""
    eager_size: Annotated[int, Field(ge=1, le=256)] = 4
    """This many waiting: go at once."""


class Queue(Resource):
    """The bound of a worker's queue."""

    max_length: Annotated[int, Field(ge=1, le=65536)] = 256
    """Images that may wait in one worker; more are refused with 429."""


class Objective(Resource):
    """The latency to keep."""

    latency_milliseconds: Annotated[int, Field(ge=1, le=600000)]
    """Milliseconds from arrival to answer; bounds the batch ceiling, and 5 times it is a request's default patience."""


class Memory(Resource):
    """The accelerator memory one worker may use."""

    limit: Quantity | None = None
    """Default: the runtime's acceleratorMemory, else what the device reports."""
    headroom_percent: Annotated[int, Field(ge=0, le=90)] = 10
    """Kept free of the limit."""


class Drain(Resource):
    """How a worker leaves."""

    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    """The longest a worker may take to finish what it accepted before it is removed."""


class InferenceSpec(Resource):
    """What to serve, and within which limits."""

    model: Model
    """The model."""
    runtime: DnsName = "cpu"
    """Name of a YoloRuntime."""
    replicas: Replicas | None = None
    """A fixed number of workers; excludes autoscaling. Neither means 1."""
    autoscaling: Autoscaling | None = None
    """Let the operator choose the number of workers; excludes replicas."""
    batching: Batching = Batching()
    """How images are gathered into batches."""
    queue: Queue = Queue()
    """The bound of a worker's queue."""
    objective: Objective | None = None
    """The latency to keep; without it latency does not bound the batch ceiling."""
    memory: Memory = Memory()
    """The accelerator memory one worker may use."""
    drain: Drain = Drain()
    """How a worker leaves."""

    @model_validator(mode="after")
    def _replicas_xor_autoscaling(self) -> "InferenceSpec":
        if self.replicas is not None and self.autoscaling is not None:
            raise ValueError("set either replicas or autoscaling, not both")
        return self


class Condition(Resource):
    """A `metav1.Condition`."""

    type: Annotated[str, Field(max_length=64)]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    message: Annotated[str, Field(max_length=1024)] = ""
    observed_generation: int = 0
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"}, max_length=32)]


class ModelStatus(Resource):
    """The model as the workers loaded it."""

    sha256: Annotated[str, Field(max_length=64)] | None = None
    task: Annotated[str, Field(max_length=32)] | None = None
    loaded_replicas: NonNegativeInt32 = 0
    """Workers that have loaded it and are ready."""


class BatchBounds(Resource):
    """The four bounds of the ceiling, images; one that does not bind is absent."""

    spec: NonNegativeInt32 | None = None
    memory: NonNegativeInt32 | None = None
    latency: NonNegativeInt32 | None = None
    efficiency: NonNegativeInt32 | None = None


class BatchStatus(Resource):
    """The batch ceiling granted to every worker."""

    base: NonNegativeInt32 | None = None
    """The usual tier, images."""
    ceiling: NonNegativeInt32 | None = None
    """The burst tier, images: never more in one batch."""
    bounds: BatchBounds = BatchBounds()
    limited_by: Literal["Spec", "Memory", "Latency", "Efficiency"] | None = None
    applied_replicas: NonNegativeInt32 = 0
    """Workers that have confirmed this ceiling."""


class MemoryStatus(Resource):
    """The memory fit `fixed + perImage * batch` and the budget it must stay within."""

    budget: Quantity | None = None
    fixed: Quantity | None = None
    per_image: Quantity | None = None
    predicted_peak: Quantity | None = None
    """Fit at the ceiling."""
    observed_peak: Quantity | None = None
    source: Literal["Declared", "Device"] | None = None
    """Where the limit comes from: declared in a resource, or read from the device."""


class LatencyStatus(Resource):
    """What the workers learned about speed: `fixed + perImage * batch`."""

    fixed_microseconds: NonNegativeInt32 | None = None
    per_image_microseconds: NonNegativeInt32 | None = None


class MetricStatus(Resource):
    """A signal as it was last seen."""

    name: Annotated[str, Field(max_length=64)]
    current: Quantity
    target: Quantity
    source: Literal["Prometheus", "Workers"]


class DecisionStatus(Resource):
    """One change of replicas or of the ceiling, and why."""

    time: Annotated[str, Field(json_schema_extra={"format": "date-time"}, max_length=32)]
    from_: Annotated[int, Field(alias="from", ge=0)]
    to: NonNegativeInt32
    batch_from: NonNegativeInt32 | None = None
    batch_to: NonNegativeInt32 | None = None
    reason: Annotated[str, Field(max_length=64)]
    message: Annotated[str, Field(max_length=512)]


class AutoscalingStatus(Resource):
    """The replica decision."""

    recommended_replicas: NonNegativeInt32 | None = None
    """What the metrics alone would ask for, before windows, rates and bounds."""
    last_scale_time: Annotated[str, Field(json_schema_extra={"format": "date-time"}, max_length=32)] | None = None
    limited_by: Annotated[str, Field(max_length=64)] | None = None
    metrics: Annotated[list[MetricStatus], Field(max_length=8)] = []
    decisions: Annotated[list[DecisionStatus], Field(max_length=5)] = []
    """The last five, newest first."""


class InferenceStatus(Resource):
    """What is."""

    observed_generation: int = 0
    replicas: NonNegativeInt32 = 0
    ready_replicas: NonNegativeInt32 = 0
    desired_replicas: NonNegativeInt32 = 0
    selector: Annotated[str, Field(max_length=512)] = ""
    url: Annotated[str, Field(max_length=512)] | None = None
    model: ModelStatus = ModelStatus()
    batch: BatchStatus = BatchStatus()
    memory: MemoryStatus = MemoryStatus()
    latency: LatencyStatus = LatencyStatus()
    autoscaling: AutoscalingStatus = AutoscalingStatus()
    conditions: Annotated[list[Condition], Field(max_length=16)] = []
