"""Batches grow under load, ceilings count, deadlines are kept."""

import http.client
import json
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.alone

Start = Callable[..., Any]
CLIENT = Path(__file__).parents[2] / "benchmarks/client_fallback.py"


def _simulate(fixed_ms: float, per_image_ms: float = 1.0, **more: float) -> tuple[str, ...]:
    told = {"fixed_ms": fixed_ms, "per_image_ms": per_image_ms, **more}
    text = ",".join(f"{key}={value}" for key, value in told.items())
    return ("--backend", "simulated", "--input-size", "64x64", "--simulate", text)


def _closed_loop(worker: Any, image: Path, clients: int, seconds: float) -> dict[str, Any]:
    load = ["--clients", str(clients), "--seconds", str(seconds), "--warm", "0.5"]
    command = [sys.executable, str(CLIENT), "--port", str(worker.port), "--body", str(image), *load]
    output = subprocess.run(command, capture_output=True, check=True, timeout=60)
    value: dict[str, Any] = json.loads(output.stdout)["phases"][0]
    return value


def _together(worker: Any, body: bytes, count: int, **headers: str) -> Counter[int]:
    """So many clients at once; the statuses."""
    codes: Counter[int] = Counter()
    lock = threading.Lock()

    def one() -> None:
        status = worker.predict(body, **headers).status
        with lock:
            codes[status] += 1

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return codes


def test_batches_grow_under_load_and_stay_under_the_ceiling(start_worker: Start, jpeg: bytes, tmp_path: Path) -> None:
    worker = start_worker(*_simulate(20), "--max-batch", "16")
    image = tmp_path / "image.jpg"
    image.write_bytes(jpeg)
    alone = _closed_loop(worker, image, 1, 1.0)
    assert set(alone["codes"]) == {"200"}
    metric = worker.metrics()  # of one moment: the client's last image may end between two
    assert metric("yolastic_batch_size_bucket", le="1.0") == metric("yolastic_batch_size_count") > 0
    crowd = _closed_loop(worker, image, 40, 2.0)
    assert set(crowd["codes"]) == {"200"}
    assert crowd["ok_per_s"] > 4 * alone["ok_per_s"]
    metric = worker.metrics()
    assert metric("yolastic_batch_size_bucket", le="8.0") < metric("yolastic_batch_size_bucket", le="16.0")
    assert metric("yolastic_batch_size_bucket", le="16.0") == metric("yolastic_batch_size_count")
    speed = worker.state()["speed"]
    assert 0.015 < speed["fixed"] < 0.03
    assert 0.0005 < speed["per_image"] < 0.002


def test_a_pushed_ceiling_counts_from_the_next_batch(start_worker: Start, jpeg: bytes, tmp_path: Path) -> None:
    worker = start_worker(*_simulate(10), "--max-batch", "32")
    image = tmp_path / "image.jpg"
    image.write_bytes(jpeg)
    tiers = worker.state()["ceiling"]
    assert (tiers["base"], tiers["ceiling"], tiers["effective"], tiers["burst"], tiers["granted"]) == (32, 32, 32, False, False)
    answer = worker.control("PUT", "/ceiling", {"base": 2, "ceiling": 4, "bounds": {"latency": 4, "spec": 32}})
    assert answer.status == 200
    assert answer.json()["granted"] is True
    _closed_loop(worker, image, 20, 1.0)
    metric = worker.metrics()
    assert metric("yolastic_batch_size_bucket", le="4.0") == metric("yolastic_batch_size_count")
    assert metric("yolastic_batch_size_bucket", le="2.0") < metric("yolastic_batch_size_count"), "no burst"
    assert worker.state()["ceiling"]["burst"] is True
    assert worker.metric("yolastic_batch_ceiling", bound="operator") == 4
    assert worker.metric("yolastic_batch_ceiling", bound="latency") == 4
    worker.control("PUT", "/ceiling", {"base": 64, "ceiling": 256})
    assert worker.state()["ceiling"]["ceiling"] == 32, "never above the worker's own bound"


def test_a_request_with_more_images_than_the_ceiling_is_split(start_worker: Start, jpeg: bytes) -> None:
    worker = start_worker(*_simulate(5), "--max-batch", "4")
    boundary = "frontier"
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'.encode() + jpeg + b"\r\n"
    body = part * 11 + f"--{boundary}--\r\n".encode()
    answer = worker.predict(body, content_type=f"multipart/form-data; boundary={boundary}")
    assert len(answer.json()["images"]) == 11
    metric = worker.metrics()
    assert metric("yolastic_batch_size_bucket", le="4.0") == metric("yolastic_batch_size_count")
    assert worker.metric("yolastic_batch_size_sum") == 11


def test_what_cannot_make_its_deadline_is_refused_at_once(start_worker: Start, jpeg: bytes) -> None:
    worker = start_worker(*_simulate(200, 0), "--max-batch", "1")
    codes = _together(worker, jpeg, 12, x_request_timeout_ms="700")
    assert set(codes) <= {200, 429, 504}
    assert codes[200] >= 1
    assert codes[429] >= 5, codes
    assert worker.metric("yolastic_images_total", outcome="rejected") >= 5


def test_a_full_queue_is_429_with_retry_after(start_worker: Start, jpeg: bytes) -> None:
    worker = start_worker(*_simulate(300, 0), "--max-batch", "1", "--queue-length", "2")
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(worker.predict(jpeg))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    refused = [answer for answer in answers if answer.status != 200]
    assert 4 <= len(refused) < 8
    assert {(answer.status, answer.code) for answer in refused} == {(429, "overloaded")}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)


def test_a_deadline_that_passes_in_the_queue_is_504_and_never_runs(
    start_worker: Start, jpeg: bytes, until: Callable[..., None]
) -> None:
    """A fixed window waits longer than this client does; admission counts on the engine, not on windows."""
    worker = start_worker(*_simulate(20, 0), "--window", "fixed", "--max-delay-ms", "400")
    answer = worker.predict(jpeg, x_request_timeout_ms="150")
    assert (answer.status, answer.code) == (504, "deadline_passed")
    until(lambda: worker.metric("yolastic_images_total", outcome="expired") == 1)
    assert worker.metric("yolastic_batch_size_count") == 0


def test_an_image_whose_client_has_gone_is_dropped(start_worker: Start, jpeg: bytes, until: Callable[..., None]) -> None:
    worker = start_worker(*_simulate(400, 0), "--max-batch", "1")
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\ncontent-length: %d\r\n\r\n" % len(jpeg)
    first = socket.create_connection(("127.0.0.1", worker.port), 10)
    first.sendall(head + jpeg)
    until(lambda: worker.metric("yolastic_inflight_images") == 1)
    with socket.create_connection(("127.0.0.1", worker.port), 10) as second:
        second.sendall(head + jpeg)
        until(lambda: worker.metric("yolastic_queue_images") == 1)
    until(lambda: worker.metric("yolastic_images_total", outcome="cancelled") == 1)
    assert first.recv(4096).startswith(b"HTTP/1.1 200 ")
    first.close()
    assert worker.metric("yolastic_batch_size_count") == 1


def test_fixed_window_waits_and_adaptive_does_not(start_worker: Start, jpeg: bytes) -> None:
    fixed = start_worker(*_simulate(1, 0), "--window", "fixed", "--max-delay-ms", "300", "--eager-size", "3")
    adaptive = start_worker(*_simulate(1, 0), "--max-delay-ms", "300", "--eager-size", "3")
    assert _seconds(fixed, jpeg) >= 0.3
    assert _seconds(adaptive, jpeg) < 0.25
    assert _together(fixed, jpeg, 3) == {200: 3}
    assert fixed.metric("yolastic_batch_size_bucket", le="2.0") == 1, "three waiting went at once, as one batch"


def _seconds(worker: Any, jpeg: bytes) -> float:
    return float(worker.predict(jpeg).json()["metadata"]["functionTimeCall"])


def test_out_of_memory_lowers_the_bound_and_the_next_batch_runs(start_worker: Start, jpeg: bytes) -> None:
    """Memory for 8: the warm-up stops there, whatever was asked."""
    told = _simulate(5, 1, memory_fixed_mib=100, memory_per_image_mib=100, memory_limit_mib=1000)
    worker = start_worker(*told, "--max-batch", "32")
    state = worker.state()
    assert state["buckets"] == [1, 2, 4, 8]
    assert state["ceiling"]["ceiling"] == 8
    assert state["memory"]["fit"]["fixed"] == 100 * 2**20
    assert state["memory"]["fit"]["per_image"] == 100 * 2**20
    assert state["memory"]["limit_source"] == "Device"
    assert _together(worker, jpeg, 20) == {200: 20}
    limited = start_worker(*told, "--max-batch", "32", "--memory-limit", "550Mi")
    assert limited.state()["buckets"] == [1, 2, 4]
    assert limited.state()["memory"]["limit_source"] == "Declared"


def test_a_keep_alive_connection_carries_many_requests(start_worker: Start, jpeg: bytes) -> None:
    worker = start_worker(*_simulate(1, 0))
    connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=10)
    for _ in range(20):
        connection.request("POST", "/predict", jpeg, {"content-type": "image/jpeg"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        assert answer.getheader("connection") is None
    connection.close()


def test_a_crowd_from_one_source_does_not_starve_another(start_worker: Start, jpeg: bytes, until: Callable[..., None]) -> None:
    worker = start_worker(*_simulate(80, 0), "--max-batch", "1")
    order: list[str] = []

    def one(source: str) -> None:
        assert worker.predict(jpeg, x_source=source).status == 200
        order.append(source)

    crowd = [threading.Thread(target=one, args=("camera-1",)) for _ in range(8)]
    for thread in crowd:
        thread.start()
    until(lambda: worker.metric("yolastic_queue_images") >= 5)
    one("camera-2")
    for thread in crowd:
        thread.join(30)
    assert order.index("camera-2") <= 5, order
