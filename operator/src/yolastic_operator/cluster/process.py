"""One worker as a process of this host: started, watched, restarted with a growing pause, and never left behind."""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import aiohttp

from yolastic_contract.failure import parse_failure
from yolastic_operator.model import Worker, WorkerPhase

PROBE_TIMEOUT_S: Final = 1.0
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
KILL_AFTER_S: Final = 5.0
"""Beyond its drain time-out a worker gets this long to end by itself."""
_TAIL_CHARACTERS: Final = 4096
_PR_SET_PDEATHSIG: Final = 1


class WorkerProcess:
    """A worker's process, or the pause before its next start. `command` lacks only what differs between starts."""

    def __init__(
        self,
        name: str,
        revision: str,
        command: Sequence[str],
        *,
        data_socket: socket.socket,
        termination_log: Path,
        drain_timeout_s: float,
        on_line: Callable[[str, str], None],
    ) -> None:
        self.name = name
        self.revision = revision
        self.created_s = time.time()
        self.draining = False
        self._command = command
        self._data_socket = data_socket
        self._termination_log = termination_log
        self._drain_timeout_s = drain_timeout_s
        self._on_line = on_line
        self._process: asyncio.subprocess.Process | None = None
        self._control_port = 0
        self._ready = False
        self._stopping = False
        self._failure: tuple[str, str] | None = None
        self._crashes = 0
        self._life = asyncio.create_task(self._live(), name=f"worker {name}")

    @property
    def is_over(self) -> bool:
        """It has ended and will not start again."""
        return self._life.done()

    @property
    def is_stopping(self) -> bool:
        """It was told to end."""
        return self._stopping

    @property
    def is_ready(self) -> bool:
        """It takes images."""
        return self._ready and not self.draining and not self._stopping

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self._process.pid if self._process is not None else None

    def worker(self) -> Worker:
        """The worker as the loop sees it."""
        failure = None if self.is_ready else self._failure
        return Worker(
            name=self.name,
            revision=self.revision,
            phase=self._phase(),
            created_s=self.created_s,
            address="127.0.0.1" if self._process is not None else None,
            control_port=self._control_port,
            ready=self.is_ready,
            failure_reason=None if failure is None else failure[0],
            failure_message="" if failure is None else failure[1],
            failures=self._crashes,
        )

    def stop(self) -> None:
        """SIGTERM: it drains and ends; killed when it takes longer than its drain time-out."""
        if self._stopping:
            return
        self._stopping = True
        self._signal(signal.SIGTERM)
        if self._process is None:
            self._life.cancel()

    def kill(self) -> None:
        """SIGKILL, now."""
        self._stopping = True
        self._signal(signal.SIGKILL)

    async def ended(self) -> None:
        """Wait until it has ended after `stop`."""
        done, _ = await asyncio.wait({self._life}, timeout=self._drain_timeout_s + KILL_AFTER_S)
        if not done:
            self._signal(signal.SIGKILL)
            await asyncio.wait({self._life})

    async def probe(self, session: aiohttp.ClientSession) -> None:
        """Ask `/readyz` and remember the answer."""
        process = self._process
        if process is None:
            return
        ready = False
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        try:
            async with session.get(f"http://127.0.0.1:{self._control_port}/readyz", timeout=timeout) as response:
                ready = response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            pass
        # It may have ended, or another may have started, while the answer was on its way.
        self._ready = ready and self._process is process
        if self._ready:
            self._failure, self._crashes = None, 0

    def _phase(self) -> WorkerPhase:
        if self._stopping:
            return "Terminating"
        if self._process is None:
            return "Failed" if self._failure else "Pending"
        if self.draining:
            return "Draining"
        return "Ready" if self._ready else "Starting"

    async def _live(self) -> None:
        while True:
            try:
                failure = self._why(await self._run())
            except OSError as error:
                failure = ("WorkerExited", f"cannot be started: {error}")
            if self._stopping:
                return
            self._failure = failure
            self._crashes += 1
            await asyncio.sleep(min(FIRST_PAUSE_S * 2 ** (self._crashes - 1), LONGEST_PAUSE_S))

    async def _run(self) -> int:
        """One start to its end; the exit code, negative for a signal."""
        self._termination_log.unlink(missing_ok=True)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as control:
            # Bound here, so that the port is known; not listening, and closed here, so that nobody waits at a port whose worker
            # is not there yet or no more.
            control.bind(("127.0.0.1", 0))
            self._control_port = control.getsockname()[1]
            data_fd, control_fd = self._data_socket.fileno(), control.fileno()
            process = await asyncio.create_subprocess_exec(
                *self._command,
                *("--fd", str(data_fd), "--control-fd", str(control_fd), "--termination-log", str(self._termination_log)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(data_fd, control_fd),
                # Its own session: Ctrl-C in the terminal reaches the parent alone, which then drains the workers.
                start_new_session=True,
                preexec_fn=_dies_with(os.getpid()),
            )
        self.draining = False
        self._process = process
        try:
            self._tail = ""
            assert process.stdout is not None
            await self._read(process.stdout)
            return await process.wait()
        finally:
            self._process, self._ready = None, False
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _read(self, stream: asyncio.StreamReader) -> None:
        rest = ""
        while chunk := await stream.read(65536):
            text = chunk.decode("utf-8", "replace")
            self._tail = (self._tail + text)[-_TAIL_CHARACTERS:]
            *lines, rest = (rest + text).split("\n")
            rest = rest[-_TAIL_CHARACTERS:]
            for line in lines:
                self._on_line(self.name, line)

    def _why(self, code: int) -> tuple[str, str]:
        """(reason, message) of an exit that nobody asked for; a negative code is a signal."""
        if code < 0:
            return "WorkerExited", f"ended by {signal.Signals(-code).name}"
        told = ""
        with contextlib.suppress(OSError):
            told = self._termination_log.read_text(errors="replace")
        failure = parse_failure(told) or parse_failure(self._tail)
        if failure is not None:
            return failure
        lines = [line.strip() for line in self._tail.splitlines() if line.strip()]
        return "WorkerExited", f"ended with exit code {code}" + (f": {lines[-1][:300]}" if lines else "")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


def _dies_with(parent_pid: int) -> Callable[[], None] | None:
    """A hook for the child that has the kernel kill it when the parent ends, however that ends; Linux only."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def hook() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent_pid:  # it ended before the line above
            os._exit(1)

    return hook
