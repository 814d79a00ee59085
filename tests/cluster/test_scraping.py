"""The scrape configuration of docs/monitoring.md in a real Prometheus: what it comes to for the operator, and for people."""

import asyncio
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from cluster_kit.cluster import Cluster, await_that
from cluster_kit.prometheus import Prometheus as Asked
from prometheus_client import CollectorRegistry, generate_latest

from yolastic_contract.metrics import LOAD_RATIO
from yolastic_operator.metrics import Metrics
from yolastic_operator.model import Ref
from yolastic_operator.observe.prometheus import LoadRatios, Prometheus
from yolastic_worker.metrics import WorkerMetrics

PAGE = (Path(__file__).resolve().parents[2] / "docs/monitoring.md").read_text("utf-8")
WELD = Ref("team-a", "weld")
PORT = 19191


def worker_page() -> bytes:
    metrics = WorkerMetrics("weld")
    metrics.gauge(LOAD_RATIO, 0.5)
    return metrics.render()


def operator_page() -> bytes:
    registry = CollectorRegistry()
    Metrics(registry).sizes(WELD, 3, 2)
    return generate_latest(registry)


@contextmanager
def shown(page: bytes) -> Iterator[str]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def found_by(folder: Path, name: str, address: str, namespace: str) -> dict[str, Any]:
    """What discovery in Kubernetes would tell of a pod; Debian builds its Prometheus without."""
    meta = {"label_app_kubernetes_io_name": name, "container_port_name": "metrics", "name": f"{name}-x"}
    labels = {"__meta_kubernetes_namespace": namespace, **{f"__meta_kubernetes_pod_{key}": value for key, value in meta.items()}}
    file = folder / f"{name}.json"
    file.write_text(json.dumps([{"targets": [address], "labels": labels}]))
    return {"files": [str(file)]}


@pytest.fixture
def prometheus(cluster: Cluster, tmp_path: Path) -> Iterator[Asked]:
    if cluster.state is None:
        pytest.skip("Prometheus is installed with a node of our own")
    (snippet,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    config = yaml.safe_load(snippet)
    with shown(worker_page()) as worker, shown(operator_page()) as operator:
        pods = [
            found_by(tmp_path, "yolastic-worker", worker, "team-a"),
            found_by(tmp_path, "yolastic-operator", operator, "yolastic-system"),
        ]
        for job in config["scrape_configs"]:
            assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
            job |= {"file_sd_configs": pods, "scrape_interval": "1s", "scrape_timeout": "1s"}
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        options = {"config.file": tmp_path / "prometheus.yml", "storage.tsdb.path": tmp_path / "data"}
        options["web.listen-address"] = Path(f"127.0.0.1:{PORT}")
        argv = ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
        with (tmp_path / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT) as process:
            try:
                yield Asked(f"http://127.0.0.1:{PORT}")
            finally:
                process.terminate()


def tried(asked: Asked, expression: str) -> list[tuple[dict[str, str], float]]:
    try:
        return asked.query(expression)
    except OSError:  # it is not up yet
        return []


def test_the_operator_finds_the_load_and_people_find_its_decisions(prometheus: Asked) -> None:
    wanted = 'yolastic_operator_desired_replicas{namespace="team-a",inference="weld"}'
    ((labels, value),) = await_that(partial(tried, prometheus, wanted), 30, "the operator is scraped")
    assert value == 3
    assert labels["operator_namespace"] == "yolastic-system"
    assert "exported_namespace" not in labels
    await_that(partial(tried, prometheus, "yolastic_load_ratio"), 30, "the worker is scraped")

    async def asked() -> LoadRatios:
        async with aiohttp.ClientSession() as session:
            return await Prometheus(session, prometheus.url).load_ratios(WELD)

    ratios = asyncio.run(asked())
    assert set(ratios.pods) == {"yolastic-worker-x"}
