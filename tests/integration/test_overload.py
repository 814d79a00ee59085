"""A queue that is full, in a real worker: who goes when newcomers come, and places that are free at once."""

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from stopping import stopped

pytestmark = pytest.mark.alone

Start = Callable[..., Any]
Until = Callable[..., None]
SLOW = ("--backend", "simulated", "--simulate", "fixed_ms=600,per_image_ms=0", "--max-batch", "1")


def test_drop_oldest_answers_the_oldest_that_a_newer_image_came(start_worker: Start, jpeg: bytes, until: Until) -> None:
    worker = start_worker(*SLOW, "--queue-length", "2", "--overflow", "drop-oldest")
    answers: dict[int, Any] = {}
    threads = []
    for number in range(5):  # one runs, two wait, then two more come
        threads.append(threading.Thread(target=lambda number=number: answers.update({number: worker.predict(jpeg)})))
        threads[-1].start()
        until(lambda number=number: len(answers) + worker.state()["load"]["inflight_images"] >= number + 1)
    for thread in threads:
        thread.join(30)
    dropped = {number for number, answer in answers.items() if answer.status == 429}
    assert len(dropped) == 2
    assert max(dropped) < 4, "the newest is never the one"
    assert {answers[number].code for number in dropped} == {"displaced"}
    assert all(int(answers[number].headers["retry-after"]) >= 1 for number in dropped)
    assert [answers[number].status for number in sorted(set(answers) - dropped)] == [200] * 3
    assert worker.metric("yolastic_images_total", outcome="rejected") == 2


def test_a_client_that_hangs_up_makes_room_before_the_batch_ends(start_worker: Start, jpeg: bytes, until: Until) -> None:
    worker = start_worker(*SLOW, "--queue-length", "1")
    first: list[Any] = []
    running = threading.Thread(target=lambda: first.append(worker.predict(jpeg)))
    running.start()
    until(lambda: worker.state()["load"]["inflight_images"] == 1 and worker.state()["load"]["queue_images"] == 0)
    with socket.create_connection(("127.0.0.1", worker.port)) as waiting:
        waiting.sendall(
            b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-type: image/jpeg\r\ncontent-length: %d\r\n\r\n" % len(jpeg) + jpeg
        )
        until(lambda: worker.state()["load"]["queue_images"] == 1)
        assert worker.predict(jpeg).status == 429
    until(lambda: worker.metric("yolastic_images_total", outcome="cancelled") == 1)
    assert worker.state()["load"]["queue_images"] == 0
    assert not first, "the first is still running"
    assert worker.predict(jpeg).status == 200
    running.join(30)
    assert first[0].status == 200


def test_more_images_than_may_ever_wait_are_refused_for_good(start_worker: Start, jpeg: bytes) -> None:
    worker = start_worker(*SLOW, "--queue-length", "2")
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n' + jpeg + b"\r\n"
    answer = worker.predict(part * 3 + b"--x--\r\n", content_type="multipart/form-data; boundary=x")
    assert (answer.status, answer.code) == (413, "too_many_images")
    assert "retry-after" not in answer.headers


def test_requests_found_after_their_clients_hung_up_cost_no_decoding(start_worker: Start, jpeg: bytes, until: Until) -> None:
    """A worker that is behind finds them in its sockets; were they run, it would stay behind."""
    worker = start_worker("--backend", "simulated", "--simulate", "fixed_ms=20,per_image_ms=1")
    head = b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-type: image/jpeg\r\ncontent-length: %d\r\n\r\n" % len(jpeg)
    with stopped(worker.process.pid):
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", worker.port)) as impatient:
                impatient.sendall(head + jpeg)
    assert worker.predict(jpeg).status == 200
    until(lambda: worker.state()["load"]["inflight_images"] == 0)
    assert worker.state()["load"]["demand_images"] == 1, "nobody asked for the others any more"
