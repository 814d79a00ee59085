"""Yolastic itself in the cluster: its release, its resources, and what they say."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster_kit.cluster import Cluster, CommandError, Object, await_that
from cluster_kit.traffic import Client

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts/yolastic"
RELEASE = "yolastic"
SYSTEM = "yolastic-system"
SHAPES = (ROOT / "examples/models/shapes.onnx").read_bytes()
OTHER = (ROOT / "tests/goldens/shapes_e2e.onnx").read_bytes()
IMAGE_FILE = "shapes-00.jpg"
IMAGE = (ROOT / "examples/images" / IMAGE_FILE).read_bytes()
API_VERSION = "yolastic.dev/v1alpha1"
WORKERS = "app.kubernetes.io/name=yolastic-worker"


def labelled() -> list[Object]:
    """The objects in the image, as its label has them."""
    images = json.loads((ROOT / "examples/images/labels.json").read_text())["images"]
    objects: list[Object] = next(entry["objects"] for entry in images if entry["file"] == IMAGE_FILE)
    return objects


def digest(content: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def install(cluster: Cluster, operator_image: str, worker_image: str, prometheus_url: str | None) -> str:
    """`helm install` of the chart in the checkout with the images given; what it printed."""
    repository, tag = operator_image.rsplit(":", 1)
    small = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}}
    values = {
        "operator": {"image": {"repository": repository, "tag": tag}, "resources": small},
        "runtimes": {
            "cpu": {"spec": {"image": worker_image, "resources": small}},
            "cuda": {"spec": {"image": worker_image}},
        },
        "prometheus": {"url": prometheus_url or ""},
    }
    arguments = [word for key, value in values.items() for word in ("--set-json", f"{key}={json.dumps(value)}")]
    return cluster.helm("install", RELEASE, CHART, "-n", SYSTEM, "--create-namespace", "--wait", "--timeout=90s", *arguments)


def simulated_runtime(name: str, worker_image: str, simulate: str, **spec: object) -> Object:
    """A YoloRuntime whose accelerator is played."""
    small = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
    body = {"image": worker_image, "backend": "Simulated", "simulate": simulate, "resources": small, **spec}
    return {"apiVersion": API_VERSION, "kind": "YoloRuntime", "metadata": {"name": name}, "spec": body}


@dataclass(frozen=True, slots=True)
class Inference:
    """A YoloInference in the cluster."""

    cluster: Cluster
    namespace: str
    name: str

    @property
    def url(self) -> str:
        """Its Service, as pods reach it."""
        return f"http://{self.name}.{self.namespace}.svc"

    def apply(self, uri: str, sha256: str, **spec: object) -> "Inference":
        """`kubectl apply` of it."""
        body = {"model": {"uri": uri, "sha256": sha256}, **spec}
        where = {"name": self.name, "namespace": self.namespace}
        self.cluster.apply({"apiVersion": API_VERSION, "kind": "YoloInference", "metadata": where, "spec": body})
        return self

    @property
    def status(self) -> Object:
        """Its status; empty before the operator wrote one."""
        found: Object = (self.cluster.get("yoloinference", self.name, self.namespace) or {}).get("status", {})
        return found

    def condition(self, kind: str) -> tuple[str, str, str]:
        """(status, reason, message) of a condition; Unknown before it is there."""
        for item in self.status.get("conditions", []):
            if item["type"] == kind:
                return item["status"], item["reason"], item.get("message", "")
        return "Unknown", "", ""

    def await_condition(self, kind: str, status: str, reason: str | None = None, timeout_s: float = 90) -> str:
        """The message of the condition, once it is as wanted."""

        def as_wanted() -> tuple[str] | None:
            now, why, message = self.condition(kind)
            return (message,) if now == status and reason in {None, why} else None

        what = f"{self.name}: {kind} is {status}{f'/{reason}' if reason else ''}"
        return await_that(as_wanted, timeout_s, what)[0]

    def await_ready_replicas(self, count: int, timeout_s: float = 90) -> None:
        """Waits until so many workers are ready, and no more are left."""

        def settled() -> bool:
            return self.status.get("readyReplicas", 0) == count == len(self.pods())

        await_that(settled, timeout_s, f"{self.name} has {count} ready workers")

    def pods(self) -> list[Object]:
        """Its workers' pods, those that go included."""
        return self.cluster.list("pods", self.namespace, f"yolastic.dev/inference={self.name}")

    def events(self) -> list[tuple[str, str]]:
        """(reason, message) of the events on it."""
        items: list[Any] = self.cluster.list("events", self.namespace)
        return [(item["reason"], item["message"]) for item in items if item["involvedObject"]["name"] == self.name]


def served(client: Client, inference: Inference) -> object:
    """The answer to the image, once the Service's address has reached the node: a moment after the first worker is Ready."""

    def answered() -> object:
        # A connection that began before the node knew the address may never get through: another one does.
        status, answer = client.predict(inference.url, IMAGE, timeout_s=3)
        if status != 200:
            raise CommandError(f"{status}: {answer}")
        return answer

    return await_that(answered, 15, f"{inference.name} answers")
