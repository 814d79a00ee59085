"""Both load clients against a server whose behaviour is known."""

import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from benchmarks import client
from benchmarks.client import Target

pytestmark = pytest.mark.alone

_PROGRAM = client.program
"""As it is without the fixture below."""


class Server:
    """HTTP on loopback, a thread a connection; `answer(head)` gives (status, seconds until it, extra header), None: never."""

    def __init__(self, answer: Callable[[bytes], tuple[int, float, str] | None]) -> None:
        self.answer, self.heads, self.connections = answer, list[bytes](), 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError), connection.makefile("rb") as reader:
            while head := reader.readline():
                while (line := reader.readline()) != b"\r\n":
                    head += line
                reader.read(4)
                self.heads.append(head)
                told = self.answer(head)
                if told is None:
                    reader.read(1)  # until the client hangs up
                    return
                status, delay_s, extra = told
                time.sleep(delay_s)
                connection.sendall(f"HTTP/1.1 {status} X\r\n{extra}Content-Length: 2\r\n\r\nok".encode())
                if "close" in extra:
                    return


@pytest.fixture(params=["compiled", "python"], autouse=True)
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs with each client."""
    if request.param == "python":
        command = (sys.executable, str(client.ROOT / "benchmarks/client_fallback.py"))
        monkeypatch.setattr(client, "program", lambda: command)
    elif not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler")
    else:
        assert len(_PROGRAM()) == 1, "client.c compiles"


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Servers that are closed afterwards."""
    servers: list[Server] = []

    def make(answer: Callable[[bytes], tuple[int, float, str] | None]) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield make
    for server in servers:
        server.listener.close()


def test_a_closed_loop_counts_what_its_clients_got(start: Callable[..., Server]) -> None:
    server = start(lambda head: (200, 0.02, ""))
    found = client.closed_loop(Target(server.url, (b"body",)), 5, 1.0, warm_s=0.2).clean()
    assert server.connections == 5, "they keep their connections"
    assert 20 <= (found.p50_ms or 0) < 80
    assert 5 / 0.080 < found.ok_per_s <= 5 / 0.020
    assert found.useful == found.codes["200"] == pytest.approx(found.ok_per_s)


def test_an_open_loop_counts_from_the_moment_a_request_was_meant_to_be_sent(start: Callable[..., Server]) -> None:
    turn = threading.Lock()

    def serial(head: bytes) -> tuple[int, float, str]:
        with turn:
            time.sleep(0.010)
        return 200, 0.0, ""

    server = start(serial)
    first, second = client.open_loop(Target(server.url, (b"body",)), [(20, 0.5), (200, 1.0)], objective_ms=100)
    assert first.intended < 25
    assert second.intended > 150
    assert (second.max_ms or 0) > 600, "100 a second for 200: the last one waits a second, whoever measures"
    assert second.useful < second.codes["200"] == second.intended


def test_clients_without_patience_hang_up_and_say_so(start: Callable[..., Server]) -> None:
    server = start(lambda head: None)
    found = client.closed_loop(Target(server.url, (b"body",)), 4, 1.0, warm_s=0.0, patience_ms=200, told=True)
    assert not found.codes
    assert 4 * 2 <= found.hung_up <= 4 * 5
    assert b"X-Request-Timeout-Ms: 200" in server.heads[0]


def test_refused_clients_pause_and_closed_connections_are_opened_again(start: Callable[..., Server]) -> None:
    server = start(lambda head: (429, 0.0, "Connection: close\r\n"))
    found = client.closed_loop(Target(server.url, (b"body",)), 2, 1.0, warm_s=0.0, pause_ms=100)
    assert 2 * 4 <= found.codes["429"] <= 2 * 10
    assert server.connections >= found.codes["429"]
    assert found.useful == found.lost == 0
    with pytest.raises(RuntimeError, match="429"):
        found.clean()


def test_load_goes_to_loopback_only() -> None:
    with pytest.raises(ValueError, match="loopback"):
        client.closed_loop(Target("http://192.0.2.1:80", (b"body",)), 1, 1.0)
