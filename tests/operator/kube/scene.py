"""One inference on a real API server behind a proxy, and operators as processes of their own: what the fault tests share."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from api_proxy import Proxy

API = "/apis/yolastic.dev/v1alpha1"
SPEC: dict[str, Any] = {"model": {"uri": "http://models.invalid/m.onnx", "sha256": "0" * 64}}
TWO_TURNS_S = 10.0
"""Two turns at their default pace; the ones here are shorter, what the operator waits for after a fault is not."""


def eventually(what: str, check: Callable[[], Any], limit_s: float = 20.0) -> Any:
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        found = check()
        if found:
            return found
        time.sleep(0.05)
    return pytest.fail(f"not within {limit_s} s: {what}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Scene:
    """One inference, the proxy, and the operators on it."""

    def __init__(self, server: Any, namespace: str, proxy: Proxy, folder: Path) -> None:
        self.server, self.namespace, self.proxy, self._folder = server, namespace, proxy, folder
        self.path = f"{API}/namespaces/{namespace}/yoloinferences/weld"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.refused: set[int] = set()
        """Operators that end because another one is at work."""
        runtime = {"apiVersion": "yolastic.dev/v1alpha1", "kind": "YoloRuntime", "metadata": {"name": namespace}}
        server.apply(f"{API}/yoloruntimes/{namespace}", runtime | {"spec": {"image": "worker:1"}})

    def make(self, replicas: int) -> str:
        body = {"apiVersion": "yolastic.dev/v1alpha1", "kind": "YoloInference", "metadata": {"name": "weld"}}
        spec = SPEC | {"runtime": self.namespace, "replicas": replicas}
        return str(self.server.apply(self.path, body | {"spec": spec})["metadata"]["uid"])

    def operator(self, *, clock: Path | None = None, **settings: str) -> "subprocess.Popen[bytes]":
        """An operator that sees this namespace alone, through the proxy; its wall clock is wrong by the seconds in `clock`."""
        number = len(self.processes)
        config = self._folder / f"config-{number}"
        text = self.server.operator_kubeconfig.read_text()
        config.write_text(text.replace(self.server.url, self.proxy.url))
        own = {"TURN_SECONDS": "0.5", "HEALTH_PORT": str(free_port()), "METRICS_PORT": "0", "NAMESPACES": self.namespace}
        own |= settings
        variables = {f"YOLASTIC_OPERATOR_{name}": value for name, value in own.items()}
        with self.log(number).open("wb") as log:
            command = [sys.executable, "-m", "yolastic_operator"]
            if clock is not None:
                command = [sys.executable, str(Path(__file__).with_name("wrong_clock.py")), str(clock)]
            process = subprocess.Popen(command, env=os.environ | {"KUBECONFIG": str(config)} | variables, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def log(self, number: int) -> Path:
        return self._folder / f"log-{number}"

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = (self.server.get(self.path) or {}).get("status", {})
        return found

    @property
    def deployment(self) -> Any:
        return self.server.get(f"/apis/apps/v1/namespaces/{self.namespace}/deployments/weld")

    @property
    def size(self) -> int | None:
        deployment = self.deployment
        return None if deployment is None else int(deployment["spec"]["replicas"])

    def pod(self, name: str) -> str:
        """A pod as the Deployment's controllers would make it."""
        template = eventually("a Deployment", lambda: self.deployment)["spec"]["template"]
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}"
        spec = {"containers": [{"name": "worker", "image": "worker:1"}]}
        metadata = {"name": name, "labels": template["metadata"]["labels"]}
        self.server.apply(path, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        return path

    def remove(self, path: str) -> None:
        status, answer = self.server.request("DELETE", path, {"gracePeriodSeconds": 0})
        assert status in {200, 202}, answer

    def right(self, replicas: int) -> bool:
        """The size is ordered and the status speaks of this very spec."""
        generation = self.server.get(self.path)["metadata"]["generation"]
        told = (self.status.get("desiredReplicas"), self.status.get("observedGeneration"))
        return self.size == replicas and told == (replicas, generation)


def _ended(process: "subprocess.Popen[bytes]") -> int | None:
    """Its exit code; None when it had to be killed."""
    try:
        return process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


@contextmanager
def scene_of(api_server: Any, namespace: str, folder: Path) -> Iterator[Scene]:
    with Proxy(api_server.url) as proxy:
        scene = Scene(api_server, namespace, proxy, folder)
        try:
            yield scene
            api_server.request("DELETE", scene.path)
            eventually("nothing holds the object", lambda: api_server.get(scene.path) is None)
        finally:
            for process in scene.processes:
                process.send_signal(signal.SIGTERM)
            codes = [_ended(process) for process in scene.processes]
            for number, code in enumerate(codes):
                told = scene.log(number).read_text()
                assert code in ({2} if number in scene.refused else {0, -signal.SIGKILL}), told
                assert "Traceback" not in told, told
