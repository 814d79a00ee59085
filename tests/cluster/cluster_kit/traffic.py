"""Requests from inside the cluster: one, a steady stream that counts every failure, or as many as N clients can have."""

import base64
import json
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from cluster_kit.cluster import Cluster, CommandError, Object

PROGRAM = (Path(__file__).parent / "traffic_program.py").read_text()
PYTHON = "/opt/yolastic/venv/bin/python"
REQUEST_LIMIT_S = 20
LONGEST_S = 600
"""Traffic ends by itself after this, whatever a test does."""
_BEGIN_S = 30
"""How long a command in the pod may take beside what it waits for."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the requests."""

    sent: int
    answered: int
    """With status 200 and, where names were expected, exactly those."""
    failed: int
    failures: tuple[Object, ...]
    """The first 500: when it was sent (seconds since the begin), status (0: none came), and what was wrong."""
    codes: dict[str, int]
    p50_ms: float | None
    p95_ms: float | None
    max_ms: float | None
    began_s: float
    """On the monotonic clock of the client's node."""
    duration_s: float
    status: int
    body: str

    @property
    def answered_per_s(self) -> float:
        """Right answers a second over the whole time."""
        return self.answered / self.duration_s


def _report(output: str) -> Report:
    values = json.loads(output.splitlines()[-1])
    return Report(**(values | {"failures": tuple(values["failures"])}))


@dataclass(slots=True)
class Stream:
    """Traffic that is under way in its pod; `report` is there once it has ended.

    It hangs on no connection of `kubectl exec`: one that stands still for minutes is a failure of its own, and of nobody's here.
    """

    _client: "Client"
    _name: str
    _report: Report | None = None

    @property
    def report(self) -> Report:
        """The figures; only after the `with` block."""
        if self._report is None:
            raise RuntimeError("the traffic has not ended yet")
        return self._report

    def wait(self, timeout_s: float) -> Report:
        """Lets the traffic end by itself, at its limit, and reports."""
        return self._ended("await", timeout_s)

    def stop(self) -> Report:
        """Ends the traffic, waits for what is under way, and reports."""
        return self._report or self._ended("stop", REQUEST_LIMIT_S)

    def _ended(self, word: str, limit_s: float) -> Report:
        try:
            output = self._client.run(word, self._name, timeout_s=limit_s + _BEGIN_S)
        except CommandError as error:
            raise RuntimeError(f"the traffic broke off: {str(error)[-2000:]}") from error
        self._report = _report(output)
        return self._report


@dataclass(frozen=True, slots=True)
class Client:
    """A pod that sends requests."""

    cluster: Cluster
    namespace: str
    pod: str
    environment: dict[str, str] = field(default_factory=dict)

    def request(
        self,
        url: str,
        body: bytes = b"",
        *,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        timeout_s: float = REQUEST_LIMIT_S,
    ) -> tuple[int, str]:
        """Status and body of one request; status 0: no answer, and the body says why."""
        task = {"mode": "once", "method": method, "timeout_s": timeout_s}
        report = _report(self.run("once", given=_task(task, url, body, headers or {}), timeout_s=timeout_s + _BEGIN_S))
        return (report.status, report.body) if report.status else (0, str(report.failures[0]["problem"]))

    def get(self, url: str) -> tuple[int, str]:
        """Status and body of a GET."""
        return self.request(url, method="GET")

    def predict(
        self, url: str, image: bytes, content_type: str = "image/jpeg", timeout_s: float = REQUEST_LIMIT_S
    ) -> tuple[int, Any]:
        """Status and JSON of one image posted to a Service's /predict."""
        status, text = self.request(f"{url}/predict", image, headers={"Content-Type": content_type}, timeout_s=timeout_s)
        return status, json.loads(text) if text.startswith("{") else text

    @contextmanager
    def prober(
        self,
        url: str,
        image: bytes,
        *,
        rate_per_s: float,
        connection: Literal["new", "keep-alive"] = "new",
        expect_names: Sequence[str] | None = None,
        connect_retries: int = 0,
    ) -> Iterator[Stream]:
        """A constant rate to /predict until the block ends; every request that is not answered rightly is a failure.

        With `connect_retries` a refused connection, on which nothing was sent, is tried again so often.
        """
        task: Object = {"mode": "probe", "rate_per_s": rate_per_s, "connection": connection, "timeout_s": REQUEST_LIMIT_S}
        task["connect_retries"] = connect_retries
        if expect_names is not None:
            task["expect_names"] = list(expect_names)
        with self._stream(task, f"{url}/predict", image, {"Content-Type": "image/jpeg"}) as stream:
            yield stream

    @contextmanager
    def load(self, url: str, image: bytes, *, clients: int, limit_s: float) -> Iterator[Stream]:
        """A closed loop of clients to /predict until the block ends or `limit_s` is over."""
        task = {"mode": "load", "clients": clients, "limit_s": limit_s, "timeout_s": REQUEST_LIMIT_S}
        with self._stream(task, f"{url}/predict", image, {"Content-Type": "image/jpeg"}) as stream:
            yield stream

    @contextmanager
    def _stream(self, task: Object, url: str, body: bytes, headers: dict[str, str]) -> Iterator[Stream]:
        stream = Stream(self, uuid.uuid4().hex)
        self.run("start", stream._name, given=_task(task, url, body, headers), timeout_s=_BEGIN_S)
        try:
            yield stream
        finally:
            stream.stop()

    def run(self, *words: str, given: str | None = None, timeout_s: float) -> str:
        """What the program in the pod prints; it is asked once more where the connection to it stands still."""
        command = [PYTHON, "-u", "-c", PROGRAM, *words]
        try:
            return self.cluster.exec(self.namespace, self.pod, *command, stdin=given, timeout_s=timeout_s)
        except subprocess.TimeoutExpired:
            return self.cluster.exec(self.namespace, self.pod, *command, stdin=given, timeout_s=timeout_s)


def _task(task: Object, url: str, body: bytes, headers: dict[str, str]) -> str:
    parts = urlsplit(url)
    path = parts.path or "/"
    target = {"host": parts.hostname, "port": parts.port or 80, "path": f"{path}?{parts.query}" if parts.query else path}
    full = {"limit_s": LONGEST_S, **task, **target, "headers": headers, "body_b64": base64.b64encode(body).decode()}
    return json.dumps(full) + "\n"
