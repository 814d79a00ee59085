"""A real API server with its etcd for the tests of this folder: no kubelet and no controllers, so pods are made by hand."""

import json
import os
import secrets
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from scene import Scene, scene_of

from yolastic_operator import rbac

ROOT = Path(__file__).resolve().parents[3]
START_LIMIT_S = 60


@dataclass(frozen=True)
class ApiServer:
    """A running API server: `admin` may do all, `operator` exactly what the operator's role allows."""

    url: str
    admin_token: str
    operator_token: str
    operator_kubeconfig: Path
    admin_kubeconfig: Path
    process: "Server"

    def await_up(self) -> None:
        """Until it serves, after `process.start()`."""
        # The last thing a new API server makes; without it the operator may not even ask what there is.
        discovery = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:discovery"
        # That outlives a restart, after which it may yet not know the custom resources: it answers 503 until it is ready.
        paths = ("/readyz", discovery)
        self.process.wait_until("the API server", lambda: all(self.request("GET", path)[0] == 200 for path in paths))

    def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> tuple[int, Any]:
        """Status and JSON of a request as admin."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.admin_token}", "Content-Type": content_type}
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        context = ssl._create_unverified_context()
        try:
            with urllib.request.urlopen(request, timeout=10, context=context) as answer:
                return answer.status, _json(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _json(error.read())

    def apply(self, path: str, body: Any) -> Any:
        """Server-side apply as admin; fails the test when it is refused."""
        status, answer = self.request("PATCH", f"{path}?fieldManager=test&force=true", body, "application/apply-patch+yaml")
        assert status in {200, 201}, answer
        return answer

    def merge(self, path: str, body: Any) -> Any:
        status, answer = self.request("PATCH", path, body, "application/merge-patch+json")
        assert status == 200, answer
        return answer

    def get(self, path: str) -> Any:
        """The object, or None."""
        status, answer = self.request("GET", path)
        assert status in {200, 404}, answer
        return answer if status == 200 else None


def _json(text: bytes) -> Any:
    return json.loads(text) if text.startswith(b"{") else text


def _binaries() -> Path | None:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "yolastic/cluster"
    found = [path.parent for path in cache.glob("*/bin/kube-apiserver") if (path.parent / "etcd").is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Server:
    """A process that can be killed and started again."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._command, self._log = command, log
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=output)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def wait_until(self, what: str, done: Callable[[], Any]) -> None:
        deadline_s = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            try:
                if done():
                    return
            except OSError:
                pass
            time.sleep(0.1)
        pytest.fail(f"{what} did not come up: {self._log.read_text(errors='replace')[-2000:]}")


def _etcd(folder: Path, state: Path, clients: int, peers: int) -> list[str]:
    listen = f"http://127.0.0.1:{clients}"
    return [
        *(str(folder / "etcd"), "--data-dir", str(state / "etcd"), "--unsafe-no-fsync", "--log-level", "error"),
        *("--listen-client-urls", listen, "--advertise-client-urls", listen),
        *("--listen-peer-urls", f"http://127.0.0.1:{peers}"),
    ]


def _api_server(folder: Path, state: Path, port: int, clients: int) -> list[str]:
    return [
        *(str(folder / "kube-apiserver"), "--etcd-servers", f"http://127.0.0.1:{clients}", "--secure-port", str(port)),
        *("--bind-address", "127.0.0.1", "--cert-dir", str(state / "certs"), "--authorization-mode", "RBAC"),
        *("--token-auth-file", str(state / "tokens.csv"), "--service-cluster-ip-range", "10.96.0.0/16"),
        *("--service-account-key-file", str(state / "sa.key"), "--service-account-signing-key-file", str(state / "sa.key")),
        *("--service-account-issuer", "https://kubernetes.default.svc", "--disable-admission-plugins", "ServiceAccount"),
    ]


def _kubeconfig(path: Path, url: str, token: str) -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    path.write_text(yaml.safe_dump(config))
    return path


def _grant_rights(server: ApiServer) -> None:
    """The operator's role, as the chart renders it, for the user `operator`."""
    group = "rbac.authorization.k8s.io"
    rules = [*rbac.CLUSTER_RULES, *rbac.NAMESPACED_RULES, *rbac.LEASE_RULES]
    role = {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": "operator"}}
    server.apply(f"/apis/{group}/v1/clusterroles/operator", role | {"rules": rules})
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "operator"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "operator"}],
    }
    server.apply(f"/apis/{group}/v1/clusterrolebindings/operator", binding)


def _install_crds(server: ApiServer) -> None:
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        definition = yaml.safe_load(path.read_text())
        crd = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{definition['metadata']['name']}"
        server.apply(crd, definition)

    def served() -> bool:
        status, answer = server.request("GET", "/apis/yolastic.dev/v1alpha1")
        names = {item["name"] for item in answer["resources"]} if status == 200 else set()
        return {"yoloinferences/status", "yoloinferences/scale", "yoloruntimes"} <= names

    server.process.wait_until("the custom resources", served)


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    folder = _binaries()
    if folder is None:
        pytest.skip("needs kube-apiserver and etcd, which `make test-cluster` builds")
    state = tmp_path_factory.mktemp("apiserver")
    port, clients, peers = _free_port(), _free_port(), _free_port()
    admin, operator = secrets.token_hex(16), secrets.token_hex(16)
    (state / "tokens.csv").write_text(f"{admin},admin,admin,system:masters\n{operator},operator,operator\n")
    subprocess.run(["openssl", "genrsa", "-out", str(state / "sa.key"), "2048"], check=True, capture_output=True)
    url = f"https://127.0.0.1:{port}"
    configs = _kubeconfig(state / "operator.yaml", url, operator), _kubeconfig(state / "admin.yaml", url, admin)
    with ExitStack() as stack:
        stack.callback(Server(_etcd(folder, state, clients, peers), state / "etcd.log").end)
        process = Server(_api_server(folder, state, port, clients), state / "apiserver.log")
        stack.callback(process.end)
        server = ApiServer(url, admin, operator, *configs, process)
        server.await_up()
        _install_crds(server)
        _grant_rights(server)
        yield server


@pytest.fixture
def namespace(api_server: ApiServer) -> Iterator[str]:
    """A namespace of its own; its inferences are deleted after the test."""
    name = f"test-{secrets.token_hex(4)}"
    api_server.apply(f"/api/v1/namespaces/{name}", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    api_server.request("DELETE", f"/apis/yolastic.dev/v1alpha1/namespaces/{name}/yoloinferences")


@pytest.fixture
def scene(api_server: Any, namespace: str, tmp_path: Path) -> Iterator[Scene]:
    with scene_of(api_server, namespace, tmp_path) as found:
        yield found
