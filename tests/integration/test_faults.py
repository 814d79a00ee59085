"""Devices that fail: what clients hear, and how the worker ends."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

FAULTY = str(Path(__file__).with_name("faulty_worker.py"))
SIMULATED = ("--backend", "simulated", "--simulate", "fixed_ms=50,per_image_ms=1", "--input-size", "64x64")
Start = Callable[..., Any]


def _together(worker: Any, body: bytes, count: int) -> list[Any]:
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(worker.predict(body))) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return answers


def test_a_lost_device_answers_503_and_exits_with_3(start_worker: Start, jpeg: bytes) -> None:
    worker = start_worker(*SIMULATED, "--max-batch", "1", program=(FAULTY, "lost"))
    answers = _together(worker, jpeg, 6)
    codes = sorted(answer.status for answer in answers)
    assert codes == [200, 200, 503, 503, 503, 503]
    assert {answer.code for answer in answers if answer.status == 503} <= {"unavailable", "failed"}
    assert all("retry-after" in answer.headers for answer in answers if answer.status == 503)
    assert worker.wait() == 3
    assert "CRITICAL" in worker.log()


def test_out_of_memory_is_an_answer(start_worker: Start, jpeg: bytes, until: Callable[..., None]) -> None:
    """A batch that does not fit fails once; from then on batches are smaller. Alone and still too large: 507."""
    worker = start_worker(*SIMULATED, "--max-batch", "8", program=(FAULTY, "memory"))
    codes = [answer.status for answer in _together(worker, jpeg, 9)]
    assert set(codes) <= {200, 503}
    until(lambda: worker.metric("yolastic_out_of_memory_total") >= 1)
    for _ in range(3):
        _together(worker, jpeg, 9)
    assert worker.state()["ceiling"]["ceiling"] == 2
    assert {answer.status for answer in _together(worker, jpeg, 9)} == {200}
    white = bytes(cv2.imencode(".png", np.full((64, 64, 3), 255, np.uint8))[1].tobytes())
    answer = worker.predict(white, content_type="image/png")
    assert (answer.status, answer.code) == (507, "out_of_memory")
    assert worker.predict(jpeg).status == 200
    assert worker.control("GET", "/readyz").status == 200
