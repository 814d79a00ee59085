"""Pods that stand around the workers in a test: a place for models, a client."""

import os
from dataclasses import dataclass

from cluster_kit.cluster import Cluster, Object, await_that
from cluster_kit.traffic import PYTHON, Client

USER = 65532
RESTRICTED: Object = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONFINED: Object = {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
MODEL_PORT = 8080
# The first process of a container gets no signal that it has not asked for.
ENDS = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit())\n"
WAIT_FOREVER = f"{ENDS}while True: signal.pause()"
SERVE_MODELS = f"""{ENDS}
import http.server as h
h.ThreadingHTTPServer.request_queue_size = 128  # of 5 by default: many clients at once would wait seconds for a second try
h.test(h.SimpleHTTPRequestHandler, h.ThreadingHTTPServer, port={MODEL_PORT})
"""
ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=2).status)"
CLAIM = "models"


def namespace(name: str) -> Object:
    """A namespace in which only restricted pods may run."""
    manifest = _object("v1", "Namespace", name)
    manifest["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}
    return manifest


def pod(space: str, name: str, image: str, command: list[str], **container: object) -> Object:
    """A restricted pod with one container; it ends at once when it is deleted."""
    manifest = _object("v1", "Pod", name, space)
    manifest["metadata"]["labels"] = {"app.kubernetes.io/name": name}
    manifest["spec"] = {
        "securityContext": RESTRICTED,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "containers": [{"name": "main", "image": image, "command": command, "securityContext": CONFINED, **container}],
    }
    return manifest


def start_client(cluster: Cluster, space: str, image: str) -> Client:
    """A pod in the namespace that sends requests for the tests."""
    cluster.apply(pod(space, "client", image, [PYTHON, "-c", WAIT_FOREVER]))
    cluster.await_ready(space, "client")
    return Client(cluster, space, "client")


@dataclass(frozen=True, slots=True)
class ModelServer:
    """A volume with models: an HTTP server serves it, and pods of its namespace may mount its claim."""

    cluster: Cluster
    space: str
    name: str = "model-server"
    claim: str = CLAIM

    def put(self, file: str, content: bytes) -> None:
        """Writes a file into the volume."""
        write = f"import sys; open('/models/{file}', 'wb').write(sys.stdin.buffer.read())"
        self.cluster.exec(self.space, self.name, PYTHON, "-c", write, stdin=content)

    def http_uri(self, file: str) -> str:
        """Where pods of the cluster get the file."""
        return f"http://{self.name}.{self.space}.svc/{file}"

    def claim_uri(self, file: str) -> str:
        """The file in the claim, for an inference in the same namespace."""
        return f"pvc://{self.claim}/{file}"


def start_model_server(cluster: Cluster, space: str, image: str) -> ModelServer:
    """A claim in the namespace and an HTTP server on it."""
    server = ModelServer(cluster, space)
    ready = {"httpGet": {"path": "/", "port": MODEL_PORT}, "periodSeconds": 1}
    mounts = [{"name": "models", "mountPath": "/models"}]
    command = [PYTHON, "-c", SERVE_MODELS]
    manifest = pod(space, server.name, image, command, workingDir="/models", volumeMounts=mounts, readinessProbe=ready)
    manifest["spec"]["volumes"] = [{"name": "models", "persistentVolumeClaim": {"claimName": server.claim}}]
    service = _object("v1", "Service", server.name, space)
    service["spec"] = {"selector": manifest["metadata"]["labels"], "ports": [{"port": 80, "targetPort": MODEL_PORT}]}
    cluster.apply(*_volume(cluster, space, server.claim), service)
    if cluster.state is not None:
        # A pod that comes before its volume is bound waits for the scheduler's next round.
        phase = "jsonpath={.status.phase}=Bound"
        cluster.kubectl("wait", f"--for={phase}", f"pvc/{server.claim}", "-n", space, "--timeout=30s")
    cluster.apply(manifest)
    cluster.await_ready(space, server.name)
    # A name and its address reach the nodes a moment after the pod is Ready.
    await_that(lambda: cluster.exec(space, server.name, PYTHON, "-c", ASK, server.http_uri("")), 30, "the model server answers")
    return server


def _volume(cluster: Cluster, space: str, claim_name: str) -> list[Object]:
    """A claim; a node of our own makes no volumes by itself, so there it gets a folder of the host."""
    size = {"storage": "1Gi"}
    modes = ["ReadWriteOnce"]
    claim = _object("v1", "PersistentVolumeClaim", claim_name, space)
    claim["spec"] = {"accessModes": modes, "resources": {"requests": size}}
    if cluster.state is None:
        return [claim]
    folder = cluster.state / "volumes" / space
    folder.mkdir(parents=True)
    os.chown(folder, USER, USER)
    volume = _object("v1", "PersistentVolume", volume_name(space))
    claim["spec"] |= {"storageClassName": "", "volumeName": volume_name(space)}
    volume["spec"] = {
        "capacity": size,
        "accessModes": modes,
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": str(folder)},
        "claimRef": {"name": claim_name, "namespace": space},
    }
    return [volume, claim]


def volume_name(space: str) -> str:
    """Name of the volume behind the claim of a namespace; volumes belong to no namespace."""
    return f"{space}-{CLAIM}"


def _object(api_version: str, kind: str, name: str, space: str | None = None) -> Object:
    where = {} if space is None else {"namespace": space}
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, **where}}
