"""A real Prometheus beside the node: it scrapes the workers, and pods ask it."""

import json
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from cluster_kit.cluster import Cluster, Object, await_that

API = "https://127.0.0.1:6443"
PORT = 19090
SCRAPE_EVERY_S = 2
LOOK_EVERY_S = 1
SELECTOR = "app.kubernetes.io/name=yolastic-worker"


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A Prometheus that scrapes every worker where its pod's annotations say."""

    url: str
    """As pods of the cluster reach it; from this host it is the same."""

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series of an instant query."""
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{urlencode({'query': expression})}", timeout=10) as answer:
            result = json.load(answer)["data"]["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]


@contextmanager
def run_prometheus(cluster: Cluster) -> Iterator[Prometheus]:
    """Debian's Prometheus as a process of this host, on the pods' bridge. Debian builds it without discovery in Kubernetes,
    so a file tells it of the workers.
    """
    assert cluster.state is not None
    folder = cluster.state / "prometheus"
    folder.mkdir()
    targets = folder / "targets.json"
    every = f"{SCRAPE_EVERY_S}s"
    job = {"job_name": "yolastic-workers", "file_sd_configs": [{"files": [str(targets)]}]}
    config = {"global": {"scrape_interval": every, "scrape_timeout": every}, "scrape_configs": [job]}
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    address = f"{cluster.host_address}:{PORT}"
    options = {"config.file": folder / "prometheus.yml", "storage.tsdb.path": folder / "data", "web.listen-address": address}
    argv = ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
    found = Prometheus(f"http://{address}")
    over = threading.Event()
    with (folder / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT) as process:
        # Where down.sh looks for what it ends, should this process be gone by then.
        (cluster.state / "pid/prometheus").write_text(f"{process.pid}\n")
        finder = threading.Thread(target=_find_targets, args=(cluster.state, targets, over), daemon=True)
        finder.start()
        try:
            await_that(lambda: _answers(found, process, folder / "log"), 30, "Prometheus answers")
            yield found
        finally:
            over.set()
            finder.join(timeout=15)
            process.terminate()


def _answers(found: Prometheus, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    if process.poll() is not None:
        raise AssertionError(f"Prometheus ended with {process.returncode}: {log.read_text()[-2000:]}")
    try:
        return bool(found.query("vector(1)"))
    except OSError:
        return False


def _find_targets(state: Path, targets: Path, over: threading.Event) -> None:
    """Writes the running workers into the file whenever they change, until it is over."""
    context = ssl.create_default_context(cafile=str(state / "pki/ca.crt"))
    context.load_cert_chain(state / "pki/admin.crt", state / "pki/admin.key")
    url = f"{API}/api/v1/pods?{urlencode({'labelSelector': SELECTOR})}"
    known: list[Object] | None = None
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5, context=context) as answer:
                now = [_target(pod) for pod in json.load(answer)["items"] if _is_target(pod)]
        except (OSError, ValueError):
            now = known or []  # the API server is away for a moment: what was known stays
        if now != known:
            known = now
            draft = targets.with_suffix(".draft")
            draft.write_text(json.dumps(now))
            draft.rename(targets)
        if over.wait(LOOK_EVERY_S):
            return


def _is_target(pod: Object) -> bool:
    scraped: bool = pod["metadata"].get("annotations", {}).get("prometheus.io/scrape") == "true"
    return scraped and pod["status"].get("phase") == "Running"


def _target(pod: Object) -> Object:
    port = pod["metadata"]["annotations"]["prometheus.io/port"]
    labels = {"namespace": pod["metadata"]["namespace"], "pod": pod["metadata"]["name"]}
    return {"targets": [f"{pod['status']['podIP']}:{port}"], "labels": labels}
