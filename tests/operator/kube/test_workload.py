"""Which changes of a spec make another worker, and what its command line says."""

from typing import Any

import pytest

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.act.arguments import memory_limit_bytes, worker_arguments
from yolastic_operator.act.workload import REVISION_LENGTH, revision

SPEC: dict[str, Any] = {
    "model": {"uri": "https://models.example/weld.onnx", "sha256": "0" * 64},
    "autoscaling": {"maxReplicas": 4},
}
RUNTIME: dict[str, Any] = {"image": "worker:1", "device": "cuda"}


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    if rest:
        return document | {head: changed(document.get(head, {}), rest, value)}
    return {key: item for key, item in (document | {head: value}).items() if item is not None}


def revision_of(spec: dict[str, Any], runtime: dict[str, Any]) -> str:
    return revision("weld", InferenceSpec.model_validate(spec), RuntimeSpec.model_validate(runtime))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.uri", "https://models.example/other.onnx"),
        ("model.sha256", "1" * 64),
        ("model.task", "Detect"),
        ("model.inputSize", {"width": 320, "height": 320}),
        ("model.credentialsSecretName", "store"),
        ("batching.maxSize", 16),
        ("batching.window", "Fixed"),
        ("batching.maxDelayMilliseconds", 5),
        ("batching.eagerSize", 2),
        ("queue.maxLength", 64),
        ("objective", {"latencyMilliseconds": 100}),
        ("memory.limit", "4Gi"),
        ("drain.timeoutSeconds", 30),
        ("apiKeysSecretName", "clients"),
    ],
)
def test_another_worker(path: str, value: Any) -> None:
    assert revision_of(changed(SPEC, path, value), RUNTIME) != revision_of(SPEC, RUNTIME)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("image", "worker:2"),
        ("imagePullPolicy", "Always"),
        ("device", "cpu"),
        ("acceleratorResource", "nvidia.com/gpu"),
        ("acceleratorMemory", "24Gi"),
        ("shared", True),
        ("resources.requests", {"cpu": "2"}),
        ("nodeSelector", {"zone": "a"}),
        ("tolerations", [{"operator": "Exists"}]),
        ("runtimeClassName", "nvidia"),
        ("priorityClassName", "high"),
        ("urlHosts", ["images.example.org"]),
    ],
)
def test_another_runtime_is_another_worker(path: str, value: Any) -> None:
    assert revision_of(SPEC, changed(RUNTIME, path, value)) != revision_of(SPEC, RUNTIME)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("autoscaling.maxReplicas", 8),
        ("autoscaling.minReplicas", 2),
        ("autoscaling.targetLoadPercent", 70),
        ("autoscaling.behavior", {"scaleDown": {"stabilizationWindowSeconds": 60}}),
        ("autoscaling", None),
        ("batching.policy", "Fixed"),
        ("memory.headroomPercent", 30),
        ("batching.maxSize", 32),
        ("runtime", "another-name-for-the-same"),
    ],
)
def test_the_same_worker(path: str, value: Any) -> None:
    assert revision_of(changed(SPEC, path, value), RUNTIME) == revision_of(SPEC, RUNTIME)


def test_another_secret_of_api_keys_is_another_worker() -> None:
    one, other = (changed(SPEC, "apiKeysSecretName", name) for name in ("clients", "others"))
    assert revision_of(one, RUNTIME) != revision_of(other, RUNTIME)


def test_a_revision_is_a_label_value() -> None:
    text = revision_of(SPEC, RUNTIME)
    assert len(text) == REVISION_LENGTH
    assert text.isalnum()


def test_the_name_is_part_of_it() -> None:
    spec, runtime = InferenceSpec.model_validate(SPEC), RuntimeSpec.model_validate(RUNTIME)
    assert revision("weld", spec, runtime) != revision("paint", spec, runtime)


@pytest.mark.parametrize(
    ("spec", "runtime", "limit_bytes"),
    [
        ({}, {}, None),
        ({"memory": {"limit": "8Gi"}}, {}, 8 * 2**30),
        ({}, {"acceleratorMemory": "24Gi"}, 24 * 2**30),
        ({"memory": {"limit": "8Gi"}}, {"acceleratorMemory": "24Gi"}, 8 * 2**30),
    ],
)
def test_whose_memory_limit_counts(spec: dict[str, Any], runtime: dict[str, Any], limit_bytes: int | None) -> None:
    parsed = InferenceSpec.model_validate(SPEC | spec), RuntimeSpec.model_validate(RUNTIME | runtime)
    assert memory_limit_bytes(*parsed) == limit_bytes
    arguments = worker_arguments("weld", *parsed, "/models/model.onnx")
    if limit_bytes is None:
        assert "--memory-limit" not in arguments
    else:
        assert arguments[arguments.index("--memory-limit") + 1] == str(limit_bytes)
