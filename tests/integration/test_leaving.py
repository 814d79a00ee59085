"""Draining, rebalancing and dying: nothing that was accepted is lost."""

import http.client
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.alone

Start = Callable[..., Any]
SIMULATED = ("--backend", "simulated", "--simulate", "fixed_ms=30,per_image_ms=1", "--input-size", "64x64")


@pytest.mark.parametrize("reconnect", [False, True])
def test_sigterm_loses_nothing(
    start_worker: Start, jpeg: bytes, prober: Any, shared_socket: Callable[[], socket.socket], reconnect: bool
) -> None:
    """Two workers on one socket, as `yolastic up` runs them: one leaves under load."""
    with shared_socket() as door:
        leaving = start_worker(*SIMULATED, shared=door)
        start_worker(*SIMULATED, shared=door)
        with prober(door.getsockname()[1], jpeg, reconnect=reconnect) as one, prober(door.getsockname()[1], jpeg) as other:
            one.wait_answers(20)
            leaving.terminate()
            assert leaving.wait() == 0
            one.wait_answers(20)
            other.wait_answers(5)
        one.assert_lossless()
        other.assert_lossless()
    assert "drained" in leaving.log()


def test_sigterm_with_an_own_port_goes_on_accepting_for_the_propagation_delay(
    start_worker: Start, jpeg: bytes, prober: Any
) -> None:
    worker = start_worker(*SIMULATED, "--propagation-delay-s", "1.5")
    with prober(worker.port, jpeg, reconnect=True) as beside:
        beside.wait_answers(5)
        worker.terminate()
        start_s = time.monotonic()
        while worker.control("GET", "/readyz").status == 200:
            assert time.monotonic() - start_s < 1
        assert worker.control("GET", "/readyz").code == "draining"
        answer = worker.predict(jpeg)
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        beside.wait_answers(10)
        assert time.monotonic() - start_s < 1.4, "too slow a machine for this test"
    beside.assert_lossless()
    assert worker.wait() == 0
    assert 1.4 <= time.monotonic() - start_s < 10


def test_requests_under_way_at_the_end_of_the_delay_are_answered(
    start_worker: Start, jpeg: bytes, until: Callable[..., None]
) -> None:
    worker = start_worker(
        "--backend", "simulated", "--simulate", "fixed_ms=700,per_image_ms=0", "--input-size", "64x64", "--max-batch", "1",
        "--propagation-delay-s", "0.1",
    )  # fmt: skip
    connections = [http.client.HTTPConnection("127.0.0.1", worker.port, timeout=20) for _ in range(3)]
    for connection in connections:
        connection.request("POST", "/predict", jpeg, {"content-type": "image/jpeg"})
    until(lambda: worker.metric("yolastic_inflight_images") == 3)
    idle = socket.create_connection(("127.0.0.1", worker.port), 10)
    worker.terminate()
    assert idle.recv(1) == b"", "an idle connection is closed"
    for connection in connections:
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("connection")) == (200, "close")
        answer.read()
        connection.close()
    idle.close()
    assert worker.wait() == 0


def test_a_client_that_never_ends_does_not_hold_the_drain(start_worker: Start) -> None:
    worker = start_worker(*SIMULATED, "--propagation-delay-s", "0", "--drain-timeout-s", "1")
    with socket.create_connection(("127.0.0.1", worker.port), 10) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\ncontent-length: 1000\r\n\r\nabc")
        start_s = time.monotonic()
        worker.terminate()
        assert worker.wait() == 0
        assert time.monotonic() - start_s < 5


def test_drain_by_the_operator_keeps_the_process(start_worker: Start, jpeg: bytes) -> None:
    worker = start_worker(*SIMULATED, "--propagation-delay-s", "0")
    answer = worker.control("POST", "/drain").json()
    assert answer == {"phase": "Draining", "inflight_images": 0}
    assert worker.control("GET", "/readyz").status == 503
    assert worker.control("GET", "/livez").status == 200
    served = worker.predict(jpeg)
    assert (served.status, served.headers["connection"]) == (200, "close"), "who has not heard of it yet is still served"
    assert worker.control("POST", "/drain").json()["phase"] == "Draining"
    assert worker.process.poll() is None
    worker.terminate()
    assert worker.wait() == 0


def test_drain_leaves_a_shared_socket_to_the_others_at_once(
    start_worker: Start, jpeg: bytes, prober: Any, shared_socket: Callable[[], socket.socket]
) -> None:
    with shared_socket() as door:
        leaving = start_worker(*SIMULATED, shared=door)
        staying = start_worker(*SIMULATED, shared=door)
        with prober(staying.port, jpeg, reconnect=True, period_s=0.005) as one:
            one.wait_answers(10)
            leaving.control("POST", "/drain")
            one.wait_answers(3)
            before = leaving.metric("yolastic_images_total", outcome="ok")
            served = staying.metric("yolastic_images_total", outcome="ok")
            one.wait_answers(15)
            assert leaving.metric("yolastic_images_total", outcome="ok") == before
            assert staying.metric("yolastic_images_total", outcome="ok") >= served + 14
        one.assert_lossless()
        assert leaving.process.poll() is None


def test_rebalance_closes_connections_after_their_next_answer(start_worker: Start, jpeg: bytes) -> None:
    worker = start_worker(*SIMULATED)
    connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=10)
    for expected in (None, "close", None):
        connection.request("POST", "/predict", jpeg, {"content-type": "image/jpeg"})
        answer = connection.getresponse()
        answer.read()
        assert (answer.status, answer.getheader("connection")) == (200, expected)
        if expected is None:
            assert worker.control("POST", "/rebalance").status == 200
            time.sleep(0.05)  # it is carried out on the other event loop; nothing outside shows when
    connection.close()
    assert worker.control("GET", "/readyz").status == 200


def test_sigint_and_sigterm_while_starting_end_quietly(start_worker: Start, until: Callable[..., None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        worker = start_worker(
            "--backend", "simulated", "--simulate", "fixed_ms=3000,per_image_ms=0", "--input-size", "64x64", wait=False
        )
        until(lambda worker=worker: "simulated accelerator" in worker.log())
        assert worker.control("GET", "/readyz").code == "starting"
        assert worker.control("GET", "/livez").status == 200
        answer = worker.predict(b"\xff\xd8\xff")
        assert (answer.status, answer.code) == (503, "starting")
        assert int(answer.headers["retry-after"]) >= 1
        worker.process.send_signal(number)
        assert worker.wait(10) == 0
        assert "Traceback" not in worker.log()


def test_behind_a_service_nobody_is_let_in_before_it_can_serve(
    start_worker: Start, jpeg: bytes, until: Callable[..., None]
) -> None:
    slow = ("--backend", "simulated", "--simulate", "fixed_ms=300,per_image_ms=0", "--input-size", "64x64", "--max-batch", "1")
    worker = start_worker(*slow, "--open-when-ready", wait=False)
    until(lambda: "simulated accelerator" in worker.log())
    assert worker.control("GET", "/readyz").code == "starting"
    with pytest.raises(ConnectionRefusedError):
        worker.predict(jpeg)
    until(lambda: worker.control("GET", "/readyz").status == 200)
    assert worker.predict(jpeg).status == 200
    worker.process.send_signal(signal.SIGTERM)
    assert worker.wait(10) == 0


def test_open_when_ready_ends_quietly_while_starting(start_worker: Start, until: Callable[..., None]) -> None:
    worker = start_worker(
        *("--backend", "simulated", "--simulate", "fixed_ms=3000,per_image_ms=0", "--input-size", "64x64"),
        "--open-when-ready",
        wait=False,
    )
    until(lambda: "simulated accelerator" in worker.log())
    worker.process.send_signal(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert "Traceback" not in worker.log()


def test_kill_is_seen_as_a_closed_connection(start_worker: Start, jpeg: bytes) -> None:
    worker = start_worker(*SIMULATED)
    assert worker.predict(jpeg).status == 200
    worker.process.kill()
    assert worker.wait() == -signal.SIGKILL
