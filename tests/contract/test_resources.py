"""What a spec may say, and what it may not; the CRDs say the same to the API server."""

from typing import Any

import pytest
from pydantic import ValidationError

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.inference_status import InferenceStatus
from yolastic_contract.runtime import RuntimeSpec

SHA256 = "0" * 64
MODEL = {"uri": "https://models.example.com/m.onnx", "sha256": SHA256}


def spec(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL} | fields


def model(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL | fields}


@pytest.mark.parametrize(
    "body",
    [
        spec(),
        spec(replicas=0),
        spec(replicas=3, runtime="cuda"),
        spec(autoscaling={"maxReplicas": 8}),
        spec(autoscaling={"minReplicas": 8, "maxReplicas": 8, "targetLoadPercent": 66}),
        spec(autoscaling={"maxReplicas": 2, "behavior": {"scaleDown": {"selectPolicy": "Disabled"}}}),
        spec(
            autoscaling={
                "maxReplicas": 2,
                "behavior": {
                    "scaleUp": {
                        "stabilizationWindowSeconds": 0,
                        "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}],
                        "tolerance": "50m",
                    }
                },
            }
        ),
        spec(autoscaling={"maxReplicas": 2, "mode": "Paused", "fallback": {"policy": "Hold", "replicas": 2}}),
        spec(autoscaling={"maxReplicas": 2, "mode": "Advisory", "fallback": {"policy": "AtLeast", "replicas": 1}}),
        spec(memory={"limit": "8Gi", "headroomPercent": 0}),
        spec(memory={"limit": 8589934592}),
        spec(batching={"policy": "Fixed", "maxSize": 1, "window": "Fixed", "maxDelayMilliseconds": 0, "eagerSize": 1}),
        spec(objective={"latencyMilliseconds": 100}),
        model(uri="http://10.0.0.1:8000/a/b.onnx?version=3"),
        model(uri="pvc://models/shapes/v1.onnx"),
        model(uri="file:///srv/m.onnx"),
        model(task="Detect", inputSize={"width": 640, "height": 384}),
        model(credentialsSecretName="s3-read"),
        model(credentialsSecretName="quality-controls"),
    ],
)
def test_accepts(body: dict[str, Any]) -> None:
    parsed = InferenceSpec.model_validate(body)
    assert InferenceSpec.model_validate(parsed.model_dump(by_alias=True)) == parsed


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "model"),
        (spec(replicas=1, autoscaling={"maxReplicas": 2}), "replicas or autoscaling"),
        (spec(replicas=-1), "replicas"),
        (spec(replicas=1001), "replicas"),
        (spec(replica=1), "replica"),
        (spec(autoscaling={}), "maxReplicas"),
        (spec(autoscaling={"minReplicas": 5, "maxReplicas": 3}), "minReplicas must not exceed maxReplicas"),
        (spec(autoscaling={"minReplicas": 0, "maxReplicas": 3}), "minReplicas"),
        (spec(autoscaling={"maxReplicas": 3, "targetLoadPercent": 65}), "scaleDownLoadPercent must be below"),
        (spec(autoscaling={"maxReplicas": 3, "behavior": {"scaleUp": {"tolerance": 0.05}}}), "tolerance"),
        (spec(autoscaling={"maxReplicas": 3, "behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601}}}), "stabilization"),
        (spec(autoscaling={"maxReplicas": 3, "behavior": {"scaleUp": {"policies": [{"type": "Pods"}]}}}), "value"),
        (spec(autoscaling={"maxReplicas": 3, "behavior": {"scaleUp": {"policies": []}}}), "at least 1 item"),
        (spec(autoscaling={"maxReplicas": 3, "mode": "Off"}), "mode"),
        (spec(autoscaling={"maxReplicas": 3, "fallback": {"policy": "Static"}}), "need replicas"),
        (spec(autoscaling={"maxReplicas": 3, "fallback": {"policy": "AtLeast", "replicas": 4}}), "must not exceed maxReplicas"),
        (spec(autoscaling={"maxReplicas": 3, "fallback": {"failureDurationSeconds": 0}}), "failureDurationSeconds"),
        (spec(memory={"limit": "lots"}), "limit"),
        (spec(memory={"limit": "-8Gi"}), "limit"),
        (spec(memory={"headroomPercent": 91}), "headroomPercent"),
        (spec(batching={"maxSize": 0}), "maxSize"),
        (spec(batching={"maxSize": 257}), "maxSize"),
        (spec(batching={"window": "adaptive"}), "window"),
        (spec(queue={"maxLength": 0}), "maxLength"),
        (spec(objective={}), "latencyMilliseconds"),
        (spec(runtime="Not A Name"), "runtime"),
        (spec(drain={"timeoutSeconds": 0}), "timeoutSeconds"),
        (model(uri="ftp://host/m.onnx"), "uri"),
        (model(uri="https://host"), "uri"),
        (model(uri="https://user@host/m.onnx"), "uri"),
        (model(uri="https://host/a b.onnx"), "uri"),
        (model(uri="file://relative.onnx"), "uri"),
        (model(uri="pvc://Claim/m.onnx"), "uri"),
        (model(uri="https://host/" + "m" * 1024), "uri"),
        (model(uri="https://host/m.onnx\n"), "uri"),
        (model(sha256="0" * 63), "sha256"),
        (model(sha256="A" * 64), "sha256"),
        (model(task="Segment"), "task"),
        (model(credentialsSecretName="weld-control"), "holds control tokens"),
        (model(inputSize={"width": 641, "height": 640}), "width"),
        (model(inputSize={"width": 640}), "height"),
    ],
)
def test_refuses_and_says_where(body: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        InferenceSpec.model_validate(body)
    assert where in str(refusal.value)


@pytest.mark.parametrize(
    "body",
    [
        {"image": "worker"},
        {"image": "worker", "device": "cuda", "acceleratorResource": "nvidia.com/gpu", "shared": True},
        {"image": "worker", "backend": "Simulated", "simulate": "fixed_ms=20,per_image_ms=1"},
        {"image": "worker", "resources": {"requests": {"cpu": 1, "memory": "1Gi"}}, "nodeSelector": {"gpu": "t4"}},
        {"image": "worker", "tolerations": [{"key": "gpu", "operator": "Exists"}], "affinity": {"nodeAffinity": {"any": [1]}}},
    ],
)
def test_a_runtime_accepts(body: dict[str, Any]) -> None:
    parsed = RuntimeSpec.model_validate(body)
    assert RuntimeSpec.model_validate(parsed.model_dump(by_alias=True)) == parsed


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "image"),
        ({"image": ""}, "image"),
        ({"image": "worker", "simulate": "fixed_ms=1"}, "simulate belongs to backend Simulated"),
        ({"image": "worker", "backend": "Simulated"}, "Simulated needs it"),
        ({"image": "worker", "backend": "Simulated", "simulate": "fixed_ms=1", "device": "cuda"}, "no device but its own"),
        ({"image": "worker", "device": "tpu"}, "device"),
        ({"image": "worker", "nodeSelector": {"a": "b" * 64}}, "nodeSelector"),
        ({"image": "worker", "resources": {"claims": []}}, "claims"),
    ],
)
def test_a_runtime_refuses_and_says_where(body: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        RuntimeSpec.model_validate(body)
    assert where in str(refusal.value)


def test_a_status_is_written_in_camel_case_without_what_is_not_known() -> None:
    status = InferenceStatus.model_validate({"readyReplicas": 2, "batch": {"ceiling": 8, "limitedBy": "Memory"}})
    written = status.model_dump(by_alias=True, exclude_none=True)
    assert written["readyReplicas"] == 2
    assert written["batch"] == {"ceiling": 8, "limitedBy": "Memory", "bounds": {}, "appliedReplicas": 0}
    assert "url" not in written
