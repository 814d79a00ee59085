"""`yolastic-worker serve`: puts the rooms together and orders their opening and closing."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import uvloop

from yolastic_contract.state import CeilingGrant
from yolastic_worker import __version__
from yolastic_worker.allocator import keep_freed_memory
from yolastic_worker.api.app import data_application
from yolastic_worker.api.keys import open_gate
from yolastic_worker.api.remote import Remote, RemoteLimits
from yolastic_worker.batcher import BatchRules, Window
from yolastic_worker.control import ControlThread
from yolastic_worker.decode import DecodePool
from yolastic_worker.engine.base import Engine
from yolastic_worker.engine.simulated import SimulatedEngine
from yolastic_worker.lifecycle import ExitCode, Lifecycle
from yolastic_worker.limits import fit_descriptors
from yolastic_worker.metrics import WorkerMetrics
from yolastic_worker.pipeline import Pipeline
from yolastic_worker.reservation import Reservation, needs_of
from yolastic_worker.server import HttpServer, bind, every
from yolastic_worker.settings import ServeSettings
from yolastic_worker.types import DeviceLost, Image, WorkerFailure
from yolastic_worker.warmup import warm_up

logger = logging.getLogger(__name__)

_SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter from the engine thread; Python's own 5 ms would cost that at every batch."""
_QUIET_POLL_S = 0.02
_GOODBYE_S = 1.0


def load_engine(settings: ServeSettings) -> Engine:
    """The engine the settings ask for.

    Raises:
        WorkerFailure: why it cannot be had.
    """
    model: Engine | None = None
    if settings.model is not None:
        from yolastic_worker.engine.onnxruntime import OnnxOptions, OnnxRuntimeEngine  # noqa: PLC0415 - half a second of import

        model = OnnxRuntimeEngine(
            OnnxOptions(
                model=settings.model,
                sha256=settings.model_sha256,
                task=settings.task,
                input_size=settings.input_size,
                device=settings.device,
                threads=settings.threads,
                max_batch=settings.max_batch,
                memory_limit_bytes=settings.memory_limit_bytes,
                fixed_up_to=settings.cuda_graphs,
                planned=settings.backend != "simulated",
            )
        )
    if settings.backend == "simulated":
        return SimulatedEngine(settings.simulation, model, settings.input_size)
    assert model is not None
    return model


def within(settings: ServeSettings, grant: CeilingGrant) -> ServeSettings:
    """The settings to start with on a shared device: no batch and no memory beyond what was granted."""
    limits = [limit for limit in (settings.memory_limit_bytes, grant.budget_bytes) if limit is not None]
    return replace(settings, max_batch=min(settings.max_batch, grant.ceiling), memory_limit_bytes=min(limits, default=None))


class Worker:
    """One worker process."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.lifecycle = Lifecycle()
        self.metrics = WorkerMetrics(settings.name)
        self.gate = open_gate(settings.api_keys_file)
        self.remote = Remote(settings.url_hosts, RemoteLimits(settings.limits.body_bytes, settings.url_timeout_s))
        self.pipeline: Pipeline | None = None
        self.reservation: Reservation | None = None
        self._pool = DecodePool(settings.decode_threads, settings.limits.decode_bytes, settings.queue_length // 2)
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop
        self._server: HttpServer
        self._signalled: asyncio.Event
        self._ended: asyncio.Event
        self._loaded: asyncio.Event

    # --- from any thread

    def begin_drain(self) -> None:
        """As `control.Worker.begin_drain`."""
        if self.lifecycle.drain():
            logger.info("draining")
            self._loop.call_soon_threadsafe(self._leave)

    def rebalance(self) -> None:
        """As `control.Worker.rebalance`."""
        self._loop.call_soon_threadsafe(lambda: self._server.close_after_answer(newcomers=False))

    def _deliver(self, images: Sequence[Image]) -> None:
        pipeline = self.pipeline
        if pipeline is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                self._loop.call_soon_threadsafe(pipeline.answered, images)

    # --- the engine thread

    def _engine_thread(self) -> None:
        try:
            self._start_engine()
        except BaseException as error:
            self._failure = error
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ended.set)

    def _start_engine(self) -> None:
        own = self.settings
        grant = self._reserved()
        settings = own if grant is None else within(own, grant)
        engine = load_engine(settings)
        if engine.info.simulated is not None:
            logger.warning("%s", engine.info.simulated)
        self.lifecycle.warming_up()
        warmth = warm_up(engine, settings.max_batch, settings.memory_limit_bytes, self._signalled.is_set)
        rules = BatchRules(
            window=Window(settings.window), max_delay_s=settings.max_delay_s, eager_size=settings.eager_size,
            shared=settings.shared, objective_s=settings.objective_s, pad_to_buckets=engine.info.pad_to_buckets,
            buckets=warmth.buckets,
        )  # fmt: skip
        if grant is not None:  # what was granted to start with is not what the device has, or what this worker may ever use
            source: Literal["Declared", "Device"] = "Device" if own.memory_limit_bytes is None else "Declared"
            limit_bytes = warmth.device_bytes if own.memory_limit_bytes is None else own.memory_limit_bytes
            warmth = replace(warmth, limit_bytes=limit_bytes, limit_source=source)
        pipeline = Pipeline(
            engine, warmth, rules, queue_length=settings.queue_length, drop_oldest=settings.overflow == "drop-oldest",
            metrics=self.metrics, deliver=self._deliver, failed=self.lifecycle.fail,
        )  # fmt: skip
        if grant is not None:
            pipeline.grant(grant)
        self.pipeline = pipeline
        self._loop.call_soon_threadsafe(self._loaded.set)
        pipeline.run()
        if pipeline.lost is not None:
            raise pipeline.lost

    def _reserved(self) -> CeilingGrant | None:
        """On a shared device: what was granted for the start; None: nobody has to be asked."""
        needs = needs_of(self.settings)
        if needs is None:
            return None
        self.reservation = Reservation(needs)
        self.lifecycle.waiting()
        logger.info("waiting for memory of the shared device %s", needs.device_id)
        grant = self.reservation.wait()
        self.lifecycle.loading()
        return grant

    # --- the event loop

    async def run(self, listener: socket.socket, control: socket.socket, metrics: socket.socket | None) -> ExitCode:
        """Serve until a signal or a failure; the exit code. `metrics`: of the metrics port, if there is one."""
        self._loop = asyncio.get_running_loop()
        self._signalled, self._ended, self._loaded = asyncio.Event(), asyncio.Event(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._signalled.set)
        limits = self.settings.limits
        connections = fit_descriptors(limits.connections)
        if connections < limits.connections:
            logger.warning("no more than %d connections: the system allows no more open files", connections)
        application = data_application(self, self._pool)
        self._server = HttpServer(application, replace(limits, connections=connections), self.metrics.answered)
        control_thread = ControlThread(self, control, metrics)
        control_thread.start()
        if not self.settings.open_when_ready:  # whom a shared socket or a Service sends here, another worker could serve at once
            await self._server.start(listener)
        engine_thread = threading.Thread(target=self._engine_thread, name="engine", daemon=True)
        engine_thread.start()
        async with every(1.0, self._tick):
            code = await self._live(listener)
        await asyncio.to_thread(control_thread.stop)
        if self.pipeline is not None:
            self.pipeline.stop()
            await asyncio.to_thread(engine_thread.join, 5)
        return code

    async def _live(self, listener: socket.socket) -> ExitCode:
        loaded = await self._first(self._loaded, self._signalled, self._ended)
        if loaded is self._ended:
            return self._failed()
        _set_aside_what_stays()
        if loaded is self._loaded and self.lifecycle.ready():
            if self.settings.open_when_ready:
                await self._server.start(listener)
            logger.info("ready after %.2f s, batches of up to %d", self.lifecycle.ready_after_s, self._largest())
        if await self._first(self._signalled, self._ended) is self._ended:
            code = self._failed()
            await self._say_goodbye()
            return code
        self.begin_drain()
        await self._drained()
        if not self._ended.is_set() or self._failure is None:
            return ExitCode.DRAINED
        code = self._failed()
        await self._say_goodbye()
        return code

    def _largest(self) -> int:
        return self.pipeline.warmth.largest if self.pipeline is not None else 0

    @staticmethod
    async def _first(*events: asyncio.Event) -> asyncio.Event:
        """The first of the events that is set; of several the one named last."""
        tasks = [asyncio.ensure_future(event.wait()) for event in events]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        return next(event for event in reversed(events) if event.is_set())

    async def _tick(self) -> None:
        self.lifecycle.heartbeat_s = time.monotonic()
        await self._server.tick()

    def _leave(self) -> None:
        """A drain began: answers close their connections; a shared socket is left to the other workers at once."""
        self._server.close_after_answer(newcomers=True)
        if self.settings.fd is not None:
            self._server.stop_accepting()

    async def _drained(self) -> None:
        """Go on accepting until everybody knows, then finish what was accepted."""
        shared = self.settings.fd is not None
        began_s = self.lifecycle.draining_since_s or time.monotonic()
        while time.monotonic() < began_s + self.settings.propagation_delay_s and not self._ended.is_set():
            if (shared and not self._server.open_connections) or self.lifecycle.ready_after_s is None:
                break
            await asyncio.sleep(_QUIET_POLL_S)
        self._server.stop_accepting()
        until_s = time.monotonic() + self.settings.drain_timeout_s
        while time.monotonic() < until_s and not self._ended.is_set():
            self._server.close_idle()
            await asyncio.sleep(_QUIET_POLL_S)  # also for a connection that was accepted but a moment ago to show itself
            if not self._server.open_connections:
                logger.info("drained")
                return
        logger.warning("%d connections were still open when the drain ended", self._server.open_connections)

    async def _say_goodbye(self) -> None:
        """After a failure: let the answers out that say so."""
        self._leave()
        self._server.stop_accepting()
        until_s = time.monotonic() + _GOODBYE_S
        while self._server.open_connections and time.monotonic() < until_s:
            self._server.close_idle()
            await asyncio.sleep(_QUIET_POLL_S)

    def _failed(self) -> ExitCode:
        error = self._failure
        self.lifecycle.fail(str(error) or "the engine ended")
        if isinstance(error, WorkerFailure):
            raise error
        if isinstance(error, DeviceLost):
            return ExitCode.DEVICE_LOST
        logger.error("the engine ended: %r", error, exc_info=error)
        return ExitCode.INTERNAL


def _set_aside_what_stays() -> None:
    """Take all that was loaded out of the garbage collector's sight: it stays until the end.

    Looking through those 60,000 objects in a full collection stopped every thread for 40 ms, in the middle of a burst of requests
    as a rule, for it is requests that set it off; what they leave behind is looked through in 3 ms.
    """
    gc.collect()
    gc.freeze()


def _listener(host: str, port: int, fd: int | None, flag: str) -> socket.socket:
    try:
        listener = socket.socket(fileno=fd) if fd is not None else bind(host, port)
        listener.setblocking(False)
    except OSError as error:
        where = f"{flag}fd {fd}" if fd is not None else f"{host}:{port}"
        raise WorkerFailure("BadConfiguration", f"cannot listen on {where}: {error.strerror}") from error
    return listener


def serve(settings: ServeSettings) -> ExitCode:
    """Serve until the end.

    Raises:
        WorkerFailure: the worker cannot start, or its device was lost, and why.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    keep_freed_memory()
    # Those that listen at once come first: a port that is only bound could be bound again, with nobody ever reaching the second.
    control = _listener(settings.control_host, settings.control_port, settings.control_fd, "--control-")
    control.listen()
    metrics = None
    if settings.metrics_port is not None:
        metrics = _listener(settings.control_host, settings.metrics_port, None, "--metrics-")
        metrics.listen()
    listener = _listener(settings.host, settings.port, settings.fd, "--")
    logger.info("yolastic-worker %s: data on %s, control on %s", __version__, listener.getsockname(), control.getsockname())
    if metrics is not None:
        logger.info("metrics alone on %s", metrics.getsockname())
    worker = Worker(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(worker.run(listener, control, metrics))
    if code is ExitCode.DEVICE_LOST:
        raise WorkerFailure("DeviceLost", worker.lifecycle.message)
    return code
