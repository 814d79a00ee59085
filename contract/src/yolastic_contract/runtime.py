"""The `YoloRuntime` resource: what an admin decides, once a cluster."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from yolastic_contract.base import DnsName, ExtendedResource, NonNegativeInt64, Resource, cel, refuse_unless
from yolastic_contract.quantity import Quantity

_HOST_LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_HOST_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
UrlHost = Annotated[
    str, Field(pattern=rf"^(\*\.)?({_HOST_LABEL}\.)+[a-z]([-a-z0-9]{{0,61}}[a-z0-9])?(:{_HOST_PORT})?$", max_length=253)
]
LabelValue = Annotated[str, Field(max_length=63)]
Amounts = Annotated[dict[str, Quantity], Field(max_length=16)]


class Toleration(Resource):
    """A `core/v1` toleration."""

    key: Annotated[str, Field(max_length=317)] | None = None
    """The taint's key; empty matches all keys, with operator Exists."""
    operator: Literal["Exists", "Equal"] | None = None
    """Default Equal."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """The taint's value, for Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect; empty matches all."""
    toleration_seconds: NonNegativeInt64 | None = None
    """How long NoExecute is tolerated; default for ever."""


class ComputeResources(Resource):
    """CPU and memory of a worker, as in a container."""

    requests: Amounts = {}
    """What the scheduler reserves."""
    limits: Amounts = {}
    """What it may not exceed."""


class RuntimeSpec(Resource):
    """Image, backend, device and placement of the workers that name this runtime."""

    model_config = ConfigDict(
        json_schema_extra=refuse_unless(
            cel(
                "has(self.simulate) == (self.backend == 'Simulated')",
                "simulate belongs to backend Simulated, and Simulated needs it",
                ".simulate",
            ),
            cel("self.backend != 'Simulated' || self.device == 'cpu'", "Simulated has no device but its own", ".device"),
        )
    )

    image: Annotated[str, Field(min_length=1, max_length=512)]
    """The worker image; by digest in production."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the node fetches the image."""
    backend: Literal["OnnxRuntime", "Simulated"] = "OnnxRuntime"
    """Simulated: an accelerator that takes `fixed + perImage * batch`, for tests and demos."""
    device: Literal["cpu", "cuda"] = "cpu"
    """The ONNX Runtime device; a worker that does not get it does not start."""
    simulate: Annotated[str, Field(max_length=512)] | None = None
    """For Simulated only: `fixed_ms=20,per_image_ms=1,memory_fixed_mib=600,memory_per_image_mib=60,memory_limit_mib=4096`."""
    accelerator_resource: ExtendedResource | None = None
    """The extended resource a worker asks one of, for example nvidia.com/gpu; omitted: none is requested."""
    accelerator_memory: Quantity | None = None
    """Memory of the device, when it cannot be asked."""
    shared: bool = False
    """Several workers on one device (time slicing, MPS): its memory is shared out; gathering a batch saves time for others."""
    resources: ComputeResources = ComputeResources()
    """CPU and memory of a worker."""
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32)] = {}
    """Labels a node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = []
    """Taints a worker may stand."""
    affinity: Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})] = {}
    """A `core/v1` affinity."""
    runtime_class_name: DnsName | None = None
    """The RuntimeClass, for example nvidia."""
    priority_class_name: DnsName | None = None
    """The PriorityClass."""
    url_hosts: Annotated[list[UrlHost], Field(max_length=64)] = []
    """Hosts that images may be fetched from: `host`, `host:port`, `*.domain`; https, public addresses only. Empty: no URLs."""

    @model_validator(mode="after")
    def _simulate_only_when_simulated(self) -> "RuntimeSpec":
        if (self.simulate is not None) != (self.backend == "Simulated"):
            raise ValueError("simulate belongs to backend Simulated, and Simulated needs it")
        if self.backend == "Simulated" and self.device != "cpu":
            raise ValueError("Simulated has no device but its own")
        return self
