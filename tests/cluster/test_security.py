"""What workers hold, who can tell them something, and a control token that is replaced while images come in."""

import base64
import json
from contextlib import ExitStack

from cluster_kit.cluster import Cluster, Object, await_that
from cluster_kit.services import ModelServer
from cluster_kit.traffic import PYTHON, Client
from cluster_kit.yolastic import IMAGE, SHAPES, SYSTEM, Inference, digest, labelled, served, simulated_runtime

PACE = "fixed_ms=20,per_image_ms=5,memory_fixed_mib=200,memory_per_image_mib=50,memory_limit_mib=2048"
NAMES = [item["name"] for item in labelled()]
LOOK_AROUND = """
import json, os
mounts = [line.split()[1] for line in open("/proc/mounts")]
files = [os.path.join(folder, name) for root in ("/etc/yolastic", "/var/run", "/run") for folder, _, names in os.walk(root)
         for name in names]
print(json.dumps({"mounts": mounts, "files": files, "user": os.getuid(),
                  "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")]}))
"""
KUBELET_LIMIT_S = 120


def start(cluster: Cluster, namespace: str, models: ModelServer, worker_image: str, client: Client, replicas: int) -> Inference:
    cluster.apply(simulated_runtime("guarded", worker_image, PACE))
    inference = Inference(cluster, namespace, "guarded").apply(
        models.http_uri("shapes.onnx"),
        digest(SHAPES),
        runtime="guarded",
        replicas=replicas,
        batching={"maxSize": 4},
        drain={"timeoutSeconds": 20},
    )
    inference.await_condition("Ready", "True", "WorkersReady")
    inference.await_ready_replicas(replicas)
    served(client, inference)
    return inference


def change(inference: Inference, **spec: object) -> None:
    inference.cluster.kubectl(
        "patch", "yolo", inference.name, "-n", inference.namespace, "--type=merge", "-p", json.dumps({"spec": spec})
    )


def test_a_worker_holds_no_way_to_the_api_and_its_control_port_wants_the_token(
    cluster: Cluster, namespace: str, models: ModelServer, worker_image: str, client: Client
) -> None:
    inference = start(cluster, namespace, models, worker_image, client, 1)
    (pod,) = inference.pods()
    assert pod["spec"]["automountServiceAccountToken"] is False
    seen = json.loads(cluster.exec(namespace, pod["metadata"]["name"], PYTHON, "-c", LOOK_AROUND))
    assert not [path for path in seen["mounts"] + seen["files"] if "serviceaccount" in path]
    assert {path for path in seen["files"] if "/etc/yolastic" in path and "/.." not in path} == {"/etc/yolastic/control/token"}
    assert seen["user"] != 0
    assert seen["capabilities"] == ["0" * 16]

    # The node's bridge enforces no NetworkPolicy, so this pod gets as far as the port: what changes a worker needs the token.
    control = f"http://{pod['status']['podIP']}:9000"
    for path, method, body in [
        ("ceiling", "PUT", b'{"base": 1, "ceiling": 1}'),
        ("drain", "POST", b""),
        ("rebalance", "POST", b""),
    ]:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic d3Jvbmc="}):
            status, answer = client.request(f"{control}/{path}", body, method=method, headers=headers)
            assert (status, json.loads(answer)["error"]["code"]) == (401, "unauthorized"), (path, headers)
    assert client.get(f"{control}/metrics")[0] == 200

    # And who is let in to scrape finds nothing else, not even with the token.
    scraped = f"http://{pod['status']['podIP']}:{pod['metadata']['annotations']['prometheus.io/port']}"
    bearer = {"Authorization": f"Bearer {Tokens(inference).in_secret()[0]}"}
    assert "yolastic_load_ratio{" in client.get(f"{scraped}/metrics")[1]
    for path, method, body in [("state", "GET", b""), ("ceiling", "PUT", b'{"base": 1, "ceiling": 1}'), ("drain", "POST", b"")]:
        status, answer = client.request(f"{scraped}/{path}", body, method=method, headers=bearer)
        assert (status, json.loads(answer)["error"]["code"]) == (404, "not_found"), path
    assert inference.condition("Ready")[0] == "True"


class Tokens:
    """The control token of an inference, in its Secret and in its workers."""

    def __init__(self, inference: Inference) -> None:
        self.inference, self.cluster = inference, inference.cluster
        self.secret, self.where = f"{inference.name}-control", ("-n", inference.namespace)

    def in_secret(self) -> list[str]:
        found = self.cluster.get("secret", self.secret, self.inference.namespace)
        return base64.b64decode(found["data"]["token"]).decode().split() if found else []

    def annotate(self, text: str) -> None:
        self.cluster.kubectl("annotate", "--overwrite", "secret", self.secret, *self.where, text)

    def await_in_workers(self, tokens: list[str]) -> None:
        """Until each worker's file says so; a change of the pod makes its kubelet look at once."""
        pods = [pod["metadata"]["name"] for pod in self.inference.pods()]
        self.cluster.kubectl("annotate", "--overwrite", "pod", *pods, *self.where, f"test/look={len(tokens)}-{tokens[-1][:8]}")

        def there() -> bool:
            read = ("cat", "/etc/yolastic/control/token")
            return all(self.cluster.exec(self.inference.namespace, pod, *read).split() == tokens for pod in pods)

        await_that(there, KUBELET_LIMIT_S, "the workers have the tokens of the Secret")


def test_the_control_token_is_replaced_and_nothing_fails(
    cluster: Cluster, namespace: str, models: ModelServer, worker_image: str, client: Client
) -> None:
    inference = start(cluster, namespace, models, worker_image, client, 2)
    tokens = Tokens(inference)
    (old,) = tokens.in_secret()

    def budgets() -> set[int]:
        states = [json.loads(client.get(f"http://{pod['status']['podIP']}:9000/state")[1]) for pod in inference.pods()]
        return {state["ceiling"]["budget_bytes"] for state in states}

    def tell(headroom_percent: int) -> None:
        """A change that every worker is told over its control port, and nothing else."""
        before = budgets()
        change(inference, memory={"headroomPercent": headroom_percent})
        await_that(lambda: not budgets() & before, 30, f"the workers know of {headroom_percent} % headroom")

    await_that(lambda: inference.status.get("batch", {}).get("appliedReplicas") == 2, 30, "both workers have their grant")
    with ExitStack() as stack:
        streams = [
            stack.enter_context(client.prober(inference.url, IMAGE, rate_per_s=8, connection=kind, expect_names=NAMES))
            for kind in ("new", "keep-alive")
        ]
        tokens.annotate("yolastic.dev/rotate=now")
        tell(11)
        first, new = both = tokens.in_secret()
        assert first == old != new
        secret: Object = cluster.get("secret", tokens.secret, namespace) or {}
        assert "yolastic.dev/rotate" not in secret["metadata"]["annotations"]
        tokens.await_in_workers(both)
        tell(12)
        assert tokens.in_secret() == both
        tokens.annotate("yolastic.dev/token-since=2026-01-01T00:00:00Z")  # the overlap is over
        tell(13)
        assert tokens.in_secret() == [new]
        tokens.await_in_workers([new])
        tell(14)
        gone = f"http://{inference.pods()[0]['status']['podIP']}:9000/rebalance"
        assert client.request(gone, headers={"Authorization": f"Bearer {old}"})[0] == 401, "the old one opens nothing any more"
        change(inference, replicas=1)
        inference.await_ready_replicas(1)
    for stream in streams:
        assert stream.report.failed == 0, stream.report.failures
        assert stream.report.sent > 50
    log = cluster.kubectl("logs", "deployment/yolastic-operator", "-n", SYSTEM, "--since=10m")
    about = [line for line in log.splitlines() if f"{namespace}/{inference.name}" in line]
    assert not [line for line in about if "status 401" in line or "status 403" in line], about
    assert old not in log
    assert new not in log
