"""The `YoloInference` resource: what to serve and within which limits."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from yolastic_contract.base import (
    DnsName,
    Resource,
    cel,
    refuse_unless,
)
from yolastic_contract.behavior import Behavior
from yolastic_contract.names import CONTROL_SECRET_SUFFIX
from yolastic_contract.quantity import Quantity

Task = Literal["Detect"]
# Of the characters of a URI (RFC 3986: ASCII alone): what white space is, regular expressions do not agree upon.
URI_PATTERN = r"^(https?://[!\"$-.0->A-~]+/[!-~]+|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[!-~]+|file:///[!-~]+)$"
RolloutStrategy = Literal["Auto", "RollingUpdate", "Recreate"]
_NO_CONTROL_SECRET = f"a Secret whose name ends in {CONTROL_SECRET_SUFFIX} holds control tokens, which go to no server of models"
Replicas = Annotated[int, Field(ge=0, le=1000)]


class InputSize(Resource):
    """Pixels the images are letterboxed to; both sides multiples of 32."""

    width: Annotated[int, Field(ge=32, le=4096, multiple_of=32)]
    """Pixels."""
    height: Annotated[int, Field(ge=32, le=4096, multiple_of=32)]
    """Pixels."""


class Model(Resource):
    """Which model, and how to be sure it is the right one."""

    model_config = ConfigDict(
        json_schema_extra=refuse_unless(
            cel("!self.uri.startsWith('file:')", "file:// works in local mode only", ".uri"),
            cel(
                f"!has(self.credentialsSecretName) || !self.credentialsSecretName.endsWith('{CONTROL_SECRET_SUFFIX}')",
                _NO_CONTROL_SECRET,
                ".credentialsSecretName",
            ),
        )
    )

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

    @model_validator(mode="after")
    def _no_control_secret(self) -> "Model":
        if (self.credentials_secret_name or "").endswith(CONTROL_SECRET_SUFFIX):
            raise ValueError(_NO_CONTROL_SECRET)
        return self


class Fallback(Resource):
    """What to do when no worker's load has been known for long."""

    model_config = ConfigDict(
        json_schema_extra=refuse_unless(
            cel(
                # A default is checked as it is written, before the defaults within it.
                "!has(self.policy) || self.policy == 'Hold' || has(self.replicas)",
                "the policies Static and AtLeast need replicas",
                ".replicas",
            )
        )
    )

    failure_duration_seconds: Annotated[int, Field(ge=1, le=86400)] = 180
    """Without usable figures for so long the policy applies; before that the size is held."""
    policy: Literal["Hold", "Static", "AtLeast"] = "Hold"
    """Hold: keep the size; Static: go to `replicas`, up or down within behavior; AtLeast: go up to `replicas`, never down."""
    replicas: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Workers for Static and AtLeast, at most maxReplicas."""

    @model_validator(mode="after")
    def _sized(self) -> "Fallback":
        if self.policy != "Hold" and self.replicas is None:
            raise ValueError("the policies Static and AtLeast need replicas")
        return self


class Autoscaling(Resource):
    """How many workers, as the Horizontal Pod Autoscaler would decide, from the workers' load ratio."""

    model_config = ConfigDict(
        json_schema_extra=refuse_unless(
            cel("self.minReplicas <= self.maxReplicas", "minReplicas must not exceed maxReplicas", ".minReplicas"),
            cel(
                "self.scaleDownLoadPercent < self.targetLoadPercent",
                "scaleDownLoadPercent must be below targetLoadPercent",
                ".scaleDownLoadPercent",
            ),
            cel(
                "!has(self.fallback) || !has(self.fallback.replicas) || self.fallback.replicas <= self.maxReplicas",
                "fallback.replicas must not exceed maxReplicas",
                ".fallback.replicas",
            ),
        )
    )

    mode: Literal["Active", "Advisory", "Paused"] = "Active"
    """Active: decide and act; Advisory: decide and tell, change nothing; Paused: hold the size and the batch ceiling."""
    min_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Never fewer workers than this."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)]
    """Never more workers than this."""
    target_load_percent: Annotated[int, Field(ge=1, le=100)] = 80
    """Mean load ratio of the workers to aim for: demand over capacity at the batch ceiling. Less is aimed for where an
    objective near the time of a batch leaves no room for it (50 at the least), or where demand swings by more than chance
    (three quarters of it at the least); status.autoscaling.metrics tells."""
    scale_down_load_percent: Annotated[int, Field(ge=1, le=99)] = 65
    """Shrink only if one worker fewer would stay below this."""
    second_worker_load_percent: Annotated[int, Field(ge=1, le=100)] = 20
    """A lone worker that carries more than this for a minute gets a second one for rises that nothing tells of; it stays until
    one alone would carry less than three quarters of it, or another inference has too few workers and waits for a device. Not on
    shared devices, nor with the load that is aimed for or more."""
    forecast: Literal["Trend", "None"] = "Trend"
    """Trend: order for the demand there will be when a new worker is ready, where the last minutes show it, leave room where it
    swings, take demand that has been above the target for a minute for no noise (unless a tolerance is given), and let the
    scale-down window count twice after demand fell at once; None: none of it."""
    behavior: Behavior | None = None
    """Exactly autoscaling/v2: windows, policies, selectPolicy, tolerance."""
    fallback: Fallback = Fallback()
    """What to do when no worker's load has been known for long."""

    @model_validator(mode="after")
    def _ordered(self) -> "Autoscaling":
        if self.min_replicas > self.max_replicas:
            raise ValueError("minReplicas must not exceed maxReplicas")
        if self.scale_down_load_percent >= self.target_load_percent:
            raise ValueError("scaleDownLoadPercent must be below targetLoadPercent")
        if self.fallback.replicas is not None and self.fallback.replicas > self.max_replicas:
            raise ValueError("fallback.replicas must not exceed maxReplicas")
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
    """Images that may wait in one worker; more are answered 429."""
    overflow: Literal["Reject", "DropOldest"] = "Reject"
    """Which one when they are too many. Reject: the newcomer; DropOldest: the image that has waited longest, for live cameras."""


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


class Rollout(Resource):
    """How workers of a changed spec take the place of the old ones."""

    strategy: RolloutStrategy = "Auto"
    """RollingUpdate: a new worker is ready before an old one goes; Recreate: one by one, an old one goes first; Auto: the former,
    and the latter when there is no device, or a quota has no room, for one more."""


class InferenceSpec(Resource):
    """What to serve, and within which limits."""

    model_config = ConfigDict(
        json_schema_extra=refuse_unless(
            cel(
                "!(has(self.replicas) && has(self.autoscaling))",
                "replicas and autoscaling exclude each other: remove one; to resize an autoscaled inference by hand, "
                "change autoscaling.minReplicas and autoscaling.maxReplicas",
                ".replicas",
            )
        )
    )

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
    rollout: Rollout = Rollout()
    """How workers of a changed spec take the place of the old ones."""
    api_keys_secret_name: DnsName | None = None
    """Secret of the same namespace whose key `keys` says who may ask, in lines `name:sha256[:rate per second[:daily quota]]`."""

    @model_validator(mode="after")
    def _replicas_xor_autoscaling(self) -> "InferenceSpec":
        if self.replicas is not None and self.autoscaling is not None:
            raise ValueError("set either replicas or autoscaling, not both")
        return self
