"""The node itself, and what is and is not in the images; all else in this folder stands on these."""

import json

import pytest
from cluster_kit.cluster import Cluster, CommandError, await_that, condition
from cluster_kit.node import BRIDGE
from cluster_kit.prometheus import Prometheus
from cluster_kit.services import ModelServer, pod
from cluster_kit.traffic import PYTHON, Client

ENDED_LIMIT_S = 60

LOOK = """
import importlib.util, json, os, sys
files = {name for top in ("/usr", "/opt", "/bin", "/sbin") for _, _, names in os.walk(top) for name in names}
modules = [name for name in sys.argv[1:] if importlib.util.find_spec(name)]
tools = {"pip", "pip3", "uv", "uvx", "gcc", "cc", "g++", "c++", "clang", "ld", "make"}
print(json.dumps({"modules": modules, "tools": sorted(tools & files), "user": os.getuid()}))
"""


def run_to_end(cluster: Cluster, namespace: str, name: str, image: str, command: list[str], **container: object) -> str:
    """What the command says in a pod that runs it once; without one, the image's own."""
    manifest = pod(namespace, name, image, command, **container)
    manifest["spec"]["restartPolicy"] = "Never"
    cluster.apply(manifest)

    def ended() -> str | None:
        phase: str = (cluster.get("pod", name, namespace) or {})["status"].get("phase", "")
        return phase if phase in {"Succeeded", "Failed"} else None

    phase = await_that(ended, ENDED_LIMIT_S, f"pod {name} ends")
    said = cluster.kubectl("logs", "-n", namespace, name)
    assert phase == "Succeeded", said
    return said


def test_the_node_is_ready_and_has_its_accelerators(cluster: Cluster) -> None:
    nodes = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    assert [condition(node, "Ready") for node in nodes] == ["True"] * len(nodes)
    if cluster.state is not None:
        assert nodes[0]["status"]["allocatable"]["nvidia.com/gpu"] == "2"


def test_the_bridge_keeps_its_hardware_address_whatever_pods_come(cluster: Cluster) -> None:
    if cluster.state is None:
        pytest.skip("the network of a named cluster is its own affair")
    given = "3"  # NET_ADDR_SET in linux/netdevice.h: a bridge without takes the lowest of its ports'
    assert (BRIDGE / "addr_assign_type").read_text().strip() == given


def test_a_third_pod_that_wants_one_of_two_accelerators_stays_pending(
    cluster: Cluster, namespace: str, worker_image: str
) -> None:
    if cluster.state is None:
        pytest.skip("a named cluster has its own number of accelerators")
    sleep = [PYTHON, "-c", "import signal; signal.pause()"]
    wants = {"limits": {"nvidia.com/gpu": "1"}}
    cluster.apply(*(pod(namespace, f"gpu-{number}", worker_image, sleep, resources=wants) for number in range(3)))

    def placed() -> bool:
        pods = cluster.list("pods", namespace)
        reasons = [item for one in pods for item in one["status"].get("conditions", []) if item.get("reason") == "Unschedulable"]
        return len(reasons) == 1 and sum(one["status"]["phase"] == "Running" for one in pods) == 2

    await_that(placed, 30, "two pods run and one is Unschedulable")


def test_only_restricted_pods_are_admitted(cluster: Cluster, namespace: str, worker_image: str) -> None:
    manifest = pod(namespace, "root", worker_image, [PYTHON])
    manifest["spec"]["securityContext"] = {}
    with pytest.raises(CommandError, match="violates PodSecurity"):
        cluster.apply(manifest)


WANTED = {"operator": ["kopf", "kubernetes", "yolastic_operator"], "worker": ["onnxruntime", "cv2", "yolastic_worker"]}
UNWANTED = {
    "operator": ["pip", "ensurepip", "uv", "onnxruntime", "numpy", "cv2", "yolastic_worker"],
    "worker": ["pip", "ensurepip", "uv", "kopf", "kubernetes", "torch", "ultralytics", "yolastic_operator"],
}


@pytest.mark.parametrize("which", ["operator", "worker"])
def test_an_image_holds_what_it_needs_and_no_more(cluster: Cluster, namespace: str, images: tuple[str, str], which: str) -> None:
    image = images[("operator", "worker").index(which)]
    modules = [*UNWANTED[which], *WANTED[which]]
    look = run_to_end(cluster, namespace, f"look-{which}", image, [PYTHON, "-c", LOOK, *modules])
    assert json.loads(look) == {"modules": WANTED[which], "tools": [], "user": 65532}


@pytest.mark.parametrize("which", ["operator", "worker"])
def test_an_image_starts_its_command_by_itself(cluster: Cluster, namespace: str, images: tuple[str, str], which: str) -> None:
    image = images[("operator", "worker").index(which)]
    said = run_to_end(cluster, namespace, f"help-{which}", image, [], args=["--help"])
    assert said.startswith(f"usage: yolastic-{which} ")


def test_names_resolve_and_services_are_reached(client: Client, model_server: ModelServer) -> None:
    model_server.put("greeting", b"hello")
    assert client.get(model_server.http_uri("greeting")) == (200, "hello")
    for nobody in ("http://nobody.nowhere.svc/", "http://nobody.example/"):
        status, why = client.get(nobody)
        assert (status, "gaierror" in why) == (0, True), why


def test_a_prober_counts_what_fails_and_nothing_else(client: Client, model_server: ModelServer) -> None:
    url = f"http://{model_server.name}.{model_server.space}.svc"
    with client.prober(url, b"", rate_per_s=20) as stream:
        await_that(lambda: client.get(f"{url}/")[0] == 200, 10, "the server answers beside the prober")
    report = stream.report
    assert report.failed == report.sent > 0  # it serves files and takes no images
    assert report.codes == {"501": report.sent}, report.failures


def test_load_ends_by_itself(client: Client, model_server: ModelServer) -> None:
    url = f"http://{model_server.name}.{model_server.space}.svc"
    with client.load(url, b"", clients=4, limit_s=1) as stream:
        report = stream.wait(timeout_s=10)
    assert 1 <= report.duration_s < 5
    assert report.sent >= 4


@pytest.fixture
def exporter(cluster: Cluster, namespace: str, worker_image: str) -> str:
    """A pod that looks like a worker to Prometheus: one load ratio on the port of its annotation."""
    serve = """
import http.server
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"yolastic_load_ratio 0.75\\n")
http.server.HTTPServer(("", 9001), Page).serve_forever()
"""
    manifest = pod(namespace, "exporter", worker_image, [PYTHON, "-c", serve], ports=[{"name": "metrics", "containerPort": 9001}])
    manifest["metadata"]["annotations"] = {"prometheus.io/scrape": "true", "prometheus.io/port": "9001"}
    manifest["metadata"]["labels"]["app.kubernetes.io/name"] = "yolastic-worker"
    cluster.apply(manifest)
    cluster.await_ready(namespace, "exporter")
    return "exporter"


def test_prometheus_scrapes_worker_pods_and_pods_reach_it(
    client: Client, namespace: str, exporter: str, prometheus: Prometheus
) -> None:
    expected = {"namespace": namespace, "pod": exporter}
    (labels, value) = await_that(lambda: prometheus.query(f'yolastic_load_ratio{{namespace="{namespace}"}}'), 30, "a sample")[0]
    assert value == 0.75
    assert expected.items() <= labels.items()
    status, body = client.get(f"{prometheus.url}/api/v1/query?query=yolastic_load_ratio")
    assert status == 200
    assert exporter in body
