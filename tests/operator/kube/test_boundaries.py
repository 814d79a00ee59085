"""What an inference can reach: objects of its own namespace alone; and who can reach which port of its workers."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from yolastic_contract import names
from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.act import manifests, workload
from yolastic_operator.act.control_token import ControlTokens
from yolastic_operator.act.manifests import Surroundings
from yolastic_operator.model import Ref, Workload

ROOT = Path(__file__).resolve().parents[3]
SHA256 = "0" * 64
NAME = "[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?"
OPERATORS, MONITORING = "operators", {"kubernetes.io/metadata.name": "monitoring"}


def leaves(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(path, schema) of all that a spec can say, objects and lists included."""
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from leaves(part, f"{path}.{name}")
    if isinstance(schema.get("items"), dict):
        yield from leaves(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from leaves(schema["additionalProperties"], f"{path}{{}}")


def inference_schema() -> Mapping[str, Any]:
    definition = yaml.safe_load((ROOT / "crds/yoloinferences.yaml").read_text("utf-8"))
    (version,) = definition["spec"]["versions"]
    schema: Mapping[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def test_the_schema_has_no_place_for_a_namespace_or_a_pod() -> None:
    for path, part in leaves(inference_schema()):
        last = path.rpartition(".")[2].lower()
        for word in ("namespace", "serviceaccount", "image", "command", "env", "volume", "hostpath", "annotation", "label"):
            assert word not in last, path
        assert not part.get("x-kubernetes-preserve-unknown-fields"), path
        assert not part.get("x-kubernetes-embedded-resource"), path


def test_every_name_in_the_schema_is_plain() -> None:
    """A text without a choice of values is a DNS name, a quantity, a digest or the model's URI: nothing else can name a thing."""
    texts = {path: part for path, part in leaves(inference_schema()) if part.get("type") == "string" and "enum" not in part}
    named = {path for path in texts if path.endswith("Name") or path == ".runtime"}
    assert named == {".model.credentialsSecretName", ".apiKeysSecretName", ".runtime"}
    for path in named:
        assert set(texts[path]["pattern"]) <= set("^$()[]?*-.+{},\\a-z0-9"), "no pattern with a slash or a colon"
    assert all("pattern" in part or "maxLength" in part for part in texts.values())


def workloads() -> st.SearchStrategy[Workload]:
    name = st.from_regex(NAME, fullmatch=True)
    uris = st.one_of(
        st.builds("pvc://{}/{}".format, name, st.sampled_from(["m.onnx", "a/b.onnx", "other:x", "..a/%2e%2e/b"])),
        st.sampled_from(["https://models.example/m.onnx", "http://store.other.svc/m.onnx"]),
    )
    models = st.fixed_dictionaries({"uri": uris, "sha256": st.just(SHA256)}, optional={"credentialsSecretName": name})
    specs = st.fixed_dictionaries({"model": models}, optional={"apiKeysSecretName": name})
    return st.builds(
        lambda spec, where: workload.build(
            Ref(where, "weld", "uid"), InferenceSpec.model_validate(spec), "cpu", RuntimeSpec(image="worker:1")
        ),
        specs,
        name,
    )


def texts_of(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from texts_of(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item, f"{path}[]")
    else:
        yield path, value


@given(workloads())
def test_whatever_a_spec_says_the_children_stay_in_its_namespace(work: Workload) -> None:
    children = [manifests.control_secret(work, ControlTokens(("t",))), *manifests.render(work, Surroundings())]
    for child in children:
        assert child["metadata"]["namespace"] == work.ref.namespace
        for path, value in texts_of(child.get("spec", {})):
            assert path.rpartition(".")[2] not in {"namespace", "namespaces", "serviceAccountName"}, path
            if path.endswith((".secretName", ".claimName", ".secretKeyRef.name")):
                assert isinstance(value, str)
                assert not set("/:") & set(value), "a reference in a pod is of the pod's namespace, and this is a plain name"
    pod = children[-1]["spec"]["template"]["spec"]
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= {
        "emptyDir",
        "secret",
        "persistentVolumeClaim",
    }
    told = work.spec.model.credentials_secret_name, work.spec.api_keys_secret_name, "weld-control"
    assert {value for path, value in texts_of(pod) if path.endswith((".secretName", ".secretKeyRef.name"))} <= {*told}


def lets_in(policy: Mapping[str, Any], *, namespace: Mapping[str, str], pod: Mapping[str, str], port: int) -> bool:
    """Whether a pod with these labels, in a namespace with those, may reach the port: as NetworkPolicies are read."""
    spec = policy["spec"]
    assert "Ingress" in spec["policyTypes"], "else it would restrict nothing"

    def chosen(selector: Mapping[str, Any] | None, labels: Mapping[str, str], absent: bool) -> bool:
        if selector is None:
            return absent
        assert set(selector) <= {"matchLabels"}
        return selector.get("matchLabels", {}).items() <= labels.items()

    def source(peer: Mapping[str, Any]) -> bool:
        assert set(peer) <= {"namespaceSelector", "podSelector"}
        assert "namespaceSelector" in peer, "a pod selector alone would mean the worker's own namespace"
        return chosen(peer["namespaceSelector"], namespace, False) and chosen(peer.get("podSelector"), pod, True)

    return any(
        any(item["port"] == port and item["protocol"] == "TCP" for item in rule["ports"])
        and ("from" not in rule or any(source(peer) for peer in rule["from"]))
        for rule in spec["ingress"]
    )


OPERATOR_POD = {"app.kubernetes.io/name": "yolastic-operator"}
WORKER_POD = names.worker_labels("weld")


@pytest.mark.parametrize("scraped", [False, True])
@pytest.mark.parametrize(
    ("namespace", "pod", "who"),
    [
        (OPERATORS, OPERATOR_POD, "operator"),
        (OPERATORS, {"app.kubernetes.io/name": "something"}, "nobody"),
        (OPERATORS, {}, "nobody"),
        ("plant", OPERATOR_POD, "nobody"),
        ("plant", WORKER_POD, "nobody"),
        ("plant", {}, "nobody"),
        ("default", {}, "nobody"),
        ("kube-system", {}, "nobody"),
        ("monitoring", {"app.kubernetes.io/name": "prometheus"}, "prometheus"),
        ("monitoring", OPERATOR_POD, "prometheus"),
    ],
)
def test_who_reaches_which_port(scraped: bool, namespace: str, pod: Mapping[str, str], who: str) -> None:
    spec = InferenceSpec.model_validate({"model": {"uri": "pvc://models/m.onnx", "sha256": SHA256}})
    work = workload.build(Ref("plant", "weld", "uid"), spec, "cpu", RuntimeSpec(image="worker:1"))
    policy = manifests.network_policy(work, Surroundings(5, OPERATORS, MONITORING if scraped else {}))
    assert policy["spec"]["podSelector"] == {"matchLabels": WORKER_POD}
    labels = {"kubernetes.io/metadata.name": namespace}
    reached = {port for port in (22, 8000, 9000, 9001, 9002) if lets_in(policy, namespace=labels, pod=pod, port=port)}
    assert reached == {8000} | ({9000} if who == "operator" else set()) | ({9001} if who == "prometheus" and scraped else set())


def test_an_operator_that_is_scraped_from_its_own_namespace() -> None:
    spec = InferenceSpec.model_validate({"model": {"uri": "pvc://models/m.onnx", "sha256": SHA256}})
    work = workload.build(Ref("plant", "weld", "uid"), spec, "cpu", RuntimeSpec(image="worker:1"))
    own = {"kubernetes.io/metadata.name": OPERATORS}
    policy = manifests.network_policy(work, Surroundings(5, OPERATORS, own))
    reached = [
        {port for port in (8000, 9000, 9001) if lets_in(policy, namespace=own, pod=pod, port=port)} for pod in (OPERATOR_POD, {})
    ]
    assert reached == [{8000, 9000, 9001}, {8000, 9001}], "the neighbours of the operator are no operator"


def test_the_ports_of_the_policy_are_those_of_the_pod() -> None:
    spec = InferenceSpec.model_validate({"model": {"uri": "pvc://models/m.onnx", "sha256": SHA256}})
    work = workload.build(Ref("plant", "weld", "uid"), spec, "cpu", RuntimeSpec(image="worker:1"))
    template = manifests.deployment(work, Surroundings())["spec"]["template"]
    (container,) = template["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8000, "control": 9000, "metrics": 9001}
    told = container["args"][container["args"].index("--metrics-port") + 1]
    assert {told, template["metadata"]["annotations"]["prometheus.io/port"]} == {"9001"}
    assert {container[kind]["httpGet"]["port"] for kind in ("startupProbe", "readinessProbe", "livenessProbe")} == {"control"}
    opened = [
        item["port"]
        for rule in manifests.network_policy(work, Surroundings(5, OPERATORS, MONITORING))["spec"]["ingress"]
        for item in rule["ports"]
    ]
    assert sorted(opened) == sorted(ports.values())


def test_the_labels_that_open_the_port_are_those_of_the_pods() -> None:
    """A label that only the policy knows would shut the operator out; one that workers share would let them in."""
    spec = InferenceSpec.model_validate({"model": {"uri": "pvc://models/m.onnx", "sha256": SHA256}})
    work = workload.build(Ref("plant", "weld", "uid"), spec, "cpu", RuntimeSpec(image="worker:1"))
    labels = manifests.deployment(work, Surroundings())["spec"]["template"]["metadata"]["labels"]
    policy = manifests.network_policy(work, Surroundings(5, OPERATORS))
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert not OPERATOR_POD.items() <= labels.items()
