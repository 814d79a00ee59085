"""Devices that fail: what clients hear, what is remembered, and how the worker ends."""

import contextlib
import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.alone

ROOT = Path(__file__).resolve().parents[2]
FAULTY = str(Path(__file__).with_name("faulty_worker.py"))
LOST = "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=x ; expr=cudaStreamSynchronize(stream)"
PASSING = "CUDA failure 906: operation would make the legacy stream depend on a capturing blocking stream ; GPU=0"
Start = Callable[..., Any]
Until = Callable[..., None]


def simulated(pace: str = "fixed_ms=50,per_image_ms=1", **more: object) -> tuple[str, ...]:
    told = ",".join([pace, *(f"{key}={value}" for key, value in more.items())])
    return ("--backend", "simulated", "--simulate", told, "--input-size", "64x64", "--max-batch", "8")


@pytest.fixture(scope="session")
def white() -> bytes:
    return bytes(cv2.imencode(".png", np.full((64, 64, 3), 255, np.uint8))[1].tobytes())


def together(worker: Any, *bodies: bytes) -> list[Any]:
    """Their answers, in the order of the bodies; they arrive while a first image runs, so that they are one batch.

    None: it was refused the connection, because the worker had ended before.
    """
    answers: list[Any] = [None] * len(bodies)

    def ask(number: int) -> None:
        with contextlib.suppress(ConnectionRefusedError):
            answers[number] = worker.predict(bodies[number], content_type="image/*")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return answers


def statuses(answers: list[Any]) -> Counter[int]:
    return Counter(answer.status for answer in answers)


def write(path: Path, text: str) -> None:
    """Whole or not at all: the engine may be reading."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def test_a_lost_device_answers_503_is_not_ready_at_once_and_exits_with_3(
    start_worker: Start, jpeg: bytes, tmp_path: Path
) -> None:
    faults = tmp_path / "faults"
    worker = start_worker(*simulated(faults=faults), "--max-batch", "1")
    assert statuses(together(worker, jpeg, jpeg)) == {200: 2}
    connections = [http.client.HTTPConnection("127.0.0.1", worker.port, timeout=20) for _ in range(6)]
    for connection in connections:
        connection.connect()
    write(faults, LOST)
    for connection in connections:
        connection.request("POST", "/predict", jpeg, {"content-type": "image/jpeg"})
    ready = []
    for connection in connections:
        answer = connection.getresponse()
        with contextlib.suppress(OSError, http.client.HTTPException):
            ready.append(worker.control("GET", "/readyz").status)
        assert (answer.status, answer.getheader("retry-after")) == (503, "1")
        assert json.loads(answer.read())["error"]["code"] in {"unavailable", "failed"}
        connection.close()
    assert set(ready) <= {503}, "whoever heard 503 finds it not ready"
    assert worker.wait() == 3
    assert "CRITICAL" in worker.log()
    assert worker.termination_log.read_text().startswith("DeviceLost: the device failed")


def test_memory_that_is_taken_away_halves_the_batch_and_comes_back(
    start_worker: Start, jpeg: bytes, tmp_path: Path, until: Until
) -> None:
    """8 images need 1080 MiB, 4 need 840. Every client gets its answer; the size comes back when the memory does."""
    limit = tmp_path / "limit"
    worker = start_worker(*simulated(memory_limit_file=limit), program=(FAULTY, "none"))
    write(limit, "850")
    assert statuses(together(worker, *[jpeg] * 17)) == {200: 17}
    state = worker.state()
    assert (state["ceiling"]["ceiling"], state["health"]["out_of_memory_cap"], max(state["buckets"])) == (4, 4, 4)
    assert worker.metric("yolastic_out_of_memory_total") >= 1
    assert worker.metric("yolastic_batch_retries_total") >= 2
    assert worker.control("PUT", "/ceiling", {"base": 8, "ceiling": 8}).json()["ceiling"] == 4
    assert worker.control("GET", "/readyz").status == 200
    until(lambda: worker.metric("yolastic_out_of_memory_total") >= 2)
    assert worker.state()["ceiling"]["ceiling"] == 4, "a trial in vain"
    write(limit, "4096")
    until(lambda: worker.state()["ceiling"]["ceiling"] == 8)
    assert worker.state()["health"]["out_of_memory_cap"] is None
    assert statuses(together(worker, *[jpeg] * 9)) == {200: 9}


def test_alone_and_still_out_of_memory_is_507(start_worker: Start, jpeg: bytes, tmp_path: Path) -> None:
    limit = tmp_path / "limit"
    worker = start_worker(*simulated(memory_limit_file=limit))
    write(limit, "100")
    answers = together(worker, jpeg, jpeg)
    assert [(answer.status, answer.code) for answer in answers] == [(507, "out_of_memory")] * 2
    write(limit, "4096")
    assert worker.predict(jpeg).status == 200
    assert worker.control("GET", "/readyz").status == 200


def test_a_failure_that_passes_is_not_seen_by_clients(start_worker: Start, jpeg: bytes, tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    worker = start_worker(*simulated(faults=faults))
    write(faults, PASSING)
    assert worker.predict(jpeg).status == 200
    assert worker.metric("yolastic_batch_retries_total") == 1


def test_one_bad_image_costs_only_itself_and_is_refused_the_next_time(start_worker: Start, jpeg: bytes, white: bytes) -> None:
    worker = start_worker(*simulated(), program=(FAULTY, "poison"))
    answers = together(worker, jpeg, jpeg, jpeg, white, jpeg, jpeg, jpeg)
    assert statuses(answers) == {200: 6, 422: 1}
    assert answers[3].code == "quarantined"
    assert worker.state()["health"]["quarantined_images"] == 1
    decoded = worker.metric("yolastic_images_total")
    busy_s = worker.metric("yolastic_engine_busy_seconds_total")
    again = worker.predict(white, content_type="image/png")
    assert (again.status, again.code) == (422, "quarantined")
    assert worker.metric("yolastic_quarantined_images_total") == 2
    assert worker.metric("yolastic_images_total", outcome="rejected") == 1
    assert worker.metric("yolastic_images_total") == decoded + 1
    assert worker.metric("yolastic_engine_busy_seconds_total") < busy_s + 0.2, "it never reached the engine"
    assert worker.predict(jpeg).status == 200


def test_when_every_batch_fails_the_worker_ends_and_nobody_is_blamed(start_worker: Start, jpeg: bytes, white: bytes) -> None:
    worker = start_worker(*simulated(), program=(FAULTY, "broken"))
    assert worker.predict(jpeg).status == 200
    answers = together(worker, white, jpeg, jpeg, jpeg, jpeg)
    assert answers[0].status == 503
    told = {answer.status for answer in answers if answer is not None}
    assert told <= {200, 503}, "200: it ran before the device broke; 422 would be blame"
    assert worker.wait() == 3
    assert "does not answer any more" in worker.termination_log.read_text()


def test_wrong_answers_are_fatal(start_worker: Start, jpeg: bytes, white: bytes) -> None:
    """A device that goes wrong without an error: the canary finds it."""
    worker = start_worker(*simulated(), program=(FAULTY, "wrong"))
    assert worker.predict(jpeg).status == 200
    before = worker.state()["health"]["canary_age_s"]
    assert before is not None
    assert before < 10
    assert worker.predict(white, content_type="image/png").status == 200
    assert worker.wait(20) == 3
    assert "wrong answers" in worker.termination_log.read_text()
    assert "wrong answers" in worker.log()


def test_a_hung_device_is_told_from_a_busy_one_while_the_queue_is_full(
    start_worker: Start, jpeg: bytes, white: bytes, until: Until
) -> None:
    worker = start_worker(*simulated(), "--queue-length", "16", "--max-batch", "4", program=(FAULTY, "hang"))
    with contextlib.ExitStack() as clients:
        for body in [white, *[jpeg] * 40]:
            connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=30)
            clients.callback(connection.close)
            connection.request("POST", "/predict", body, {"content-type": "image/*", "x-request-timeout-ms": "60000"})
        until(lambda: worker.metric("yolastic_queue_images") >= 10)
        start_s = time.monotonic()
        assert worker.control("GET", "/livez").status == 200, "busy, as far as anybody knows"
        until(lambda: worker.control("GET", "/livez").status == 503)
        assert time.monotonic() - start_s < 15
        asked_s = time.monotonic()
        assert "no batch has ended" in worker.control("GET", "/livez").json()["error"]["message"]
        assert time.monotonic() - asked_s < 2, "the control port does not share the queue"


def test_a_busy_worker_with_a_full_queue_is_alive(start_worker: Start, jpeg: bytes) -> None:
    """Batches that take longer than the limit for hung ones would be at another pace."""
    worker = start_worker(
        *simulated("fixed_ms=400,per_image_ms=0"), "--queue-length", "8", "--max-batch", "2", program=(FAULTY, "none")
    )
    threads = [threading.Thread(target=worker.predict, args=(jpeg,)) for _ in range(24)]
    for thread in threads:
        thread.start()
    until_s = time.monotonic() + 2.5
    while time.monotonic() < until_s:
        assert worker.control("GET", "/livez").status == 200
        time.sleep(0.1)
    for thread in threads:
        thread.join(30)


def test_a_smaller_budget_gives_memory_back_within_5_s(start_worker: Start, jpeg: bytes, until: Until) -> None:
    worker = start_worker(*simulated())
    assert statuses(together(worker, *[jpeg] * 12)) == {200: 12}
    worker.control("PUT", "/ceiling", {"base": 8, "ceiling": 8, "budget_bytes": 2 << 30})
    until(lambda: worker.predict(jpeg).status == 200 and (worker.state()["memory"]["observed_bytes"] or 0) > 900 << 20)
    start_s = time.monotonic()
    assert worker.control("PUT", "/ceiling", {"base": 2, "ceiling": 2, "budget_bytes": 800 << 20}).json()["ceiling"] == 2
    until(lambda: worker.state()["memory"]["observed_bytes"] <= 800 << 20, 5)
    assert time.monotonic() - start_s < 5
    assert statuses(together(worker, *[jpeg] * 5)) == {200: 5}


def test_a_real_arena_gives_memory_back_while_images_come(start_worker: Start, jpeg: bytes, until: Until) -> None:
    """ONNX Runtime on the CPU: what batches of 8 took goes back to the system."""
    worker = start_worker("--model", ROOT / "examples/models/shapes.onnx", "--max-batch", "8", "--queue-length", "32")
    for _ in range(2):
        assert statuses(together(worker, *[jpeg] * 17)) == {200: 17}
    worker.control("PUT", "/ceiling", {"base": 8, "ceiling": 8, "budget_bytes": 8 << 30})
    until(lambda: worker.predict(jpeg).status == 200 and worker.state()["memory"]["observed_bytes"])
    fit = worker.state()["memory"]["fit"]
    before = worker.state()["memory"]["observed_bytes"]
    worker.control("PUT", "/ceiling", {"base": 1, "ceiling": 1, "budget_bytes": int(fit["fixed"] + fit["per_image"])})
    until(
        lambda: worker.state()["memory"]["observed_bytes"] < before - 3 * fit["per_image"],
        5,
        lambda: str((before, worker.state()["memory"])),
    )
    assert worker.predict(jpeg).status == 200
