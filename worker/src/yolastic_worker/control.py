"""The control port: probes, metrics, state, and what the operator tells; and the metrics port, for those who may only scrape.

They have a thread and event loop of their own, so that a full queue or a busy data port does not kill a healthy worker.
"""

import asyncio
import contextlib
import hmac
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pydantic
import uvloop
from prometheus_client import CONTENT_TYPE_LATEST

from yolastic_contract.state import CeilingGrant, DrainState
from yolastic_worker.api.http import Application, Refusal, Reply, Request, json_reply
from yolastic_worker.health import stalled
from yolastic_worker.lifecycle import Lifecycle
from yolastic_worker.limits import DEFAULT_LIMITS
from yolastic_worker.metrics import WorkerMetrics
from yolastic_worker.pipeline import Pipeline
from yolastic_worker.reservation import Reservation
from yolastic_worker.server import HttpServer, every
from yolastic_worker.settings import ServeSettings
from yolastic_worker.state import refresh_gauges, worker_state

logger = logging.getLogger(__name__)

_REOPEN_S = 0.5
_LIMITS = replace(DEFAULT_LIMITS, connections=128, header_timeout_s=10.0)
"""Probes, one operator and one Prometheus: so few connections never meet the descriptors that the data port leaves free."""
_METRICS_LIMITS = replace(_LIMITS, connections=32)
"""Connections of the metrics port are counted by themselves: whoever fills it keeps no probe out."""
_BODY_LIMIT_BYTES = 65536
_BODY_TIMEOUT_S = 5.0


class Worker(Protocol):
    """What the control port needs of the worker."""

    settings: ServeSettings
    lifecycle: Lifecycle
    metrics: WorkerMetrics
    pipeline: Pipeline | None
    reservation: Reservation | None
    """On a shared device, from before anything is loaded."""

    def begin_drain(self) -> None:
        """Start to drain; from any thread, returns at once."""
        ...

    def rebalance(self) -> None:
        """Close each open connection after its next answer; from any thread, returns at once."""
        ...


class TokenFile:
    """The bearer tokens in a file, one a line, read again when the file changes: each opens, so that one can follow another."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._tokens: tuple[bytes, ...] = ()

    def check(self, authorization: bytes) -> None:
        """Accept a right token.

        Raises:
            Refusal: 403 when there is none to compare with, 401 when it is another.
        """
        tokens = self._read()
        if not tokens:
            raise Refusal(403, "no_control_token", "start the worker with --control-token-file to allow this")
        scheme, _, told = authorization.partition(b" ")
        matches = [hmac.compare_digest(told.strip(), token) for token in tokens]
        if scheme.lower() != b"bearer" or not any(matches):
            raise Refusal(401, "unauthorized", "the bearer token is missing or wrong")

    def _read(self) -> tuple[bytes, ...]:
        if self._path is None:
            return ()
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen != self._seen:
                lines = self._path.read_bytes().splitlines()
                self._tokens, self._seen = tuple(line.strip() for line in lines if line.strip()), seen
        except OSError:
            return ()
        return self._tokens


class Control:
    """The handlers."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._token = TokenFile(worker.settings.control_token_file)

    def application(self) -> Application:
        """The routes."""
        return Application({
            "/livez": {"GET": self.livez}, "/readyz": {"GET": self.readyz}, "/metrics": {"GET": self.metrics},
            "/state": {"GET": self.state}, "/ceiling": {"PUT": self.ceiling}, "/drain": {"POST": self.drain},
            "/rebalance": {"POST": self.rebalance},
        })  # fmt: skip

    def metrics_application(self) -> Application:
        """The one route of the metrics port."""
        return Application({"/metrics": {"GET": self.metrics}})

    async def livez(self, request: Request) -> Reply:
        """200 while the worker gets on, 503 when only a restart helps."""
        worker, now_s = self._worker, time.monotonic()
        progress = worker.pipeline.progress() if worker.pipeline is not None else None
        reason = stalled(progress, now_s - worker.lifecycle.heartbeat_s, now_s)
        if worker.lifecycle.phase == "Failed":
            reason = worker.lifecycle.message
        if reason is not None:
            raise Refusal(503, "not_alive", reason)
        return json_reply({"alive": True})

    async def readyz(self, request: Request) -> Reply:
        """200 while new images are welcome."""
        phase, message = self._worker.lifecycle.phase, self._worker.lifecycle.message
        if phase != "Ready":
            raise Refusal(503, phase.lower(), message)
        return json_reply({"phase": phase})

    async def metrics(self, request: Request) -> Reply:
        """Prometheus text."""
        refresh_gauges(self._worker.metrics, self._worker.pipeline, self._worker.settings.max_batch)
        return Reply(self._worker.metrics.render(), content_type=CONTENT_TYPE_LATEST.encode())

    async def state(self, request: Request) -> Reply:
        """The contract's WorkerState."""
        worker = self._worker
        told = worker_state(worker.settings, worker.lifecycle, worker.pipeline, worker.reservation)
        return Reply(told.model_dump_json().encode())

    async def ceiling(self, request: Request) -> Reply:
        """The operator grants tiers; the answer is what they became here."""
        self._token.check(request.headers.get(b"authorization", b""))
        try:
            grant = CeilingGrant.model_validate_json(await request.body(_BODY_LIMIT_BYTES, _BODY_TIMEOUT_S))
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise Refusal(422, "bad_ceiling", f"{where}: {first['msg']}".lstrip(": ")) from error
        pipeline, reservation = self._worker.pipeline, self._worker.reservation
        if pipeline is None and reservation is not None and reservation.grant(grant):
            return Reply(reservation.ceiling(self._worker.settings.max_batch).model_dump_json().encode())
        if pipeline is None:
            raise Refusal(503, "starting", "the worker has no batch sizes yet", 1)
        return Reply(pipeline.grant(grant).model_dump_json().encode())

    async def drain(self, request: Request) -> Reply:
        """Readiness off; the answer says how much is left. Safe to repeat."""
        self._token.check(request.headers.get(b"authorization", b""))
        self._worker.begin_drain()
        inflight = self._worker.pipeline.inflight if self._worker.pipeline is not None else 0
        answer = DrainState(phase=self._worker.lifecycle.phase, inflight_images=max(0, inflight))
        return Reply(answer.model_dump_json().encode())

    async def rebalance(self, request: Request) -> Reply:
        """Connections close after their next answer, so that new workers get their share."""
        self._token.check(request.headers.get(b"authorization", b""))
        self._worker.rebalance()
        return json_reply({"rebalancing": True})


class ControlThread:
    """Serves the control port, and the metrics port where there is one, until it is stopped."""

    def __init__(self, worker: Worker, listener: socket.socket, metrics_listener: socket.socket | None = None) -> None:
        control = Control(worker)
        self._ports = [(listener, control.application(), _LIMITS)]
        if metrics_listener is not None:
            self._ports.append((metrics_listener, control.metrics_application(), _METRICS_LIMITS))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Callable[[], Any] = lambda: None
        self._started = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self) -> None:
        """Listen; returns when it does."""
        self._thread.start()
        self._started.wait(10)

    def stop(self) -> None:
        """Close the ports."""
        self._stopping = True
        if self._loop is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has just failed: it is not opened again
                self._loop.call_soon_threadsafe(self._stop)
            self._thread.join(2)

    def _run(self) -> None:
        while not self._stopping:
            try:
                with contextlib.ExitStack() as doors, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    runner.run(self._serve([doors.enter_context(listener.dup()) for listener, _, _ in self._ports]))
            except Exception:  # without this port a healthy worker would be killed
                logger.exception("the control port failed; it is opened again")
                time.sleep(_REOPEN_S)
        for listener, _, _ in self._ports:
            listener.close()

    async def _serve(self, listeners: list[socket.socket]) -> None:
        self._loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        self._stop = stopped.set
        async with contextlib.AsyncExitStack() as at_the_end:
            for listener, (_, application, limits) in zip(listeners, self._ports, strict=True):
                server = HttpServer(application, limits)
                await server.start(listener)
                at_the_end.callback(server.close_idle)
                at_the_end.callback(server.stop_accepting)
                await at_the_end.enter_async_context(every(1.0, server.tick))
            self._started.set()
            await stopped.wait()
