"""What an API server itself says of what is rendered: Pod Security, and names that would lead out of a namespace."""

import importlib.util
import json
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from yolastic_contract import names
from yolastic_contract.base import Resource
from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.act import manifests, workload
from yolastic_operator.act.manifests import Surroundings
from yolastic_operator.model import Ref

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[3]
ENFORCE = "pod-security.kubernetes.io/enforce"
MODELS: dict[str, dict[str, Any]] = {
    "http": {"uri": "https://models.example/m.onnx", "sha256": "0" * 64},
    "http with credentials": {"uri": "https://models.example/m.onnx", "sha256": "0" * 64, "credentialsSecretName": "store"},
    "claim": {"uri": "pvc://models/m.onnx", "sha256": "0" * 64},
}
ADMINS: dict[str, Any] = {
    "image": "worker:1",
    "backend": "Simulated",
    "simulate": "fixed_ms=1",
    "acceleratorResource": "nvidia.com/gpu",
    "shared": True,
    "nodeSelector": {"pool": "gpu"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "runtimeClassName": "nvidia",
    "priorityClassName": "serving",
}
"""All that an admin may say of pods."""


def _load(path: Path) -> ModuleType:
    """A module of another test folder; test folders are no packages."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def chart(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the chart renders with its defaults."""
    helm = _load(ROOT / "tests/chart/helm.py")
    if helm.find() is None:
        pytest.skip("no helm: neither on PATH nor built by tests/cluster/node/build.sh")
    known = ("--api-versions", f"{names.API_VERSION}/{names.RUNTIME_KIND}")
    documents: list[dict[str, Any]] = helm.render(tmp_path_factory.mktemp("helm"), ROOT / "charts/yolastic", "demo", *known)
    return documents


@pytest.fixture
def restricted(api_server: Any, namespace: str) -> str:
    """A namespace that admits only restricted pods, with the classes that pods may name."""
    api_server.merge(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": {ENFORCE: "restricted"}}})
    group = "node.k8s.io"
    klass = {"apiVersion": f"{group}/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"}
    api_server.apply(f"/apis/{group}/v1/runtimeclasses/nvidia", klass)
    group = "scheduling.k8s.io"
    klass = {"apiVersion": f"{group}/v1", "kind": "PriorityClass", "metadata": {"name": "serving"}, "value": 1000}
    api_server.apply(f"/apis/{group}/v1/priorityclasses/serving", klass)
    return namespace


def admitted(api_server: Any, namespace: str, template: dict[str, Any]) -> tuple[int, str]:
    """Status and words of the API server for a pod of the template; nothing is made."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], "name": "probe"}, "spec": template["spec"]}
    status, answer = api_server.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)
    return status, "" if status == 201 else str(answer["message"])


def worker_template(namespace: str, model: dict[str, Any], runtime: RuntimeSpec) -> dict[str, Any]:
    spec = InferenceSpec.model_validate({"model": model, "apiKeysSecretName": "clients", "memory": {"limit": "8Gi"}})
    work = workload.build(Ref(namespace, "weld", "uid"), spec, "any", runtime)
    template: dict[str, Any] = manifests.deployment(work, Surroundings())["spec"]["template"]
    return template


@pytest.mark.parametrize("model", MODELS)
def test_the_server_admits_workers_of_every_runtime_as_restricted(
    api_server: Any, restricted: str, chart: list[dict[str, Any]], model: str
) -> None:
    runtimes = {item["metadata"]["name"]: item["spec"] for item in chart if item["kind"] == names.RUNTIME_KIND}
    assert {"cpu", "cuda"} <= runtimes.keys()
    for name, spec in {**runtimes, "all an admin may say": ADMINS}.items():
        template = worker_template(restricted, MODELS[model], RuntimeSpec.model_validate(spec))
        assert bool(template["spec"].get("initContainers")) == (model != "claim")
        assert admitted(api_server, restricted, template) == (201, ""), name


def test_the_server_admits_the_operator_as_restricted(api_server: Any, restricted: str, chart: list[dict[str, Any]]) -> None:
    templates = [item["spec"]["template"] for item in chart if "template" in item.get("spec", {})]
    assert len(templates) == 1
    for template in templates:
        assert admitted(api_server, restricted, template) == (201, "")


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("hostNetwork",), True),
        (("securityContext",), {}),
        (("initContainers", 0, "securityContext"), {}),
        (("containers", 0, "securityContext", "capabilities"), {"add": ["SYS_ADMIN"]}),
        (("containers", 0, "ports", 0, "hostPort"), 8000),
        (("volumes", 0), {"name": "model", "hostPath": {"path": "/models"}}),
    ],
    ids=str,
)
def test_the_server_really_looks(api_server: Any, restricted: str, where: tuple[Any, ...], value: object) -> None:
    template = deepcopy(worker_template(restricted, MODELS["http"], RuntimeSpec(image="worker:1")))
    at = template["spec"]
    for step in where[:-1]:
        at = at[step]
    at[where[-1]] = value
    status, said = admitted(api_server, restricted, template)
    assert status == 403
    assert 'violates PodSecurity "restricted:latest"' in said


@pytest.mark.parametrize(
    "spec",
    [
        {"model": {**MODELS["http"], "credentialsSecretName": "other/store"}},
        {"model": {**MODELS["http"], "credentialsSecretName": "../other/secrets/store"}},
        {"model": {**MODELS["http"], "credentialsSecretName": {"name": "store", "namespace": "other"}}},
        {"model": {**MODELS["http"], "credentialsSecretNamespace": "other"}},
        {"model": {**MODELS["http"], "credentialsSecretName": "weld-control"}},
        {"model": {**MODELS["http"], "namespace": "other"}},
        {"model": {"uri": "pvc://other:models/m.onnx", "sha256": "0" * 64}},
        {"model": {"uri": "secret://other/store/token", "sha256": "0" * 64}},
        {"model": MODELS["http"], "apiKeysSecretName": "other/clients"},
        {"model": MODELS["http"], "apiKeysSecretName": "other:clients"},
        {"model": MODELS["http"], "namespace": "other"},
        {"model": MODELS["http"], "serviceAccountName": "default"},
        {"model": MODELS["http"], "runtime": "other/cpu"},
    ],
    ids=json.dumps,
)
def test_the_server_takes_no_name_that_leads_out_of_the_namespace(api_server: Any, namespace: str, spec: dict[str, Any]) -> None:
    path = f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.INFERENCE_PLURAL}?dryRun=All&fieldValidation=Strict"
    body = {"apiVersion": names.API_VERSION, "kind": names.INFERENCE_KIND, "metadata": {"name": "weld"}}
    status, answer = api_server.request("POST", path, body | {"spec": spec})
    assert status in {400, 422}, answer
    assert api_server.request("POST", path, body | {"spec": {"model": MODELS["http"]}})[0] == 201, "the rest of it is right"


@pytest.mark.parametrize(
    "spec",
    [
        {"memory": {"limit": -5}},
        {"autoscaling": {"maxReplicas": 2, "behavior": {"scaleUp": {"tolerance": -1}}}},
        {"model": {**MODELS["http"], "uri": "https://models/a\u00a0b.onnx"}},
        {"model": {**MODELS["http"], "uri": "https://models/a\u3000b.onnx"}},
        {"model": {**MODELS["http"], "uri": "https://mod\u2028els/m.onnx"}},
        {"model": {**MODELS["http"], "uri": "https://models/a\vb.onnx"}},
        {"model": {**MODELS["http"], "credentialsSecretName": "a..b"}},
        {"runtime": "a.-b"},
    ],
    ids=json.dumps,
)
def test_what_the_operator_refuses_the_server_does_not_take(api_server: Any, namespace: str, spec: dict[str, Any]) -> None:
    """Else the person who wrote it reads that the resource definitions are of another version."""
    path = f"namespaces/{namespace}/{names.INFERENCE_PLURAL}"
    refused_by_both(api_server, path, names.INFERENCE_KIND, InferenceSpec, {"model": MODELS["http"]}, spec)


def refused_by_both(
    api_server: Any, path: str, kind: str, model: type[Resource], rest: dict[str, Any], spec: dict[str, Any]
) -> None:
    """The rest of it is taken, and with the spec it is not: by the operator's model, nor by the server."""

    def answered(full: dict[str, Any]) -> int:
        body = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": "weld"}, "spec": full}
        status: int = api_server.request("POST", f"/apis/{names.API_VERSION}/{path}?dryRun=All", body)[0]
        return status

    with pytest.raises(ValidationError):
        model.model_validate(rest | spec)
    assert (answered(rest | spec), answered(rest)) == (422, 201)


@pytest.mark.parametrize(
    "spec",
    [
        {"acceleratorMemory": -1},
        {"resources": {"requests": {"cpu": -1}}},
        {"resources": {"limits": {"cpu": "1e999999999"}}},
        {"acceleratorResource": ""},
        {"acceleratorResource": "bad resource!"},
        {"acceleratorResource": "gpu"},
    ],
    ids=json.dumps,
)
def test_nor_a_runtime(api_server: Any, spec: dict[str, Any]) -> None:
    rest = {"image": "worker", "acceleratorResource": "nvidia.com/gpu"}
    refused_by_both(api_server, names.RUNTIME_PLURAL, names.RUNTIME_KIND, RuntimeSpec, rest, spec)
