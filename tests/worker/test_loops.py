"""What goes round in the background survives an exception in what it calls."""

import asyncio
import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from yolastic_worker import control
from yolastic_worker.lifecycle import Lifecycle
from yolastic_worker.metrics import WorkerMetrics
from yolastic_worker.server import HttpServer, every
from yolastic_worker.settings import ServeSettings, parse_arguments


def test_what_is_done_every_so_often_is_done_again_after_it_failed() -> None:
    calls: list[int] = []

    async def scenario() -> None:
        again = asyncio.Event()

        async def act() -> None:
            calls.append(1)
            if len(calls) == 1:
                raise ValueError("once")
            again.set()

        async with every(0.001, act):
            await asyncio.wait_for(again.wait(), 10)

    asyncio.run(scenario())
    assert len(calls) >= 2


class _Worker:
    """A worker without a data port."""

    def __init__(self) -> None:
        settings = parse_arguments(["serve", "--backend", "simulated"])
        assert isinstance(settings, ServeSettings)
        self.settings, self.lifecycle, self.metrics, self.pipeline = settings, Lifecycle(), WorkerMetrics("test"), None

    def begin_drain(self) -> None:
        self.lifecycle.drain()

    def rebalance(self) -> None:
        pass


@contextmanager
def _listening() -> Iterator[socket.socket]:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()
        made.setblocking(False)
        yield made


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with _listening() as made:
        yield made


@pytest.fixture
def metrics_listener() -> Iterator[socket.socket]:
    with _listening() as made:
        yield made


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("failing", ["control", "metrics"])
def test_the_ports_open_again_after_one_failed(
    listener: socket.socket, metrics_listener: socket.socket, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, failures = HttpServer.start, [ValueError("once")]
    fails_at = (listener if failing == "control" else metrics_listener).getsockname()

    async def start(self: HttpServer, door: socket.socket) -> None:
        if failures and door.getsockname() == fails_at:
            raise failures.pop()
        await original(self, door)

    monkeypatch.setattr(HttpServer, "start", start)
    monkeypatch.setattr(control, "_REOPEN_S", 0.01)
    ports = listener.getsockname()[1], metrics_listener.getsockname()[1]
    thread = control.ControlThread(_Worker(), listener, metrics_listener)
    thread.start()
    try:
        assert (_status(ports[0], "/livez"), _status(ports[1], "/metrics")) == (200, 200)
        assert not failures
    finally:
        thread.stop()


def test_a_failing_handler_costs_one_answer(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ValueError("no state today")

    monkeypatch.setattr(control, "worker_state", broken)
    thread = control.ControlThread(_Worker(), listener)
    thread.start()
    try:
        port = listener.getsockname()[1]
        assert [_status(port, path) for path in ("/state", "/livez", "/state", "/readyz")] == [500, 200, 500, 503]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/state")
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        assert json.loads(body)["error"] == {
            "code": "internal", "message": "an internal error; it is in the worker's log", "id": answer.getheader("x-request-id")
        }  # fmt: skip
        start_s = time.monotonic()
    finally:
        thread.stop()
    assert time.monotonic() - start_s < 5
