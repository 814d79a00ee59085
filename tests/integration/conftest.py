"""Real worker processes on free ports, and probers that count every failed request."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SHAPES = ROOT / "examples/models/shapes.onnx"
TINY = ROOT / "tests/worker/data"
TOKEN = "test-token"
_POLL_S = 0.02


@dataclass(slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error's code; fails unless the body has the one shape of errors."""
        value = self.json()
        assert set(value) == {"error"}
        assert set(value["error"]) == {"code", "message", "id"}
        assert value["error"]["id"] == self.headers["x-request-id"]
        assert "/" not in value["error"]["message"] or "image/*" in value["error"]["message"]
        assert "Traceback" not in value["error"]["message"]
        return str(value["error"]["code"])


def request(port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@dataclass
class WorkerProcess:
    """A `yolastic-worker serve` that runs."""

    process: subprocess.Popen[bytes]
    log_path: Path
    control_port: int
    port: int = 0
    termination_log: Path | None = None

    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    def predict(self, body: bytes, query: str = "", content_type: str = "image/jpeg", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return request(self.port, "POST", "/predict" + query, body, {"content-type": content_type, **named})

    def control(self, method: str, path: str, value: Any = None, token: str | None = TOKEN, port: int | None = None) -> Answer:
        """One request to the control port, or to another."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return request(port or self.control_port, method, path, None if value is None else json.dumps(value).encode(), headers)

    def state(self) -> dict[str, Any]:
        value: dict[str, Any] = self.control("GET", "/state").json()
        return value

    def metrics(self) -> Callable[..., float]:
        """The figures of one moment: what sums the series of a name with these labels."""
        lines = self.control("GET", "/metrics").body.decode().splitlines()

        def metric(name: str, **labels: str) -> float:
            found = 0.0
            for line in lines:
                series, _, value = line.rpartition(" ")
                if series.split("{")[0] == name and all(f'{key}="{text}"' in series for key, text in labels.items()):
                    found += float(value)
            return found

        return metric

    def metric(self, name: str, **labels: str) -> float:
        """One of them, now."""
        return self.metrics()(name, **labels)

    def wait_ready(self, timeout_s: float = 60) -> "WorkerProcess":
        def ready() -> bool:
            assert self.process.poll() is None, self.log()
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self.control("GET", "/readyz").status == 200
            return False

        wait_for(ready, timeout_s, self.log)
        return self

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = 30) -> int:
        return self.process.wait(timeout_s)


def wait_for(happened: Callable[[], bool], timeout_s: float = 20, what: Callable[[], str] = lambda: "") -> None:
    """Until it has happened."""
    until_s = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < until_s, f"did not happen in {timeout_s} s\n{what()}"
        time.sleep(_POLL_S)


def listening_socket() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    return listener


class Workers:
    """Starts workers and ends them all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[WorkerProcess] = []
        self._token = folder / "token"
        self._token.write_text(TOKEN + "\n")

    def start(
        self,
        *flags: str | Path,
        shared: socket.socket | None = None,
        wait: bool = True,
        with_token: bool = True,
        program: tuple[str, ...] = ("-m", "yolastic_worker"),
    ) -> WorkerProcess:
        """A worker with these flags; `shared`: the listening socket of the data port, for several workers."""
        number = len(self._started)
        log_path, termination = self._folder / f"worker-{number}.log", self._folder / f"termination-{number}"
        control = listening_socket()
        inherited = [control.fileno(), *([shared.fileno()] if shared else [])]
        place = ["--fd", str(shared.fileno())] if shared else ["--host", "127.0.0.1", "--port", "0"]
        command = [
            sys.executable, *program, "serve", *place, "--control-fd", str(control.fileno()),
            "--propagation-delay-s", "0.3", "--termination-log", str(termination),
            *(["--control-token-file", str(self._token)] if with_token else []), *map(str, flags),
        ]  # fmt: skip
        environment = {key: value for key, value in os.environ.items() if not key.startswith("YOLASTIC_")}
        with log_path.open("wb") as log:
            process = subprocess.Popen(command, stderr=log, stdout=log, pass_fds=inherited, env=environment)
        worker = WorkerProcess(process, log_path, control.getsockname()[1], termination_log=termination)
        control.close()
        self._started.append(worker)
        worker.port = shared.getsockname()[1] if shared is not None else self._port_of(worker, wait=wait)
        return worker.wait_ready() if wait else worker

    @staticmethod
    def _port_of(worker: WorkerProcess, *, wait: bool) -> int:
        pattern = re.compile(r"data on \('127\.0\.0\.1', (\d+)\)")
        wait_for(lambda: pattern.search(worker.log()) is not None or worker.process.poll() is not None, what=worker.log)
        match = pattern.search(worker.log())
        assert match is not None or not wait, worker.log()
        return int(match[1]) if match is not None else 0

    def end(self) -> None:
        for worker in self._started:
            if worker.process.poll() is None:
                worker.process.kill()
            worker.process.wait(10)


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """`Workers.start`; they end with the test."""
    workers = Workers(tmp_path)
    yield workers.start
    workers.end()


@pytest.fixture(scope="module")
def module_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., WorkerProcess]]:
    """`Workers.start`; they end with the module."""
    workers = Workers(tmp_path_factory.mktemp("workers"))
    yield workers.start
    workers.end()


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    """A small photograph-like JPEG, 96x64."""
    x, y = np.meshgrid(np.linspace(0, 255, 96), np.linspace(0, 255, 64))
    pixels = np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)
    encoded: bytes = cv2.imencode(".jpg", pixels)[1].tobytes()
    return encoded


@dataclass
class Prober:
    """Sends an image at a constant rate on a keep-alive connection and counts everything that is not 200."""

    port: int
    body: bytes
    period_s: float = 0.02
    reconnect: bool = False
    """A new connection for every request, as a service without keep-alive sees it."""
    codes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "Prober":
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join(30)

    def wait_answers(self, count: int) -> None:
        """Until so many more answers have come."""
        target = self.codes.total() + count
        wait_for(lambda: self.codes.total() >= target, 30, lambda: str(self.codes))

    def assert_lossless(self) -> None:
        assert self.failures == []
        assert set(self.codes) == {"200"}

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        next_s = time.monotonic()
        while not self._stop.is_set():
            start_s = time.monotonic()
            try:
                connection.request("POST", "/predict", self.body, {"content-type": "image/jpeg"})
                answer = connection.getresponse()
                content = answer.read()
                self.codes[str(answer.status)] += 1
                if answer.status != 200:
                    self.failures.append(content.decode("utf-8", "replace"))
            except (OSError, http.client.HTTPException) as error:
                self.codes["lost"] += 1
                self.failures.append(repr(error))
                connection.close()
            if self.reconnect:
                connection.close()
            self.slowest_s = max(self.slowest_s, time.monotonic() - start_s)
            next_s += self.period_s
            self._stop.wait(max(0.0, next_s - time.monotonic()))
        connection.close()


@pytest.fixture(scope="session")
def prober() -> type[Prober]:
    return Prober


@pytest.fixture(scope="session")
def shared_socket() -> Callable[[], socket.socket]:
    """A listening socket for several workers; the caller closes it."""
    return listening_socket


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    return wait_for
