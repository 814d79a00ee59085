"""What the cluster must run for an inference, and its revision. Pure."""

import hashlib
import json
from typing import Any, Final

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.names import worker_labels
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.act.arguments import worker_arguments
from yolastic_operator.model import Ref, Workload

REVISION_LENGTH: Final = 10


def build(ref: Ref, spec: InferenceSpec, runtime_name: str, runtime: RuntimeSpec) -> Workload:
    """The workload of an inference with the revision that tells its workers from those of an older spec."""
    return Workload(ref, spec, runtime_name, runtime, worker_labels(ref.name), revision(ref.name, spec, runtime))


def revision(name: str, spec: InferenceSpec, runtime: RuntimeSpec) -> str:
    """Short digest over what makes a different worker: its command line, its model, its runtime, and where its keys are.

    What is pushed to running workers or concerns only their number (autoscaling, replicas, batching policy, memory
    headroom) is not in it, so changing that restarts nothing. Fields at their defaults are left out, so that a new
    field of a newer version restarts nothing either.
    """
    parts: dict[str, Any] = {
        "arguments": worker_arguments(name, spec, runtime, "model"),
        "model": spec.model.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        "runtime": runtime.model_dump(mode="json", by_alias=True, exclude_defaults=True),
    }
    if spec.api_keys_secret_name is not None:
        parts["apiKeysSecretName"] = spec.api_keys_secret_name
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:REVISION_LENGTH]
