"""Slow clients may hold a connection only so long, and many of them take nothing from the others."""

import contextlib
import http.client
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from benchmarks import hostile

pytestmark = pytest.mark.alone

MANY = 40
MAX_CONNECTIONS = 64


@pytest.fixture
def opened() -> Iterator[Callable[..., socket.socket]]:
    """Bare connections that end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda port, raw=b"": _sent(stack.enter_context(hostile.connect(port, 15)), raw)


def _sent(raw_socket: socket.socket, raw: bytes) -> socket.socket:
    raw_socket.sendall(raw)
    return raw_socket


def _serves(worker: Any, picture: bytes) -> bool:
    """Does a new connection get an answer? One too many may be closed while it still sends."""
    try:
        return bool(worker.predict(picture).status == 200)
    except (OSError, http.client.HTTPException):
        return False


def _rest(raw_socket: socket.socket) -> bytes:
    """All that comes until the worker closes."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while part := raw_socket.recv(65536):
            received += part
    return received


@pytest.mark.parametrize("raw", [b"", b"G", b"GET /info HTTP/1.1\r\nhost: x\r\nx-a:"], ids=["silent", "a letter", "half a head"])
def test_headers_have_a_deadline(worker: Any, opened: Callable[..., socket.socket], raw: bytes) -> None:
    clients = [opened(worker.port, raw) for _ in range(MANY)]
    began_s = time.monotonic()
    assert all(_rest(client) == b"" for client in clients)
    assert time.monotonic() - began_s < 10


@pytest.mark.parametrize("raw", [b"\r\n", b"\r", b"\n\n"])
def test_line_ends_between_requests_hold_nothing(worker: Any, opened: Callable[..., socket.socket], raw: bytes) -> None:
    """They begin no request, and are no reason to keep a connection."""
    clients = [opened(worker.port, b"GET /info HTTP/1.1\r\nhost: x\r\n\r\n") for _ in range(MANY)]
    for client in clients:
        received = b""
        while not received.endswith(b"}}"):
            received += client.recv(65536)
        client.sendall(raw)
    began_s = time.monotonic()
    assert [_rest(client)[:300] for client in clients] == [b""] * MANY
    assert time.monotonic() - began_s < 10


def test_a_header_a_second_does_not_extend_it(worker: Any, opened: Callable[..., socket.socket]) -> None:
    client = opened(worker.port, b"GET /info HTTP/1.1\r\nhost: x\r\n")
    began_s = time.monotonic()
    with contextlib.suppress(OSError):
        while time.monotonic() - began_s < 12:
            client.sendall(b"x-a: b\r\n")
            client.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                if client.recv(1) == b"":
                    break
    assert time.monotonic() - began_s < 10


@pytest.mark.parametrize("start", [b"", b"\xff\xd8\xff"], ids=["no body", "three bytes"])
def test_bodies_have_a_deadline(worker: Any, opened: Callable[..., socket.socket], start: bytes) -> None:
    clients = [opened(worker.port, hostile.post_head(10_000) + start) for _ in range(MANY)]
    began_s = time.monotonic()
    for client in clients:
        answer = _rest(client)
        assert answer.startswith(b"HTTP/1.1 408 "), answer
        assert b'"body_timeout"' in answer
        assert b"connection: close" in answer
    assert time.monotonic() - began_s < 12


def test_a_trickle_is_too_slow_however_long_it_lasts(worker: Any, opened: Callable[..., socket.socket]) -> None:
    """One byte at a time, far under the least rate: out after the grace and not after the whole deadline of a body."""
    client = opened(worker.port, hostile.post_head(1_000_000))
    client.settimeout(0.1)
    began_s, answer = time.monotonic(), b""
    while not answer and time.monotonic() - began_s < 15:
        client.sendall(b"x")
        with contextlib.suppress(TimeoutError):
            answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began_s < 5


def test_a_slow_but_steady_body_is_served(worker: Any, opened: Callable[..., socket.socket], picture: bytes) -> None:
    """Longer than the grace, and above the least rate."""
    body = picture + bytes(40_000)
    client = opened(worker.port, hostile.post_head(len(body)))
    step = len(body) // 26 + 1
    for at in range(0, len(body), step):
        client.sendall(body[at : at + step])
        time.sleep(0.1)
    assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_slow_readers_are_disconnected(worker: Any, opened: Callable[..., socket.socket], until: Callable[..., None]) -> None:
    """They ask again and again, and never read: what waits for them stays bounded, and ends."""
    asked = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"
    clients = []
    for _ in range(8):
        client = opened(worker.port)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(0.2)
        with contextlib.suppress(OSError):
            for _ in range(3000):
                client.sendall(asked)
        clients.append(client)

    def gone(client: socket.socket) -> bool:
        try:
            client.sendall(b"GET")
        except TimeoutError:
            return False
        except OSError:
            return True
        return False

    until(lambda: all(gone(client) for client in clients), 20)


def test_a_flood_of_connections_is_told_and_closed(
    worker: Any, opened: Callable[..., socket.socket], picture: bytes, until: Callable[..., None]
) -> None:
    """Silent ones give way to newcomers after a second; those with a request under way do not, and then there is a 503."""
    for _ in range(MAX_CONNECTIONS * 3):
        opened(worker.port)
    until(lambda: _serves(worker, picture))
    working = [opened(worker.port, hostile.post_head(10_000)) for _ in range(MAX_CONNECTIONS)]
    answers = []
    for _ in range(20):
        client = opened(worker.port)
        client.settimeout(1)
        with contextlib.suppress(TimeoutError, ConnectionError):
            answers.append(client.recv(4096))
    told = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503 ")]
    assert told, answers
    assert b'"too_many_connections"' in told[0]
    assert b"retry-after: 1" in told[0]
    assert worker.control("GET", "/livez").status == 200
    assert worker.control("GET", "/readyz").status == 200
    for client in working:
        client.close()
    until(lambda: _serves(worker, picture))
    assert worker.metric("yolastic_requests_total", code="503") >= len(told)


def test_the_control_port_has_a_limit_of_its_own(worker: Any, opened: Callable[..., socket.socket], picture: bytes) -> None:
    for _ in range(300):
        opened(worker.control_port)
    assert worker.predict(picture).status == 200
    time.sleep(1.2)  # a connection that has been silent for a second gives way
    assert worker.control("GET", "/livez").status == 200


def test_few_large_bodies_cannot_shut_out_small_ones(worker: Any, opened: Callable[..., socket.socket], picture: bytes) -> None:
    """All the memory for bodies that large ones may take is taken, by clients who then send no more."""
    part = bytes(20 * 2**20)
    for _ in range(12):
        client = opened(worker.port, hostile.post_head(len(part) + 1))
        with contextlib.suppress(OSError):
            client.sendall(part)
    assert worker.predict(picture).status == 200
