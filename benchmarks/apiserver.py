"""An API server and its etcd alone, for measuring the operator: no kubelet, so pods stay pending."""

import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.client import ROOT


def binaries() -> Path | None:
    """Folder with kube-apiserver, etcd and kubectl as `make test-cluster` builds them once, or None."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "yolastic/cluster"
    found = sorted(cache.glob("*/bin/kube-apiserver"), key=lambda path: path.stat().st_mtime)
    return found[-1].parent if found else None


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[None]:
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _kubeconfig(path: Path, port: int, token: str) -> None:
    cluster = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "bench", "cluster": cluster}],
                "users": [{"name": "bench", "user": {"token": token}}],
                "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
                "current-context": "bench",
            }
        )
    )


@contextmanager
def api_server(folder: Path) -> Iterator[Path]:
    """The kubeconfig of a running API server; everything is gone afterwards.

    Raises:
        RuntimeError: it did not come up within 30 s.
    """
    state = Path(tempfile.mkdtemp(prefix="apiserver-"))
    clients, peers, port, token = free_port(), free_port(), free_port(), secrets.token_hex(16)
    (state / "tokens.csv").write_text(f"{token},bench,bench,system:masters\n")
    etcd = [
        str(folder / "etcd"), "--data-dir", str(state / "etcd"), "--unsafe-no-fsync", "--listen-client-urls", f"http://127.0.0.1:{clients}",
        "--advertise-client-urls", f"http://127.0.0.1:{clients}", "--listen-peer-urls", f"http://127.0.0.1:{peers}",
    ]  # fmt: skip
    subprocess.run(["openssl", "genrsa", "-out", str(state / "sa.key"), "2048"], check=True, capture_output=True)
    server = [
        str(folder / "kube-apiserver"),
        "--etcd-servers",
        f"http://127.0.0.1:{clients}",
        "--secure-port",
        str(port),
        "--bind-address",
        "127.0.0.1",
        "--cert-dir",
        str(state / "certs"),
        "--token-auth-file",
        str(state / "tokens.csv"),
        "--authorization-mode",
        "RBAC",
        "--service-account-key-file",
        str(state / "sa.key"),
        "--service-account-signing-key-file",
        str(state / "sa.key"),
        "--service-account-issuer",
        "https://kubernetes.default.svc",
        "--service-cluster-ip-range",
        "10.96.0.0/16",
        "--disable-admission-plugins",
        "ServiceAccount",
    ]
    try:
        with ExitStack() as stack:
            stack.enter_context(_process(etcd, state / "etcd.log"))
            stack.enter_context(_process(server, state / "apiserver.log"))
            _await_ready(port, token, state / "apiserver.log")
            config = state / "kubeconfig"
            _kubeconfig(config, port, token)
            yield config
    finally:
        shutil.rmtree(state, ignore_errors=True)


def _await_ready(port: int, token: str, log: Path) -> None:
    context = ssl._create_unverified_context()
    request = urllib.request.Request(f"https://127.0.0.1:{port}/readyz", headers={"Authorization": f"Bearer {token}"})
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        try:
            with urllib.request.urlopen(request, timeout=2, context=context) as reply:
                if reply.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"the API server did not come up: {log.read_text()[-1000:]}")


def kubectl(folder: Path, config: Path, *arguments: str, text: str | None = None) -> str:
    """Output of kubectl.

    Raises:
        RuntimeError: it failed; the message is what it said.
    """
    done = subprocess.run(
        [str(folder / "kubectl"), "--kubeconfig", str(config), *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return done.stdout


def crds() -> list[Path]:
    """The two CRDs."""
    return sorted((ROOT / "crds").glob("*.yaml"))


@contextmanager
def api_server_with_resources(folder: Path) -> Iterator[Path]:
    """As `api_server`, once it knows YoloInference and YoloRuntime."""
    with api_server(folder) as config:
        for path in crds():
            kubectl(folder, config, "apply", "--server-side", "-f", str(path))
        for plural in ("yoloinferences", "yoloruntimes"):
            kubectl(folder, config, "wait", "--for=condition=Established", f"crd/{plural}.yolastic.dev", "--timeout=20s")
        yield config
