"""A real worker as a pod that no kubelet runs, and the door through which the operator reaches its control port."""

import base64
import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from scene import Scene, eventually, free_port
from stopping import stop

from yolastic_contract import names

SIMULATE = "fixed_ms=20,per_image_ms=1,memory_fixed_mib=600,memory_per_image_mib=60,memory_limit_mib=4096"
Told = Callable[[str, str], None]


class WorkerPod:
    """Ready as far as the API server knows; the pod's address is one of this host's own."""

    def __init__(self, scene: Scene, name: str, address: str, folder: Path) -> None:
        self.before: Told = lambda method, path: None
        """Called with each request to the control port before the worker sees it."""
        self.after: Told = lambda method, path: None
        """The same when the worker has answered and the operator does not know yet."""
        self._server, self._name, self._port = scene.server, name, free_port()
        self._door = self._open_door(address)
        secret = f"/api/v1/namespaces/{scene.namespace}/secrets/{names.control_secret_name('weld')}"
        token = folder / f"{name}.token"
        token.write_text(_decoded(eventually("a control Secret", lambda: scene.server.get(secret))))
        command = [
            *(sys.executable, "-m", "yolastic_worker", "serve", "--name", "weld", "--backend", "simulated"),
            *("--simulate", SIMULATE, "--max-batch", "32", "--input-size", "64x64", "--control-token-file", str(token)),
            *("--host", "127.0.0.1", "--port", "0", "--control-host", "127.0.0.1", "--control-port", str(self._port)),
        ]
        with (folder / f"{name}.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        eventually("the worker is ready", lambda: self._ask("GET", "/readyz", None, {})[0] == 200)
        self.path = path = scene.pod(name)
        running = {"name": "worker", "state": {"running": {}}, "ready": True, "restartCount": 0, "image": "w", "imageID": ""}
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [running],
        }
        scene.server.merge(f"{path}/status", {"status": status})

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._ask("GET", "/state", None, {})[1])
        return found

    def lose(self) -> None:
        """Its node is out of reach: as the node's controller has it, with a worker that answers nobody."""
        stop(self._process.pid)
        target = {"apiVersion": "v1", "kind": "Node", "name": "lost"}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": self._name}, "target": target}
        status, answer = self._server.request("POST", f"{self.path}/binding", binding)
        assert status == 201, answer
        self._server.merge(f"{self.path}/status", {"status": {"conditions": [{"type": "Ready", "status": "False"}]}})

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._door.shutdown()
        self._door.server_close()

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    def _open_door(self, address: str) -> ThreadingHTTPServer:
        pod = self

        class Door(BaseHTTPRequestHandler):
            def _pass_on(self) -> None:
                length = int(self.headers.get("content-length", 0))
                body = self.rfile.read(length) if length else None
                kept = {name: value for name, value in self.headers.items() if name.lower() in {"authorization", "content-type"}}
                pod.before(self.command, self.path)
                status, answer = pod._ask(self.command, self.path, body, kept)
                pod.after(self.command, self.path)
                self.send_response(status or 502)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_PUT = do_POST = _pass_on  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """Who asked has hung up, as the operator does with a worker that takes its time."""

        door = Server((address, names.CONTROL_PORT), Door)
        door.daemon_threads = True
        threading.Thread(target=door.serve_forever, daemon=True).start()
        return door


def make_simulated(scene: Scene, replicas: int) -> None:
    """The inference, of workers as `WorkerPod` has them."""
    spec = {"image": "worker:1", "backend": "Simulated", "simulate": SIMULATE}
    runtime = {"apiVersion": "yolastic.dev/v1alpha1", "kind": "YoloRuntime", "metadata": {"name": scene.namespace}, "spec": spec}
    scene.server.apply(f"/apis/yolastic.dev/v1alpha1/yoloruntimes/{scene.namespace}", runtime)
    scene.make(replicas)


def address(number: int) -> str:
    """An address of this host; tests that run beside each other have others."""
    return f"127.2.{int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw'))}.{number}"


@contextmanager
def worker_pods(scene: Scene, count: int, folder: Path) -> Iterator[list[WorkerPod]]:
    pods: list[WorkerPod] = []
    try:
        for number in range(count):
            pods.append(WorkerPod(scene, f"weld-{number}", address(number + 1), folder))
        yield pods
    finally:
        for pod in pods:
            pod.end()


def _decoded(secret: Any) -> str:
    return base64.b64decode(secret["data"][names.CONTROL_TOKEN_KEY]).decode()
