"""The operator's process on a real API server, with exactly its rights. Nothing runs pods: their status is written by hand."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scene import eventually, free_port

from yolastic_cli.__main__ import main
from yolastic_operator.cluster.anew import CONFLICT

pytestmark = pytest.mark.cluster

API = "/apis/yolastic.dev/v1alpha1"
MERGE = "application/merge-patch+json"
HELD = "held by a policy"
SPEC: dict[str, Any] = {"model": {"uri": "http://models.invalid/m.onnx", "sha256": "0" * 64}}


@dataclass
class Running:
    """The operator, and one namespace for a test."""

    server: Any
    namespace: str
    health_url: str
    metrics_url: str

    def path(self, name: str) -> str:
        return f"{API}/namespaces/{self.namespace}/yoloinferences/{name}"

    def make(self, name: str, **spec: Any) -> Any:
        body = {"apiVersion": "yolastic.dev/v1alpha1", "kind": "YoloInference", "metadata": {"name": name}, "spec": SPEC | spec}
        return self.server.apply(self.path(name), body)

    def runtime(self, **spec: Any) -> str:
        """A runtime of this test alone."""
        body = {"apiVersion": "yolastic.dev/v1alpha1", "kind": "YoloRuntime", "metadata": {"name": self.namespace}}
        self.server.apply(f"{API}/yoloruntimes/{self.namespace}", body | {"spec": {"image": "worker:1"} | spec})
        return self.namespace

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        body = self.server.get(self.path(name)) or {}
        return next((item for item in body.get("status", {}).get("conditions", []) if item["type"] == kind), {})

    def reason(self, name: str, kind: str = "Ready") -> str | None:
        return self.condition(name, kind).get("reason")

    def deployment(self, name: str) -> Any:
        return self.server.get(f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{name}")

    def pod(self, name: str, inference: str, status: dict[str, Any]) -> None:
        """A pod as the Deployment's controllers would make it, with a status as a kubelet would write it."""
        template = self.deployment(inference)["spec"]["template"]
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}"
        volumes = template["spec"]["volumes"]
        spec = {"containers": [{"name": "worker", "image": "worker:1"}], "volumes": volumes}
        metadata = {"name": name, "labels": template["metadata"]["labels"]}
        self.server.apply(path, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        self.server.merge(f"{path}/status", {"status": status})


def start(kubeconfig: Path, log: Path, **variables: str) -> subprocess.Popen[bytes]:
    environment = (
        os.environ | {"KUBECONFIG": str(kubeconfig)} | {f"YOLASTIC_OPERATOR_{name}": text for name, text in variables.items()}
    )
    with log.open("wb") as output:
        return subprocess.Popen([sys.executable, "-m", "yolastic_operator"], env=environment, stdout=output, stderr=output)


@contextlib.contextmanager
def operator(api_server: Any, log: Path) -> Iterator[tuple[str, str]]:
    health, metrics = free_port(), free_port()
    ports = {"HEALTH_PORT": str(health), "METRICS_PORT": str(metrics)}
    process = start(api_server.operator_kubeconfig, log, TURN_SECONDS="0.5", **ports)
    try:
        yield f"http://127.0.0.1:{health}/healthz", f"http://127.0.0.1:{metrics}/metrics"
        assert process.poll() is None, log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(15) == 0
        finally:
            process.kill()


@pytest.fixture(scope="module")
def urls(api_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    log = tmp_path_factory.mktemp("operator") / "log"
    with operator(api_server, log) as urls:
        yield urls
    told = log.read_text()
    assert "Traceback" not in told
    assert [line for line in told.splitlines() if "ERROR" in line and HELD not in line] == []


@pytest.fixture
def running(api_server: Any, namespace: str, urls: tuple[str, str]) -> Iterator[Running]:
    yield Running(api_server, namespace, *urls)
    objects = f"{API}/namespaces/{namespace}/yoloinferences"
    api_server.request("DELETE", objects)
    eventually("the objects of the test are gone", lambda: not api_server.get(objects)["items"])


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def test_an_object_becomes_its_children_and_says_so(running: Running) -> None:
    running.make("weld", runtime=running.runtime(), replicas=2)
    deployment = eventually("a Deployment", lambda: running.deployment("weld"))
    assert deployment["spec"]["replicas"] == 2
    message = eventually("a condition", lambda: running.condition("weld", "Ready"))["message"]
    assert message.startswith("0 of 2 workers ready")
    status = running.server.get(running.path("weld"))["status"]
    assert (status["observedGeneration"], status["desiredReplicas"]) == (1, 2)
    assert status["url"] == f"http://weld.{running.namespace}.svc"


def test_a_runtime_that_comes_later_is_noticed(running: Running) -> None:
    running.make("weld", runtime=running.namespace)
    eventually("a reason", lambda: running.reason("weld") == "RuntimeNotFound")
    assert running.condition("weld", "Ready")["message"] == f"there is no YoloRuntime {running.namespace}"
    assert running.deployment("weld") is None
    running.runtime()
    eventually("a Deployment", lambda: running.deployment("weld"))


def test_another_runtime_spec_makes_other_workers(running: Running) -> None:
    running.make("weld", runtime=running.runtime())
    before = eventually("a Deployment", lambda: running.deployment("weld"))
    running.runtime(image="worker:2")
    eventually("the new image", lambda: image_of(running.deployment("weld")) == "worker:2")
    label = "yolastic.dev/revision"
    labels = [item["spec"]["template"]["metadata"]["labels"][label] for item in (before, running.deployment("weld"))]
    assert labels[0] != labels[1]


def image_of(deployment: Any) -> Any:
    return deployment["spec"]["template"]["spec"]["containers"][0]["image"]


@pytest.mark.parametrize(
    ("status", "kind", "reason", "message"),
    [
        (
            {
                "initContainerStatuses": [
                    {"name": "fetch", "state": {"terminated": {"exitCode": 2, "message": "ChecksumMismatch: other"}}}
                ]
            },
            "ModelLoaded",
            "ChecksumMismatch",
            "other",
        ),
        (
            {
                "containerStatuses": [
                    {
                        "name": "worker",
                        "state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "store" not found'}},
                    }
                ]
            },
            "Ready",
            "SecretNotFound",
            "Secret store",
        ),
    ],
)
def test_why_a_worker_does_not_start(running: Running, status: dict[str, Any], kind: str, reason: str, message: str) -> None:
    running.make("weld", runtime=running.runtime())
    eventually("a Deployment", lambda: running.deployment("weld"))
    for statuses in status.values():
        for item in statuses:
            item |= {"image": "worker:1", "imageID": "", "ready": False, "restartCount": 1}
    running.pod("weld-1", "weld", {"phase": "Pending", **status})
    eventually(reason, lambda: running.reason("weld", kind) == reason)
    assert message in running.condition("weld", kind)["message"]


def test_a_paused_one_leaves_the_size_to_others_and_explains_itself(
    running: Running, api_server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    running.make("weld", runtime=running.runtime(), autoscaling={"maxReplicas": 2, "mode": "Paused"})
    eventually("a reason", lambda: running.reason("weld", "ScalingActive") == "Paused")
    assert running.condition("weld", "FallbackActive")["reason"] == "NotNeeded"
    scale = f"/apis/apps/v1/namespaces/{running.namespace}/deployments/weld/scale"
    running.server.merge(scale, {"spec": {"replicas": 3}})
    eventually("the size", lambda: running.server.get(running.path("weld"))["status"]["desiredReplicas"] == 3)
    refused, _ = api_server.request("PATCH", f"{running.path('weld')}/scale", {"spec": {"replicas": 2}}, MERGE)
    assert refused == 422
    assert running.deployment("weld")["spec"]["replicas"] == 3

    asked = ["explain", "weld", "-n", running.namespace, "--kubeconfig", str(api_server.admin_kubeconfig)]
    assert main(asked) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{running.namespace}/weld, in the cluster\n")
    assert "Mode       Paused: 3 workers held, 2 would be wanted\n" in told
    assert "Written    nothing, the mode is Paused\n" in told
    assert main(["explain", "other", *asked[2:]]) == 2
    assert f"there is no YoloInference other in namespace {running.namespace}" in capsys.readouterr().err


def test_a_missing_secret_of_api_keys_is_named(running: Running) -> None:
    running.make("guarded", runtime=running.runtime(), apiKeysSecretName="clients")
    (volume,) = [
        volume
        for volume in eventually("a Deployment", lambda: running.deployment("guarded"))["spec"]["template"]["spec"]["volumes"]
        if volume["name"] == "api-keys"
    ]
    assert volume["secret"]["secretName"] == "clients"
    ended = {"exitCode": 2, "message": "ApiKeysMissing: there is no API keys file /etc/yolastic/api-keys/keys"}
    item = {
        "name": "worker",
        "image": "worker:1",
        "imageID": "",
        "ready": False,
        "restartCount": 1,
        "state": {"terminated": ended},
    }
    running.pod("guarded-1", "guarded", {"phase": "Running", "containerStatuses": [item]})
    eventually("SecretNotFound", lambda: running.reason("guarded") == "SecretNotFound")
    assert "Secret clients is not in this namespace" in running.condition("guarded", "Ready")["message"]
    assert running.condition("guarded", "ModelLoaded")["status"] == "Unknown"


def test_one_bad_object_does_not_hurt_another(running: Running) -> None:
    runtime = running.runtime()
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken"}, "spec": {"ports": [{"port": 80}]}}
    running.server.apply(f"/api/v1/namespaces/{running.namespace}/services/taken", service)
    running.make("taken", runtime=runtime)
    running.make("escapes", runtime=runtime, model={"uri": "pvc://claim/../../etc/passwd", "sha256": "0" * 64})
    running.make("good", runtime=runtime)
    eventually("a reason", lambda: running.reason("taken") == "NameTaken")
    eventually("a reason", lambda: running.reason("escapes") == "UriNotAllowed")
    eventually("a Deployment", lambda: running.deployment("good"))


def test_an_object_made_anew_takes_its_children_over(running: Running) -> None:
    runtime = running.runtime()
    running.make("weld", runtime=runtime)
    eventually("a Deployment", lambda: running.deployment("weld"))
    assert running.server.get(running.path("weld"))["metadata"]["finalizers"] == ["yolastic.dev/finalizer"]
    assert running.server.request("DELETE", running.path("weld"))[0] == 200
    started_s = time.monotonic()
    eventually("it is gone", lambda: running.server.get(running.path("weld")) is None)
    assert time.monotonic() - started_s < 3

    uid = running.make("weld", runtime=runtime)["metadata"]["uid"]
    eventually("its Deployment", lambda: owners(running.deployment("weld")) == [uid])


def test_a_policy_that_held_the_finalizer_holds_the_object_no_longer_than_itself(running: Running) -> None:
    running.make("weld", runtime=running.runtime())
    eventually("a Deployment", lambda: running.deployment("weld"))
    group, name = "admissionregistration.k8s.io", f"hold-{running.namespace}"
    here = {"matchLabels": {"kubernetes.io/metadata.name": running.namespace}}
    rule = {"apiGroups": ["yolastic.dev"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["yoloinferences"]}
    policy: dict[str, Any] = {"apiVersion": f"{group}/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name}}
    keeps = "has(object.metadata.finalizers) && size(object.metadata.finalizers) > 0"
    no_probe = "!has(object.metadata.annotations) || !('probe' in object.metadata.annotations)"
    policy["spec"] = {
        "matchConstraints": {"resourceRules": [rule], "namespaceSelector": here},
        "validations": [{"expression": expression, "message": HELD} for expression in (keeps, no_probe)],
    }
    binding = policy | {"kind": "ValidatingAdmissionPolicyBinding", "spec": {"policyName": name, "validationActions": ["Deny"]}}
    kinds = {"validatingadmissionpolicies": policy, "validatingadmissionpolicybindings": binding}
    try:
        for plural, body in kinds.items():
            running.server.apply(f"/apis/{group}/v1/{plural}/{name}", body)
        probe, path = {"metadata": {"annotations": {"probe": "x"}}}, f"{running.path('weld')}?dryRun=All"
        eventually("the policy holds", lambda: running.server.request("PATCH", path, probe, MERGE)[0] == 422)
        running.server.request("DELETE", running.path("weld"))
        time.sleep(2)  # that nothing goes cannot be awaited
        assert running.server.get(running.path("weld"))["metadata"]["finalizers"]
        conflict = [{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}]
        status, said = running.server.request("PATCH", running.path("weld"), conflict, "application/json-patch+json")
        assert (status, said["message"]) == (422, CONFLICT), "what kopf is right about"
    finally:
        for plural in kinds:
            running.server.request("DELETE", f"/apis/{group}/v1/{plural}/{name}")
    eventually("it is gone", lambda: running.server.get(running.path("weld")) is None)


def test_an_annotation_of_kopfs_own_means_nothing(running: Running) -> None:
    running.make("weld", runtime=running.runtime())
    eventually("a Deployment", lambda: running.deployment("weld"))
    notes = {"annotations": {"yolastic.dev/last-handled-configuration": "backup of march"}}
    running.server.merge(running.path("weld"), {"metadata": notes})
    uid = running.server.get(running.path("weld"))["metadata"]["uid"]
    assert running.server.request("DELETE", running.path("weld"))[0] == 200
    eventually("it is gone", lambda: running.server.get(running.path("weld")) is None)
    made = running.make("weld", runtime=running.runtime())
    running.server.merge(running.path("weld"), {"metadata": notes})
    eventually("its Deployment", lambda: owners(running.deployment("weld")) == [made["metadata"]["uid"]] != [uid])


def owners(body: Any) -> list[str]:
    return [owner["uid"] for owner in body["metadata"]["ownerReferences"]]


def test_at_rest_it_writes_and_asks_nothing(running: Running) -> None:
    running.make("weld", runtime=running.runtime())
    eventually("a Deployment", lambda: running.deployment("weld"))
    running.pod("weld-1", "weld", {"phase": "Pending"})
    eventually("its pod is seen", lambda: running.server.get(running.path("weld")).get("status", {}).get("replicas") == 1)

    def turns_and_requests() -> tuple[float, float]:
        lines = [line.rsplit(" ", 1) for line in get(running.metrics_url).splitlines() if not line.startswith("#")]
        turns = sum(float(value) for name, value in lines if "turn_seconds_count" in name)
        return turns, sum(float(value) for name, value in lines if "api_requests_total" in name)

    def after(turns: int) -> tuple[float, float]:
        start = turns_and_requests()[0]
        eventually("some turns", lambda: turns_and_requests()[0] >= start + turns)
        return turns_and_requests()

    before = after(turns=3)
    version = running.server.get(running.path("weld"))["metadata"]["resourceVersion"]
    assert after(turns=4)[1] == before[1]
    assert running.server.get(running.path("weld"))["metadata"]["resourceVersion"] == version


def test_health_is_told(running: Running) -> None:
    assert '"ok"' in get(running.health_url)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}, "minReplicas"),
        ({"replicas": 1, "autoscaling": {"maxReplicas": 2}}, "replicas and autoscaling exclude each other"),
        ({"autoscaling": {"maxReplicas": 2, "targetLoadPercent": 60}}, "scaleDownLoadPercent"),
        ({"autoscaling": {"maxReplicas": 2, "mode": "Off"}}, "mode"),
        (
            {"autoscaling": {"maxReplicas": 2, "behavior": {"scaleDown": {"policies": [], "selectPolicy": "Disabled"}}}},
            "spec.autoscaling.behavior.scaleDown.policies in body should have at least 1 items",
        ),
        ({"autoscaling": {"maxReplicas": 2, "fallback": {"policy": "Static"}}}, "the policies Static and AtLeast need replicas"),
        ({"autoscaling": {"maxReplicas": 2, "fallback": {"replicas": 3}}}, "fallback.replicas must not exceed maxReplicas"),
        ({"model": SPEC["model"] | {"uri": "file:///m.onnx"}}, "file://"),
        ({"model": SPEC["model"] | {"uri": "s3://bucket/m.onnx"}}, "uri"),
        ({"model": SPEC["model"] | {"sha256": "beef"}}, "sha256"),
        ({"batching": {"maxSize": 0}}, "maxSize"),
    ],
)
def test_what_the_server_refuses_itself(api_server: Any, namespace: str, spec: dict[str, Any], message: str) -> None:
    body = {"apiVersion": "yolastic.dev/v1alpha1", "kind": "YoloInference", "metadata": {"name": "weld"}, "spec": SPEC | spec}
    status, answer = api_server.request("POST", f"{API}/namespaces/{namespace}/yoloinferences", body)
    assert status == 422
    assert message in answer["message"]


@pytest.mark.parametrize(
    ("host", "accepted"),
    [
        ("images.example.org", True), ("*.images.example.org:8443", True), ("images.example.org:65535", True),
        ("images.example.org:65536", False), ("*.org", False), ("localhost", False), ("10.0.0.1", False), ("[::1]", False),
        ("https://images.example.org", False), ("images.example.org/a", False), ("Images.example.org", False),
    ],
)  # fmt: skip
def test_which_hosts_of_images_the_server_takes(api_server: Any, namespace: str, host: str, accepted: bool) -> None:
    body = {"apiVersion": "yolastic.dev/v1alpha1", "kind": "YoloRuntime", "metadata": {"name": namespace}}
    spec = {"image": "worker:1", "urlHosts": [host]}
    status, answer = api_server.request("POST", f"{API}/yoloruntimes?dryRun=All", body | {"spec": spec})
    assert status == (201 if accepted else 422), answer
    assert accepted or "urlHosts" in answer["message"]


def test_who_scales_an_autoscaled_object_is_told_why_not(running: Running) -> None:
    runtime = running.runtime()
    running.make("elastic", runtime=runtime, autoscaling={"maxReplicas": 4})
    running.make("fixed", runtime=runtime, replicas=1)
    scale = {"spec": {"replicas": 3}}
    merge = "application/merge-patch+json"
    status, answer = running.server.request("PATCH", f"{running.path('elastic')}/scale", scale, merge)
    assert status == 422
    assert "autoscaling.minReplicas" in answer["message"]
    running.server.merge(f"{running.path('fixed')}/scale", scale)
    eventually("three replicas", lambda: (running.deployment("fixed") or {"spec": {}})["spec"].get("replicas") == 3)


def test_without_a_server_it_says_so_in_a_sentence(tmp_path: Path, api_server: Any) -> None:
    config = tmp_path / "config"
    config.write_text(api_server.operator_kubeconfig.read_text().replace(api_server.url, "https://127.0.0.1:1"))
    log = tmp_path / "log"
    process = start(config, log, HEALTH_PORT=str(free_port()), METRICS_PORT="0")
    assert process.wait(30) == 2
    told = log.read_text()
    assert "the API server does not answer" in told
    assert "Traceback" not in told
