"""Children of an inference against golden files. To write them: REGENERATE=1 pytest tests/operator/kube/test_manifests.py"""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.act import manifests, workload
from yolastic_operator.act.control_token import ControlTokens
from yolastic_operator.act.manifests import Surroundings
from yolastic_operator.act.pod import model_claim
from yolastic_operator.model import Ref, Workload

GOLDEN = Path(__file__).parent / "golden"
SHA256 = "0123456789abcdef" * 4
REF = Ref("plant", "weld-line-3", "7f1b2f0e-0000-4000-8000-000000000001")
SPREAD = {"weight": 1, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname"}}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], Surroundings]] = {
    "cpu-http": (
        {"model": {"uri": "https://models.example/weld.onnx", "sha256": SHA256}},
        {"image": "yolastic-worker:0.1.0-cpu", "resources": {"requests": {"cpu": "1", "memory": "512Mi"}}},
        Surroundings(),
    ),
    "cuda-everything": (
        {
            "model": {
                "uri": "http://models.example/weld.onnx",
                "sha256": SHA256,
                "task": "Detect",
                "inputSize": {"width": 640, "height": 480},
                "credentialsSecretName": "model-store",
            },
            "runtime": "cuda",
            "autoscaling": {"minReplicas": 1, "maxReplicas": 8},
            "batching": {"maxSize": 64, "window": "Fixed", "maxDelayMilliseconds": 20, "eagerSize": 8},
            "queue": {"maxLength": 128},
            "objective": {"latencyMilliseconds": 100},
            "memory": {"limit": "8Gi", "headroomPercent": 20},
            "drain": {"timeoutSeconds": 120},
            "apiKeysSecretName": "weld-clients",
        },
        {
            "image": "registry.example/yolastic-worker@sha256:" + "ab" * 32,
            "imagePullPolicy": "Always",
            "device": "cuda",
            "acceleratorResource": "nvidia.com/gpu",
            "acceleratorMemory": "24Gi",
            "shared": True,
            "resources": {"requests": {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "2"}, "limits": {"memory": "8Gi"}},
            "nodeSelector": {"accelerator": "l4"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [SPREAD]}},
            "runtimeClassName": "nvidia",
            "priorityClassName": "serving",
            "urlHosts": ["images.example.org", "*.cdn.example.org:8443"],
        },
        Surroundings(15, "operators", {"kubernetes.io/metadata.name": "monitoring"}),
    ),
    "simulated-pvc": (
        {"model": {"uri": "pvc://models/2026/weld.onnx", "sha256": SHA256}, "runtime": "emulated", "replicas": 3},
        {"image": "yolastic-worker:0.1.0-cpu", "backend": "Simulated", "simulate": "fixed_ms=20,per_image_ms=1"},
        Surroundings(),
    ),
}


def build(spec: dict[str, Any], runtime: dict[str, Any], ref: Ref = REF) -> Workload:
    parsed = InferenceSpec.model_validate(spec)
    return workload.build(ref, parsed, parsed.runtime, RuntimeSpec.model_validate(runtime))


def rendered(case: str) -> list[dict[str, Any]]:
    spec, runtime, surroundings = CASES[case]
    work = build(spec, runtime)
    return [manifests.control_secret(work, ControlTokens(("a-token",), 1_795_000_000.0)), *manifests.render(work, surroundings)]


class PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    path = GOLDEN / f"{case}.yaml"
    text = yaml.dump_all(rendered(case), Dumper=PlainDumper, sort_keys=False, width=120)
    if os.environ.get("REGENERATE"):
        path.write_text(text)
    assert list(yaml.safe_load_all(path.read_text())) == rendered(case)


def of_kind(case: str, kind: str) -> dict[str, Any]:
    return next(manifest for manifest in rendered(case) if manifest["kind"] == kind)


def pod_of(case: str) -> dict[str, Any]:
    return of_kind(case, "Deployment")["spec"]["template"]["spec"]


@pytest.mark.parametrize("case", CASES)
def test_pods_meet_the_restricted_standard(case: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, profile Restricted, control by control."""
    pod = pod_of(case)
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers", "serviceAccountName"} & pod.keys()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] != 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for volume in pod["volumes"]:
        assert volume.keys() - {"name"} <= {"emptyDir", "secret", "persistentVolumeClaim"}
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert "privileged" not in context
        assert not any("hostPort" in port for port in container.get("ports", []))


@pytest.mark.parametrize("case", CASES)
def test_what_every_deployment_keeps_to(case: str) -> None:
    deployment = of_kind(case, "Deployment")
    spec, pod = deployment["spec"], pod_of(case)
    assert "replicas" not in spec
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    arguments = pod["containers"][0]["args"]
    waits_s = [int(arguments[arguments.index(flag) + 1]) for flag in ("--propagation-delay-s", "--drain-timeout-s")]
    assert pod["terminationGracePeriodSeconds"] > sum(waits_s)
    probe = pod["containers"][0]["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] < waits_s[0], "a drain is seen before the worker stops accepting"


def test_api_keys_reach_the_worker_alone_as_a_file() -> None:
    """Mounted, never copied: no environment, no other key of the Secret, nothing in the container that downloads."""
    pod = pod_of("cuda-everything")
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "api-keys"]
    assert volume["secret"]["secretName"] == "weld-clients"
    assert volume["secret"]["items"] == [{"key": "keys", "path": "keys"}]
    worker, fetch = pod["containers"][0], pod["initContainers"][0]
    assert {"name": "api-keys", "mountPath": "/etc/yolastic/api-keys", "readOnly": True} in worker["volumeMounts"]
    assert worker["args"][worker["args"].index("--api-keys-file") + 1] == "/etc/yolastic/api-keys/keys"
    assert "api-keys" not in str(fetch)
    assert "weld-clients" not in str(worker)
    assert not any("valueFrom" in variable for variable in worker["env"])
    assert "api-keys" not in str(pod_of("cpu-http"))


def test_credentials_reach_the_fetcher_alone() -> None:
    pod = pod_of("cuda-everything")
    (fetch,) = pod["initContainers"]
    refs = {item["name"]: item["valueFrom"]["secretKeyRef"] for item in fetch["env"] if "valueFrom" in item}
    assert refs == {
        f"YOLASTIC_MODEL_{key}": {"name": "model-store", "key": key, "optional": True}
        for key in ("token", "username", "password")
    }, "no other key of the Secret"
    assert {"name": "YOLASTIC_MODEL_SECRET", "value": "model-store"} in fetch["env"]
    assert "envFrom" not in str(pod)
    assert "model-store" not in str(pod["containers"])


LOST = [
    {"key": f"node.kubernetes.io/{state}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
    for state in ("not-ready", "unreachable")
]


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ([], LOST),
        ([{"key": "nvidia.com/gpu", "operator": "Exists"}], LOST),
        ([{"operator": "Exists", "effect": "NoSchedule"}], LOST),
        ([{"operator": "Exists"}], []),
        ([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 600}], LOST[:1]),
        ([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}], LOST[1:]),
    ],
)
def test_a_lost_node_keeps_a_worker_for_half_a_minute_unless_the_runtime_says_how_long(
    given: list[dict[str, Any]], added: list[dict[str, Any]]
) -> None:
    spec = {"model": {"uri": "https://models.example/m.onnx", "sha256": SHA256}}
    deployment = manifests.deployment(build(spec, {"image": "worker:1", "tolerations": given}), Surroundings())
    assert deployment["spec"]["template"]["spec"]["tolerations"] == given + added


def test_only_the_worker_asks_for_the_device() -> None:
    pod = pod_of("cuda-everything")
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in str(pod["initContainers"][0]["resources"])


def test_a_claim_is_mounted_for_reading_and_nothing_is_fetched() -> None:
    pod = pod_of("simulated-pvc")
    assert "initContainers" not in pod
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    assert "/models/2026/weld.onnx" in pod["containers"][0]["args"]


def test_a_uri_is_no_template() -> None:
    spec = {"model": {"uri": "https://models.example/$(YOLASTIC_MODEL_token)/m.onnx", "sha256": SHA256}}
    deployment = manifests.deployment(build(spec, {"image": "worker:1"}), Surroundings())
    arguments = deployment["spec"]["template"]["spec"]["initContainers"][0]["args"]
    assert "https://models.example/$$(YOLASTIC_MODEL_token)/m.onnx" in arguments


@pytest.mark.parametrize("case", CASES)
def test_the_token_is_in_the_secret_alone(case: str) -> None:
    secret, *others = rendered(case)
    assert secret["data"]["token"] == "YS10b2tlbg=="
    assert "a-token" not in str(others)
    assert "YS10b2tlbg" not in str(others)


@pytest.mark.parametrize(
    ("uri", "claim"),
    [
        ("https://models.example/weld.onnx", None),
        ("http://models.example/weld.onnx?v=2", None),
        ("pvc://models/weld.onnx", ("models", "weld.onnx")),
        ("pvc://models/a/b.onnx", ("models", "a/b.onnx")),
        ("pvc://models/a%2e/b#1.onnx", ("models", "a%2e/b#1.onnx")),
    ],
)
def test_where_a_model_is(uri: str, claim: tuple[str, str] | None) -> None:
    assert model_claim(uri) == claim


@pytest.mark.parametrize(
    "uri",
    [
        "file:///models/weld.onnx",
        "pvc://models/../token",
        "pvc://models/a/../../token",
        "pvc://models//etc/passwd",
        "pvc://models/.",
    ],
)
def test_where_a_model_must_not_be(uri: str) -> None:
    with pytest.raises(ValueError, match=r"file://|pvc://models"):
        model_claim(uri)


def test_a_size_is_handed_over_without_the_rest() -> None:
    deployment = of_kind("cpu-http", "Deployment")
    assert manifests.with_replicas(deployment, 3)["spec"]["replicas"] == 3
    assert "replicas" not in deployment["spec"], "the original is left alone"
    assert manifests.only_replicas(deployment, 3) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "weld-line-3", "namespace": "plant"},
        "spec": {"replicas": 3},
    }
