"""Load from a process of its own: the compiled client (client.c), or client_fallback.py where no compiler is there."""

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "yolastic"
TELL_HEADER = "X-Request-Timeout-Ms"
_SLACK_S = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go, and what they are."""

    url: str
    """`http://HOST:PORT`; load goes to loopback only."""
    bodies: tuple[bytes, ...]
    """Sent in turn."""
    path: str = "/predict"
    content_type: str = "image/jpeg"
    headers: tuple[str, ...] = ()
    """`Name: value` each."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one phase of a load got. Latencies run from the moment a request was meant to be sent; None: there were none."""

    seconds: float
    intended: int
    ok_per_s: float
    """Answers 200 a second."""
    useful: int
    """Answers 200 within the objective, else within the patience, else all."""
    useful_per_s: float
    hung_up: int
    """Clients whose patience ended."""
    lost: int
    """Connections that ended without an answer."""
    unsent: int
    """Open loop: patience ended before a connection was free."""
    unanswered: int
    """Open loop: no answer 10 s after the end."""
    codes: dict[str, int]
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    refused_p50_ms: float | None
    refused_p95_ms: float | None
    refused_p99_ms: float | None
    refused_max_ms: float | None

    @property
    def answered(self) -> int:
        """Answers of any status."""
        return sum(self.codes.values())

    def clean(self) -> "Outcome":
        """Itself, when nothing but 200 came back.

        Raises:
            RuntimeError: a request failed; a figure with failures in it is none.
        """
        if set(self.codes) != {"200"} or self.lost or self.unanswered:
            raise RuntimeError(f"requests failed: {self.codes}, lost {self.lost}, unanswered {self.unanswered}")
        return self


@functools.cache
def program() -> tuple[str, ...]:
    """The client's command: compiled once into the cache, else the Python one."""
    source = ROOT / "benchmarks/client.c"
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    built = CACHE / "bench" / f"client-{hashlib.blake2b(source.read_bytes(), digest_size=8).hexdigest()}"
    if not built.exists() and compiler:
        built.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=built.parent, delete=False) as file:
            made = Path(file.name)
        done = subprocess.run([compiler, "-O2", "-o", str(made), str(source), "-lm"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            made.rename(built)
        else:
            made.unlink(missing_ok=True)
            print(f"client.c does not compile here, Python instead: {done.stderr[-300:]}", flush=True)
    return (str(built),) if built.exists() else (sys.executable, str(ROOT / "benchmarks/client_fallback.py"))


def client_words() -> str:
    """Which client makes the load, in words."""
    return "compiled client (client.c)" if len(program()) == 1 else "Python client (client_fallback.py; no C compiler here)"


def _run(target: Target, arguments: Sequence[str], told_ms: float | None, limit_s: float) -> dict[str, Any]:
    parts = urlsplit(target.url)
    if parts.hostname != "127.0.0.1":
        raise ValueError(f"load goes to loopback only, not to {parts.hostname}")
    headers = [*target.headers, *([f"{TELL_HEADER}: {told_ms:.0f}"] if told_ms else [])]
    with ExitStack() as stack:
        command = [
            *program(),
            "--host",
            "127.0.0.1",
            "--port",
            str(parts.port),
            "--path",
            target.path,
            "--type",
            target.content_type,
        ]
        for body in target.bodies:
            file = stack.enter_context(tempfile.NamedTemporaryFile())
            file.write(body)
            file.flush()
            command += ["--body", file.name]
        for header in headers:
            command += ["--header", header]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=limit_s)
    if done.returncode:
        raise RuntimeError(f"the client failed: {done.stderr[-500:]}")
    return dict(json.loads(done.stdout))


def closed_loop(
    target: Target,
    clients: int,
    seconds: float,
    *,
    warm_s: float = 1.5,
    patience_ms: float | None = None,
    told: bool = False,
    pause_ms: float = 0.0,
) -> Outcome:
    """So many clients, each sending its next request when it has its answer; measured after `warm_s`.

    `patience_ms`: a client hangs up after so long and comes again at once; `told`: it says so in `X-Request-Timeout-Ms`.
    `pause_ms`: after any answer but 200.
    """
    arguments = ["--mode", "closed", "--clients", str(clients), "--seconds", str(seconds), "--warm", str(warm_s)]
    if patience_ms is not None:
        arguments += ["--patience-ms", str(patience_ms)]
    arguments += ["--pause-ms", str(pause_ms)]
    told_ms = patience_ms if told else None
    return Outcome(**_run(target, arguments, told_ms, seconds + warm_s + _SLACK_S)["phases"][0])


def open_loop(
    target: Target,
    phases: Sequence[tuple[float, float]],
    *,
    seed: int = 7,
    patience_ms: float | None = None,
    told: bool = False,
    objective_ms: float | None = None,
) -> tuple[Outcome, ...]:
    """Poisson arrivals whatever comes back, one outcome for each of `phases` (requests/s, seconds)."""
    arguments = ["--mode", "open", "--seed", str(seed)]
    for rate, seconds in phases:
        arguments += ["--phase", f"{rate}:{seconds}"]
    if patience_ms is not None:
        arguments += ["--patience-ms", str(patience_ms)]
    if objective_ms is not None:
        arguments += ["--objective-ms", str(objective_ms)]
    told_ms = patience_ms if told else None
    found = _run(target, arguments, told_ms, sum(seconds for _, seconds in phases) + _SLACK_S)
    return tuple(Outcome(**phase) for phase in found["phases"])
