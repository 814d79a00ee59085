"""The chart, as helm renders it."""

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from yolastic_contract import names
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator import rbac, settings

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/yolastic"
KNOWN = ("--api-versions", "yolastic.dev/v1alpha1/YoloRuntime")
EVERYTHING = (
    *("--set", "imagePullSecrets={registry}", "--set", "operator.priorityClassName=system-cluster-critical"),
    *("--set", "operator.nodeSelector.pool=system", "--set", "operator.tolerations[0].operator=Exists"),
    *("--set", "prometheus.url=http://prometheus.monitoring:9090", "--set", "watchNamespaces={plant-1,plant-2}"),
    *("--set", r"prometheus.namespaceLabels.kubernetes\.io/metadata\.name=monitoring", "--set", "operator.logFormat=json"),
)

NO_LABELS = (
    *({key: "x"} for key in ("", "a b", "a,b", "a=b", "-a", "a-", "/a", "a/", "a/b/c", "A.example/b", "a..b/c", "a" * 64)),
    *({key: "x"} for key in (f"example.com/{'a' * 64}", f"{'a' * 254}/b")),
    *({"team": value} for value in ("a b", "a,b", "a=b", "a/b", " ", "-a", "a.", "a" * 64)),
)
LABELS = {
    "team": "", "Team_1": "a_B-1.c", "a" * 63: "a" * 63, "kubernetes.io/metadata.name": "monitoring", f"{'a' * 253}/b": "1"
}  # fmt: skip

Document = dict[str, Any]
Render = Callable[..., list[Document]]
RunHelm = Callable[..., subprocess.CompletedProcess[str]]


def load(neighbour: str) -> ModuleType:
    """A module beside this one; test folders are no packages."""
    spec = importlib.util.spec_from_file_location(neighbour, Path(__file__).with_name(f"{neighbour}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


helm, pod_security = load("helm"), load("pod_security")
if helm.find() is None:
    pytest.skip("no helm: neither on PATH nor built by tests/cluster/node/build.sh", allow_module_level=True)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("helm")


@pytest.fixture(scope="session")
def run_helm(home: Path) -> RunHelm:
    return lambda *arguments: helm.run(home, *arguments)


@pytest.fixture(scope="session")
def render(home: Path) -> Render:
    return lambda *arguments, chart=CHART, release="demo": helm.render(home, chart, release, *arguments)


def of_kind(documents: list[Document], kind: str) -> list[Document]:
    return [document for document in documents if document["kind"] == kind]


def the_only(documents: list[Document], kind: str) -> Document:
    (document,) = of_kind(documents, kind)
    return document


def pods(documents: list[Document]) -> list[Document]:
    return [document["spec"]["template"]["spec"] for document in documents if "template" in document.get("spec", {})]


def understood(documents: list[Document]) -> settings.Settings:
    """What the operator reads from the environment of its container."""
    ((container,),) = (pod["containers"] for pod in pods(documents))
    environment = {item["name"]: item.get("value", "from-the-pod") for item in container["env"]}
    return settings.load(environment, namespace_file=Path("/nonexistent"))


def test_lint_finds_nothing(run_helm: RunHelm) -> None:
    done = run_helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout
    assert not re.search(r"\[(WARNING|ERROR)\]", done.stdout)


@pytest.mark.parametrize("arguments", [(), KNOWN, EVERYTHING], ids=["defaults", "upgrade", "everything"])
def test_every_pod_meets_the_restricted_profile(render: Render, arguments: tuple[str, ...]) -> None:
    found = pods(render(*arguments))
    assert len(found) == 1
    for pod in found:
        assert pod_security.violations(pod) == []
        for container in pod_security.containers(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert "memory" in container["resources"]["limits"]
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])


@pytest.mark.parametrize(
    ("change", "violation"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}, "hostPath"),
        ({"securityContext": {}}, "may run as root"),
        ({"securityContext": {"runAsNonRoot": True, "runAsUser": 0}}, "runs as root"),
    ],
)
def test_the_profile_is_really_evaluated(render: Render, change: Document, violation: str) -> None:
    (pod,) = pods(render())
    assert any(violation in fault for fault in pod_security.violations(pod | change))


def test_one_operator_never_two(render: Render) -> None:
    deployment = the_only(render(), "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    # The NetworkPolicy of the workers lets in the pods with this name.
    assert labels[names.LABEL_NAME] == names.OPERATOR_NAME


@pytest.mark.parametrize("arguments", [(), EVERYTHING], ids=["defaults", "everything"])
def test_the_operator_understands_its_environment(render: Render, arguments: tuple[str, ...]) -> None:
    documents = render(*arguments)
    (pod,) = pods(documents)
    (container,) = pod["containers"]
    told = understood(documents)
    assert told.own_namespace == told.instance == "from-the-pod"
    assert {item["name"] for item in container["env"] if "valueFrom" in item} == {
        "YOLASTIC_OPERATOR_OWN_NAMESPACE",
        "YOLASTIC_OPERATOR_INSTANCE",
    }
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"metrics": told.metrics_port, "health": told.health_port}
    if arguments:
        assert told.prometheus_url == "http://prometheus.monitoring:9090"
        assert told.namespaces == ("plant-1", "plant-2")
        assert told.monitoring_namespace_labels == {"kubernetes.io/metadata.name": "monitoring"}
        assert told.log_format == "json"
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
    else:
        lease = the_only(documents, "Deployment")["metadata"]["name"]
        assert told == settings.Settings(own_namespace="from-the-pod", instance="from-the-pod", lease_name=lease)


@pytest.mark.parametrize("url", ["http://p", "https://example.com/prom/", "http://user@p:9090/a/b", "http://[fd00::1]:9090"])
def test_the_operator_takes_the_urls_that_the_schema_takes(render: Render, url: str) -> None:
    assert understood(render("--set", f"prometheus.url={url}")).prometheus_url == url.rstrip("/")


def test_the_operator_takes_the_labels_that_the_schema_takes(render: Render) -> None:
    documents = render("--set-json", f"prometheus.namespaceLabels={json.dumps(LABELS)}")
    assert understood(documents).monitoring_namespace_labels == LABELS


def test_rights_in_all_namespaces_are_those_the_operator_lists(render: Render) -> None:
    documents = render()
    role, binding = the_only(documents, "ClusterRole"), the_only(documents, "ClusterRoleBinding")
    assert role["rules"] == rbac.CLUSTER_RULES + rbac.NAMESPACED_RULES
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    account = the_only(documents, "ServiceAccount")["metadata"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}]
    assert pods(documents)[0]["serviceAccountName"] == account["name"]
    lease, grant = the_only(documents, "Role"), the_only(documents, "RoleBinding")
    assert lease["rules"] == rbac.LEASE_RULES
    assert lease["metadata"]["namespace"] == grant["metadata"]["namespace"] == account["namespace"]
    assert (grant["roleRef"]["name"], grant["subjects"]) == (lease["metadata"]["name"], binding["subjects"])


def test_rights_in_some_namespaces_stay_there(render: Render) -> None:
    documents = render("--set", "watchNamespaces={plant-1,plant-2}")
    assert the_only(documents, "ClusterRole")["rules"] == rbac.CLUSTER_RULES
    for kind in ("Role", "RoleBinding"):
        assert [document["metadata"]["namespace"] for document in of_kind(documents, kind)][1:] == ["plant-1", "plant-2"]
    own, *served = of_kind(documents, "Role")
    assert own["rules"] == rbac.LEASE_RULES
    for role in served:
        assert role["rules"] == rbac.NAMESPACED_RULES


def test_nothing_is_granted_wholesale(render: Render) -> None:
    for role in of_kind(render(), "ClusterRole"):
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert not {"delete", "deletecollection", "escalate", "bind", "impersonate"} & set(rule["verbs"])


def test_crds_are_those_of_the_repository(render: Render) -> None:
    rendered = {document["metadata"]["name"]: document for document in of_kind(render(), "CustomResourceDefinition")}
    committed = [yaml.safe_load(path.read_text("utf-8")) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    assert len(rendered) == len(committed) == 2
    for definition in committed:
        assert rendered[definition["metadata"]["name"]]["spec"] == definition["spec"]


@pytest.mark.parametrize(("keep", "annotations"), [("true", {"helm.sh/resource-policy": "keep"}), ("false", None)])
def test_crds_stay_unless_told_otherwise(render: Render, keep: str, annotations: Document | None) -> None:
    for definition in of_kind(render("--set", f"crds.keep={keep}"), "CustomResourceDefinition"):
        assert definition["metadata"].get("annotations") == annotations


def test_crds_can_be_somebody_elses(render: Render) -> None:
    assert of_kind(render("--set", "crds.install=false"), "CustomResourceDefinition") == []


def runtimes(documents: list[Document]) -> list[tuple[str, str]]:
    """(name, hook) of each YoloRuntime."""
    return [
        (document["metadata"]["name"], document["metadata"].get("annotations", {}).get("helm.sh/hook", ""))
        for document in of_kind(documents, names.RUNTIME_KIND)
    ]


def test_runtimes_are_valid_and_run_the_image_for_their_device(render: Render) -> None:
    found = {
        document["metadata"]["name"]: RuntimeSpec.model_validate(document["spec"])
        for document in of_kind(render(*KNOWN), names.RUNTIME_KIND)
    }
    assert {name: (spec.device, spec.image, spec.accelerator_resource) for name, spec in found.items()} == {
        "cpu": ("cpu", "yolastic-worker:0.1.0-cpu", None),
        "cuda": ("cuda", "yolastic-worker:0.1.0-cuda", "nvidia.com/gpu"),
    }


def test_runtimes_come_after_their_crd_at_first_and_are_ordinary_later(render: Render) -> None:
    """A kind that the cluster does not know yet cannot be part of a release's manifest, only of its hooks."""
    made, removed = "post-install,post-rollback", "post-delete"
    assert sorted(runtimes(render())) == sorted([("cpu", made), ("cpu", removed), ("cuda", made), ("cuda", removed)])
    # Without the kind nothing can be removed any more, and need not be.
    assert runtimes(render("--set", "crds.keep=false")) == [("cpu", made), ("cuda", made)]
    assert runtimes(render(*KNOWN)) == [("cpu", ""), ("cuda", "")]


def test_runtimes_by_value(render: Render) -> None:
    image = "registry.example.com/worker@sha256:" + "0" * 64
    documents = render(
        *KNOWN,
        *("--set", "runtimes.cuda.enabled=false", "--set", "worker.image.repository=example.com/worker"),
        *("--set-string", "worker.image.tag=2"),
        *("--set", f"runtimes.t4.enabled=true,runtimes.t4.spec.device=cuda,runtimes.t4.spec.image={image}"),
        *("--set", "runtimes.t4.spec.acceleratorResource=nvidia.com/gpu,worker.image.pullPolicy=Always"),
    )
    specs = {document["metadata"]["name"]: document["spec"] for document in of_kind(documents, names.RUNTIME_KIND)}
    assert {name: spec["image"] for name, spec in specs.items()} == {"cpu": "example.com/worker:2-cpu", "t4": image}
    assert {spec["imagePullPolicy"] for spec in specs.values()} == {"Always"}


@pytest.mark.parametrize(
    "release",
    ["y", "1", "2024", "9" * 53, "null", "my.release", "a" * 35 + ".b", "7.yolastic", "yolastic", "my-yolastic", "a" * 53],
)
def test_any_release_name_will_do(render: Render, release: str) -> None:
    documents = render(release=release)
    for document in documents:
        metadata = document["metadata"]
        if "namespace" in metadata:  # what is cluster-wide may have 253
            assert len(metadata["name"]) <= 63
        assert metadata["labels"]["app.kubernetes.io/instance"] == release
        assert all(isinstance(value, str) and len(value) <= 63 for value in metadata["labels"].values())
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", the_only(documents, "Service")["metadata"]["name"])
    assert understood(documents).lease_name == the_only(documents, "Deployment")["metadata"]["name"]


@pytest.mark.parametrize(
    ("release", "name"),
    [("demo", "demo-yolastic-operator"), ("yolastic", "yolastic-operator"), ("a" * 36 + "b", "a" * 36 + "-yolastic-operator")],
)
def test_names_of_releases_stay_what_they_were(render: Render, release: str, name: str) -> None:
    """An upgrade would make the operator a second time under another name."""
    documents = render(release=release)
    assert the_only(documents, "Deployment")["metadata"]["name"] == name
    assert the_only(documents, "ServiceAccount")["metadata"]["name"] == name
    assert the_only(documents, "ClusterRole")["metadata"]["name"] == f"yolastic-system:{name}"
    assert the_only(documents, "Service")["metadata"]["name"] == f"{name}-metrics"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--set", "replicas=2"),
        ("--set", "operator.replicas=2"),
        ("--set", "image.repository=x"),
        ("--set", "operator.image.repo=x"),
        ("--set", "crds.create=true"),
        ("--set", "crds.keep=maybe"),
        ("--set", "operator.image.pullPolicy=Sometimes"),
        ("--set", "operator.logFormat=xml"),
        ("--set", "operator.propagationDelaySeconds=-1"),
        ("--set", "prometheus.url=prometheus:9090"),
        ("--set", "prometheus.url=ftp://prometheus"),
        ("--set", "prometheus.url=http://prometheus:9090/?tenant=a"),
        ("--set", "prometheus.url=http://prometheus?tenant=a"),
        ("--set", "prometheus.url=http://prometheus:9090#x"),
        ("--set", "prometheus.url=http://prometheus/path#x"),
        ("--set", "prometheus.url=http://prometheus/a b"),
        *(("--set-json", f"prometheus.namespaceLabels={json.dumps(labels)}") for labels in NO_LABELS),
        ("--set-json", 'operator.nodeSelector={"pool":"a/b"}'),
        ("--set", "watchNamespaces={Plant}"),
        ("--set", "runtimes.cpu.image=x"),
        ("--set", "runtimes.cpu.spec.devise=cuda"),
        ("--set", "runtimes.cpu.spec.device=gpu"),
        ("--set", "runtimes.cpu.spec.resources.limits.memory=lots"),
        ("--set-json", 'runtimes.cuda.spec.tolerations=[{"key":"a","effect":"Never"}]'),
        ("--set-json", 'runtimes={"Not A Name":{"enabled":true,"spec":{}}}'),
        ("--set-json", 'runtimes={"a..b":{"enabled":true,"spec":{}}}'),
        ("--set", "runtimes.cpu.spec.simulate=fixed_ms=20"),
        ("--set", "runtimes.cpu.spec.backend=Simulated"),
        ("--set", "runtimes.cuda.spec.acceleratorResource="),
        ("--set", "runtimes.cuda.spec.acceleratorResource=gpu"),
        ("--set", "runtimes.cuda.spec.acceleratorMemory=-1"),
        ("--set", "operator.image.digest=latest"),
        ("--set", f"worker.image.digest=sha256:{'0' * 64}"),
    ],
    ids=lambda arguments: arguments[1][:80],
)
def test_values_that_mean_nothing_are_refused(run_helm: RunHelm, arguments: tuple[str, str]) -> None:
    done = run_helm("template", "demo", str(CHART), "--kube-version", "1.34.0", *arguments)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr


def test_the_operator_s_image_may_be_named_by_its_digest(render: Render) -> None:
    digest = f"sha256:{'0123456789abcdef' * 4}"
    pod = the_only(render("--set", f"operator.image.digest={digest},operator.image.tag=x"), "Deployment")["spec"]["template"][
        "spec"
    ]
    assert pod["containers"][0]["image"] == f"yolastic-operator@{digest}"


def test_what_is_cluster_wide_of_two_releases_never_meets(render: Render) -> None:
    one, other = render("--namespace", "a-b", release="c"), render("--namespace", "a", release="b-c")
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        assert the_only(one, kind)["metadata"]["name"] != the_only(other, kind)["metadata"]["name"]


def test_every_value_is_known_to_the_schema_and_explained() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    schema = yaml.safe_load((CHART / "values.schema.json").read_text("utf-8"))
    assert set(schema["required"]) == set(values) == set(schema["properties"]) - {"global"}
    assert set(values["operator"]) == set(schema["properties"]["operator"]["properties"])


@pytest.mark.parametrize(("server", "accepted"), [("1.28.15", False), ("1.29.0", True), ("1.34.2-gke.100", True)])
def test_which_kubernetes(run_helm: RunHelm, server: str, accepted: bool) -> None:
    done = run_helm("template", "demo", str(CHART), "--kube-version", server)
    assert (done.returncode == 0) == accepted, done.stderr


@pytest.fixture(scope="session")
def notes(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """What a person reads after the installation: helm shows it with a cluster only, so it is rendered as a manifest here."""
    chart = tmp_path_factory.mktemp("chart") / "yolastic"
    shutil.copytree(CHART, chart)
    text = (chart / "templates/NOTES.txt").read_text("utf-8")
    (chart / "templates/NOTES.txt").unlink()
    indented = "".join(f"  {line}\n" for line in text.splitlines())
    (chart / "templates/notes.yaml").write_text(f"kind: Notes\ntext: |\n{indented}", "utf-8")

    def read(*arguments: str) -> str:
        return str(the_only(render(*arguments, chart=chart), "Notes")["text"])

    return read


def test_notes_tell_the_next_commands(notes: Callable[..., str], render: Render) -> None:
    told = notes()
    assert "watches all namespaces" in told
    assert f"deployment/{the_only(render(), 'Deployment')['metadata']['name']}" in told
    assert "kubectl get yolort" in told
    assert "kubectl get yolo -w" in told
    assert "Before you uninstall" in told
    assert "lies in a Role there" not in told
    assert "namespaceLabels" not in told
    assert "must name the namespace of Prometheus" in notes("--set", "prometheus.url=http://prometheus:9090")
    example = yaml.safe_load(told.partition("<<END\n")[2].partition("END")[0])
    assert example["apiVersion"] == names.API_VERSION
    assert "prometheus.url" in told


def test_notes_follow_the_values(notes: Callable[..., str]) -> None:
    told = notes(*EVERYTHING, "--set", "crds.install=false")
    assert "watches the namespaces plant-1, plant-2" in told
    assert "kubectl apply -n plant-1" in told
    assert "before you delete one of these namespaces: the operator's right to let go lies in a Role there" in told
    assert "crds.install=false" in told
    assert "prometheus.url=" not in told
