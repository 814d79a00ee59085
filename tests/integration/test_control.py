"""The control port of a real worker: who may tell it what, and what it shows."""

import json
import re
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from yolastic_contract.metrics import WORKER_METRICS
from yolastic_contract.state import WorkerState

SIMULATED = ("--backend", "simulated", "--simulate", "fixed_ms=5,per_image_ms=1", "--input-size", "64x64")
TELLING = [("PUT", "/ceiling", {"base": 1, "ceiling": 2}), ("POST", "/drain", None), ("POST", "/rebalance", None)]


@pytest.fixture(scope="module")
def worker(module_worker: Callable[..., Any]) -> Any:
    return module_worker(*SIMULATED)


@pytest.mark.parametrize(("method", "path", "value"), TELLING)
@pytest.mark.parametrize("token", [None, "", "wrong", "test-token-and-more"])
def test_wrong_token(worker: Any, method: str, path: str, value: Any, token: str | None) -> None:
    answer = worker.control(method, path, value, token=token)
    assert (answer.status, answer.code) == (401, "unauthorized")
    assert worker.control("GET", "/readyz").status == 200


@pytest.mark.parametrize(("method", "path", "value"), TELLING)
def test_no_token_file(start_worker: Callable[..., Any], method: str, path: str, value: Any) -> None:
    worker = start_worker(*SIMULATED, with_token=False)
    answer = worker.control(method, path, value, token="anything")
    assert (answer.status, answer.code) == (403, "no_control_token")


def test_token_is_read_again_when_the_file_changes(start_worker: Callable[..., Any], tmp_path: Path) -> None:
    token = tmp_path / "own-token"
    token.write_text("first")
    worker = start_worker(*SIMULATED, "--control-token-file", token, with_token=False)
    assert worker.control("POST", "/rebalance", token="first").status == 200
    token.write_text("the second")
    assert worker.control("POST", "/rebalance", token="first").status == 401
    assert worker.control("POST", "/rebalance", token="the second").status == 200
    token.unlink()
    assert worker.control("POST", "/rebalance", token="the second").status == 403


def test_a_token_can_follow_another_without_a_gap(start_worker: Callable[..., Any], tmp_path: Path) -> None:
    token = tmp_path / "own-token"
    token.write_text("old\n")
    worker = start_worker(*SIMULATED, "--control-token-file", token, with_token=False)

    def opens(*told: str) -> list[int]:
        return [worker.control("POST", "/rebalance", token=item).status for item in told]

    assert opens("old", "new", "old\tnew", "") == [200, 401, 401, 401]
    token.write_text("old\n\n new \n")
    assert opens("old", "new", "neither", "") == [200, 200, 401, 401]
    token.write_text("new")
    assert opens("old", "new") == [401, 200]
    token.write_text(" \n\n")
    assert opens("new", "") == [403, 403], "an empty line is no token"


@pytest.mark.parametrize(
    "value", [{"base": 4, "ceiling": 2}, {"base": 0, "ceiling": 2}, {"ceiling": 2}, {"base": 1, "ceiling": 1000}, [], "x"]
)
def test_bad_ceiling(worker: Any, value: Any) -> None:
    answer = worker.control("PUT", "/ceiling", value)
    assert (answer.status, answer.code) == (422, "bad_ceiling")


def test_state_is_the_contracts(worker: Any) -> None:
    state = WorkerState.model_validate(worker.state())
    assert set(worker.state()) == set(WorkerState.model_fields)
    assert (state.phase, state.backend, state.device_id, state.max_batch) == ("Ready", "Simulated", "GPU-0", 32)
    assert state.ready_after_s is not None
    assert state.speed is not None
    assert state.memory.fit is not None
    assert state.model is not None


def test_every_metric_is_there(worker: Any, jpeg: bytes) -> None:
    assert worker.predict(jpeg).status == 200
    assert worker.predict(b"", content_type="text/plain").status == 415
    text = worker.control("GET", "/metrics").body.decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for metric in WORKER_METRICS:
        kind = next(
            line.split()[3] for line in text.splitlines() if line.startswith(f"# TYPE {metric.name.removesuffix('_total')}")
        )
        assert kind == metric.type
        series = [line for line in lines if line.split("{")[0].startswith(metric.name)]
        assert series, metric.name
        assert all('model="simulated"' in line for line in series)
        for label in metric.labels:
            assert all(f'{label}="' in line for line in series), (metric.name, label)
    assert worker.metric("yolastic_requests_total", code="415") == 1
    assert worker.metric("yolastic_images_total", outcome="ok") == 1
    assert not [line for line in lines if "_created" in line]


def test_unknown_paths(worker: Any) -> None:
    for method, path, status in (("GET", "/", 404), ("POST", "/predict", 404), ("GET", "/drain", 405), ("POST", "/state", 405)):
        answer = worker.control(method, path)
        assert answer.status == status
        assert answer.code


@pytest.fixture(scope="module")
def scraped(module_worker: Callable[..., Any]) -> tuple[Any, int]:
    """A worker and its metrics port."""
    worker = module_worker(*SIMULATED, "--control-host", "127.0.0.1", "--metrics-port", "0")
    found = re.search(r"metrics alone on \('127\.0\.0\.1', (\d+)\)", worker.log())
    assert found is not None, worker.log()
    return worker, int(found[1])


def test_the_metrics_port_says_what_the_control_port_says(scraped: tuple[Any, int]) -> None:
    worker, port = scraped
    texts = [worker.control("GET", "/metrics", token=None, port=at) for at in (worker.control_port, port)]
    assert [answer.status for answer in texts] == [200, 200]
    names = [{line.split()[2] for line in answer.body.decode().splitlines() if line.startswith("# TYPE")} for answer in texts]
    assert names[0] == names[1] >= {metric.name for metric in WORKER_METRICS if metric.type == "gauge"}
    assert worker.control("HEAD", "/metrics", port=port).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        *((method, path, 404, "not_found") for method, path, _ in TELLING),
        *(("GET", path, 404, "not_found") for path in ("/", "/state", "/livez", "/readyz", "/info", "/metrics/", "//metrics")),
        ("GET", "/metrics/../state", 404, "not_found"),
        ("POST", "/predict", 404, "not_found"),
        *((method, "/metrics", 405, "method_not_allowed") for method in ("POST", "PUT", "DELETE", "OPTIONS")),
    ],
)
@pytest.mark.parametrize("token", [None, "test-token"])
def test_the_metrics_port_has_nothing_else(
    scraped: tuple[Any, int], method: str, path: str, status: int, code: str, token: str | None
) -> None:
    worker, port = scraped
    answer = worker.control(method, path, {"base": 1, "ceiling": 1}, token=token, port=port)
    assert (answer.status, answer.code) == (status, code)
    assert worker.state()["ceiling"]["granted"] is False
    assert worker.control("GET", "/readyz").status == 200


def test_who_fills_the_metrics_port_keeps_no_probe_out(scraped: tuple[Any, int]) -> None:
    worker, port = scraped
    with ExitStack() as clients:
        for _ in range(200):
            clients.enter_context(socket.create_connection(("127.0.0.1", port), 10))
        start_s = time.monotonic()
        assert worker.control("GET", "/livez").status == 200
        assert time.monotonic() - start_s < 1, "before any connection of the metrics port gives way"


def test_a_port_that_two_want_is_a_sentence(start_worker: Callable[..., Any], scraped: tuple[Any, int]) -> None:
    _, taken = scraped
    for flags in (("--metrics-port", str(taken)), ("--host", "127.0.0.1", "--port", str(taken))):
        worker = start_worker(*SIMULATED, "--control-host", "127.0.0.1", *flags, wait=False)
        assert worker.wait() == 2
        assert f"cannot listen on 127.0.0.1:{taken}: Address already in use" in worker.log()
        assert "Traceback" not in worker.log()


def test_two_ports_of_one_worker_cannot_be_one(start_worker: Callable[..., Any]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    worker = start_worker(*SIMULATED, "--control-host", "127.0.0.1", "--metrics-port", port, "--port", port, wait=False)
    assert worker.wait() == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in worker.log()


def test_no_metrics_port_unless_told(worker: Any) -> None:
    assert "metrics alone" not in worker.log()


def test_logs_as_json(start_worker: Callable[..., Any]) -> None:
    worker = start_worker(*SIMULATED, "--log-format", "json")
    entries = [json.loads(line) for line in worker.log().splitlines()]
    assert {"time", "level", "logger", "message"} == set(entries[0])
    assert any("ready" in entry["message"] for entry in entries)
