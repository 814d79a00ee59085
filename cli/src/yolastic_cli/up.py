"""`yolastic up`: runs a YoloInference on this host, and says what happens in plain lines."""

import argparse
import asyncio
import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from yolastic_cli import running as sockets
from yolastic_cli.documents import LocalInference, load
from yolastic_cli.errors import CliError
from yolastic_cli.local_run import LocalRun
from yolastic_contract.failure import REASONS
from yolastic_operator.cluster.base import Event
from yolastic_operator.cluster.local import Listener

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h)?$")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


HELP = "run a YoloInference on this host without Kubernetes: same loop, same worker"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-f", "--file", type=Path, required=True, help="YAML with a YoloInference and, if need be, YoloRuntimes")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default: %(default)s, this host alone)")
    parser.add_argument("--port", type=port, default=8000, help="port to serve on; 0 takes a free one (default: %(default)s)")
    parser.add_argument("--for", dest="for_s", type=duration, metavar="TIME", help="end by itself after 60s, 5m, 1h")
    parser.add_argument(
        "--turn", dest="turn_s", type=turn, default=1.0, metavar="TIME", help="between two decisions (default: 1s)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show the lines of the workers, too")
    parser.set_defaults(run=run)


def port(text: str) -> int:
    """A port number."""
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port from 0 to 65535")
    return int(text)


def duration(text: str) -> float:
    """Seconds of `60s`, `500ms`, `5m`, `1h` or a plain number of seconds."""
    match = _DURATION.match(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text} is not a time such as 60s, 5m or 1h")
    return float(match[1]) * _UNITS_S[match[2] or "s"]


def duration_within(text: str, least: str, most: str) -> float:
    """Seconds of a duration that is neither shorter nor longer than these."""
    value_s = duration(text)
    if not duration(least) <= value_s <= duration(most):
        raise argparse.ArgumentTypeError(f"{text} is not a time from {least} to {most}")
    return value_s


def turn(text: str) -> float:
    """A duration that a loop can keep."""
    return duration_within(text, "100ms", "60s")


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C, SIGTERM or the end of `--for`; the exit code."""
    inference = load(arguments.file)
    return asyncio.run(_serve(inference, arguments))


class Narrator(Listener):
    """Prints what happens; notices when the workers cannot start at all."""

    def __init__(self, *, verbose: bool) -> None:
        self._verbose = verbose
        self.ready = asyncio.Event()
        self.hopeless: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why no worker can ever start: a reason that another attempt does not change."""

    def event(self, event: Event) -> None:
        """Say it, with the time."""
        say(f"{time.strftime('%H:%M:%S')}  {event.reason}: {event.message}")

    def status(self, status: dict[str, Any]) -> None:
        """Look for the first worker that is ready, or for the failure that keeps all of them from it."""
        if status.get("readyReplicas"):
            self.ready.set()
        for condition in status.get("conditions", []):
            if condition["type"] in {"ModelLoaded", "MemoryBudgetResolved", "Ready"} and condition["status"] == "False":
                final = condition["reason"] in REASONS
                if final and not self.ready.is_set() and not self.hopeless.done():
                    self.hopeless.set_result(condition["message"])

    def worker_line(self, worker: str, line: str) -> None:
        """Pass it on when it was asked for."""
        if self._verbose:
            say(f"[{worker}] {line}")


def say(text: str) -> None:
    """A line on stdout, at once; a reader that is gone does not matter."""
    with suppress(BrokenPipeError):
        print(text, flush=True)


async def _serve(inference: LocalInference, arguments: argparse.Namespace) -> int:
    narrator, stopped = Narrator(verbose=arguments.verbose), asyncio.Event()
    began_s = time.monotonic()
    async with (
        LocalRun(inference, host=arguments.host, port=arguments.port, turn_s=arguments.turn_s, listener=narrator) as running,
        sockets.answering(inference.ref, running.url, lambda: running.cluster.statuses) as silent,
    ):
        if silent is not None:
            say(f"`yolastic explain` will not find this: {silent}")

        def abandon() -> None:
            running.cluster.abandon()
            sockets.vanish()

        _stop_on_signals(stopped, abandon)
        say(f"{inference.ref.name}: {_size(inference)} of {inference.model.name} on runtime {inference.spec.runtime}, starting")
        ending = asyncio.ensure_future(stopped.wait())
        broken = asyncio.ensure_future(running.failed())
        welcome = asyncio.create_task(_welcome(narrator, running.url, guarded=inference.spec.api_keys_secret_name is not None))
        try:
            endings: set[asyncio.Future[Any]] = {ending, broken, narrator.hopeless}
            await asyncio.wait(endings, timeout=arguments.for_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (ending, welcome):
                task.cancel()
        if broken.done():
            broken.result()
        broken.cancel()
        if narrator.hopeless.done():
            raise CliError(narrator.hopeless.result())
        say("draining")
    say(f"ended after {time.monotonic() - began_s:.0f} s, every worker drained")
    return 0


async def _welcome(narrator: Narrator, url: str, *, guarded: bool) -> None:
    await narrator.ready.wait()
    key = "-H 'Authorization: Bearer KEY' " if guarded else ""
    say(f"serving on {url}; try: curl {key}-F file=@IMAGE.jpg {url}/predict")


def _size(inference: LocalInference) -> str:
    autoscaling = inference.spec.autoscaling
    if autoscaling is not None:
        return f"{autoscaling.min_replicas} to {autoscaling.max_replicas} workers"
    replicas = 1 if inference.spec.replicas is None else inference.spec.replicas
    return f"{replicas} worker{'' if replicas == 1 else 's'}"


def _stop_on_signals(stopped: asyncio.Event, abandon: Callable[[], None]) -> None:
    """The first signal drains; the second ends at once, workers and all."""

    def handle() -> None:
        if stopped.is_set():
            abandon()
            os._exit(130)
        stopped.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, handle)
