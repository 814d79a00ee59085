"""Processes that stand still: SIGSTOP, as it holds and not as it was sent."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WITHIN_S = 10.0


def stop(pid: int) -> None:
    """Stops a process and returns when it stands: a thread on another core may run on after `kill` has returned, and answer.

    Raises:
        AssertionError: it still runs after WITHIN_S.
    """
    os.kill(pid, signal.SIGSTOP)
    deadline_s = time.monotonic() + WITHIN_S
    while not _stands(pid):
        assert time.monotonic() < deadline_s, f"process {pid} does not stop"
        time.sleep(0.001)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Nothing of it happens until the block ends."""
    try:
        stop(pid)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _stands(pid: int) -> bool:
    """Whether every thread is in state T (proc_pid_stat(5); what a thread is called may hold spaces and brackets)."""
    try:
        stats = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
        return False
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)
