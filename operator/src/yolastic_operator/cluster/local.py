"""A cluster on this host: workers are processes that inherit one listening socket, so nothing that waits in it is lost."""

import asyncio
import contextlib
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

import aiohttp

from yolastic_contract.runtime import RuntimeSpec
from yolastic_contract.state import CeilingGrant, WorkerState
from yolastic_operator.act.arguments import worker_arguments
from yolastic_operator.cluster.base import Event, RefusedError
from yolastic_operator.cluster.control import ControlClient
from yolastic_operator.cluster.process import WorkerProcess
from yolastic_operator.model import Fleet, Ref, Worker, Workload

BACKLOG: Final = 1024
"""Connections that may wait while no worker accepts."""
KEEP_S: Final = 0.2
"""How often processes are probed and brought to the ordered size, seconds."""
BUILT_IN_RUNTIMES: Final[Mapping[str, RuntimeSpec]] = {"cpu": RuntimeSpec(image="none", backend="OnnxRuntime", device="cpu")}

_HERE: Final = ("--propagation-delay-s", "2")
"""Nobody needs to be told that a worker goes but the clients that are connected to it."""


class Listener:
    """Hears what happens, as it happens; override what is of interest. Calls must return at once."""

    def event(self, event: Event) -> None:
        """An event on the inference."""

    def status(self, status: dict[str, Any]) -> None:
        """A status was written."""

    def worker_line(self, worker: str, line: str) -> None:
        """A worker printed a line."""


class LocalCluster:
    """Runs one inference. Use as an async context manager: at its end every worker has drained and ended.

    Raises OSError on entry when the port cannot be bound. `port` 0 takes a free one; see `address`. `api_keys`: by the name of
    their Secret, the lines of API keys.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        runtimes: Mapping[str, RuntimeSpec] | None = None,
        api_keys: Mapping[str, str] | None = None,
        listener: Listener | None = None,
        control_timeout_s: float = 2.0,
        worker_command: Sequence[str] = (sys.executable, "-m", "yolastic_worker"),
    ) -> None:
        self._bind = (host, port)
        self._runtimes = {**BUILT_IN_RUNTIMES, **(runtimes or {})}
        self._api_keys = dict(api_keys or {})
        self._listener = listener or Listener()
        self._control_timeout_s = control_timeout_s
        self._worker_command = tuple(worker_command)
        self._workers: dict[str, WorkerProcess] = {}
        self._workload: Workload | None = None
        self._replicas: int | None = None
        self._made = 0
        self._closing = False
        self.statuses: dict[str, Any] = {}
        """The status written last."""
        self.events: list[Event] = []
        """The last 100."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that clients send images to."""
        name: tuple[str, int] = self._socket.getsockname()[:2]
        return name

    async def __aenter__(self) -> Self:
        self._socket = _listen(*self._bind)
        self._folder = Path(tempfile.mkdtemp(prefix="yolastic-"))
        self._token = secrets.token_urlsafe(32)
        self._token_file = self._folder / "token"
        self._token_file.touch(mode=0o600)
        self._token_file.write_text(self._token)
        for name, lines in self._api_keys.items():
            file = self._api_keys_file(name)
            file.touch(mode=0o600)
            file.write_text(lines, "utf-8")
        self._session = aiohttp.ClientSession()
        self._control = ControlClient(self._session, self._control_timeout_s)
        self._keeper = asyncio.create_task(self._keep(), name="keep workers")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing = True
        self._keeper.cancel()
        # First the socket, so that a client is refused at once instead of waiting for workers that go.
        self._socket.close()
        for process in self._workers.values():
            process.stop()
        await asyncio.gather(*(process.ended() for process in self._workers.values()))
        await asyncio.gather(self._keeper, return_exceptions=True)
        await self._session.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def abandon(self) -> None:
        """For a process that is about to end without leaving the context: kill the workers, leave no file behind."""
        for process in self._workers.values():
            process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def runtime(self, name: str) -> RuntimeSpec | None:
        """A built-in runtime, or one that was given."""
        return self._runtimes.get(name)

    async def ensure(self, workload: Workload, replicas: int) -> None:
        """Remember what to run; workers of another revision are replaced one after the other, as its manner says."""
        model_path(workload.spec.model.uri)
        secret = workload.spec.api_keys_secret_name
        if secret is not None and secret not in self._api_keys:
            raise RefusedError("SecretNotFound", f"spec.apiKeysSecretName: there is no Secret {secret} here")
        self._workload = workload
        if self._replicas is None:
            self._replicas = replicas
        self._settle(())

    async def fleet(self, ref: Ref) -> Fleet:
        """The processes."""
        workers = tuple(process.worker() for process in self._workers.values() if not process.is_over)
        if self._workload is None:
            return Fleet(self._replicas, workers)
        told = self._workload
        return Fleet(self._replicas, workers, told.revision, told.manner, told.record, unplaced=told.unplaced)

    async def scale(self, ref: Ref, replicas: int, victims: Sequence[str]) -> None:
        """Order a size; victims get SIGTERM first."""
        self._replicas = replicas
        self._settle(victims)

    async def url(self, ref: Ref) -> str:
        """Where clients send images."""
        host, port = self.address
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def state(self, ref: Ref, worker: Worker) -> WorkerState:
        """`GET /state`."""
        return await self._control.state(_base_url(worker))

    async def grant(self, ref: Ref, worker: Worker, grant: CeilingGrant) -> None:
        """`PUT /ceiling`."""
        await self._control.grant(_base_url(worker), self._token, grant)

    async def drain(self, ref: Ref, worker: Worker) -> None:
        """`POST /drain`."""
        await self._control.drain(_base_url(worker), self._token)
        if worker.name in self._workers:
            self._workers[worker.name].draining = True

    async def rebalance(self, ref: Ref, worker: Worker) -> None:
        """`POST /rebalance`."""
        await self._control.rebalance(_base_url(worker), self._token)

    async def write_status(self, ref: Ref, status: dict[str, Any]) -> None:
        """Keep it in memory and tell the listener."""
        self.statuses = status
        self._listener.status(status)

    async def post_event(self, ref: Ref, event: Event) -> None:
        """Keep it in memory and tell the listener."""
        self.events = [*self.events, event][-100:]
        self._listener.event(event)

    async def _keep(self) -> None:
        while True:
            await asyncio.gather(*(process.probe(self._session) for process in self._workers.values()))
            self._settle(())
            await asyncio.sleep(KEEP_S)

    def _settle(self, victims: Sequence[str]) -> None:
        """Bring the processes to the ordered size and revision, as the Deployment does."""
        self._workers = {name: process for name, process in self._workers.items() if not process.is_over}
        if self._workload is None or self._replicas is None or self._closing:
            return
        revision = self._workload.revision
        live = [process for process in self._workers.values() if not process.is_stopping]
        old = [process for process in live if process.revision != revision]
        surges = self._workload.manner == "Surge"
        allowed = self._replicas + 1 if old and self._replicas and surges else self._replicas
        live.sort(key=lambda process: (process.name not in victims, process.is_ready, -process.created_s))
        for process in live[: max(len(live) - allowed, 0)]:
            process.stop()
        live = [process for process in live if not process.is_stopping]
        # One by one a device is free only when the process that had it has ended.
        there = len(live) if surges else len(self._workers)
        live += [self._start(self._workload) for _ in range(self._replicas - there)]
        old = [process for process in live if process.revision != revision]
        new = [process for process in live if process.revision == revision]
        idle = [process for process in old if not process.is_ready]
        if not surges:
            ready = sum(process.is_ready for process in live)
            complete = len(live) == self._replicas and ready >= self._replicas - self._workload.unplaced
            for process in idle[:1] or (old[:1] if complete else []):
                process.stop()
        elif old and all(process.is_ready for process in new):
            if len(live) > self._replicas:
                (idle or old)[0].stop()
            if len(new) < self._replicas:
                self._start(self._workload)

    def _api_keys_file(self, secret: str) -> Path:
        return self._folder / f"{secret}.keys"

    def _start(self, workload: Workload) -> WorkerProcess:
        self._made += 1
        name = f"{workload.ref.name}-{self._made}"
        arguments = worker_arguments(workload.ref.name, workload.spec, workload.runtime, model_path(workload.spec.model.uri))
        if workload.spec.api_keys_secret_name is not None:
            arguments += ["--api-keys-file", str(self._api_keys_file(workload.spec.api_keys_secret_name))]
        process = WorkerProcess(
            name,
            workload.revision,
            [*self._worker_command, *arguments, *_HERE, "--control-token-file", str(self._token_file)],
            data_socket=self._socket,
            termination_log=self._folder / f"{name}.end",
            drain_timeout_s=workload.spec.drain.timeout_seconds,
            on_line=self._listener.worker_line,
        )
        self._workers[name] = process
        return process


def model_path(uri: str) -> str:
    """The file a `file:///` URI names.

    Raises:
        RefusedError: it is no such URI.
    """
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc:
        raise RefusedError("UriNotAllowed", f"spec.model.uri: on this host it must be a file:// URI, not {uri}")
    return unquote(parts.path)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError:
        with contextlib.suppress(OSError):
            listening.close()
        raise
    return listening


def _base_url(worker: Worker) -> str:
    return f"http://{worker.address}:{worker.control_port}"
