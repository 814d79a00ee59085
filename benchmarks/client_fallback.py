"""The load client in Python: options, meaning and output of client.c, for machines without a C compiler.

Raw sockets on uvloop, because an HTTP library would take more of the machine than the worker does. It still takes several times
what the compiled one takes, so figures made with it are lower; the settings say which client made them.
"""

import argparse
import asyncio
import json
import random
import re
import resource
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

_UNANSWERED_S, _RECONNECT_S = 10.0, 0.05
_TIMER_S = 0.002
"""Timers of uvloop may be a millisecond early."""
_LENGTH = re.compile(rb"content-length: *(\d+)")


@dataclass(slots=True)
class Phase:
    """A stretch of time and what its requests got."""

    seconds: float
    rate: float = 0.0
    begin_s: float = 0.0
    intended: int = 0
    useful: int = 0
    hung_up: int = 0
    lost: int = 0
    unsent: int = 0
    unanswered: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    ok_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, object]:
        """As client.c prints them."""
        return {
            "seconds": self.seconds, "intended": self.intended, "ok_per_s": len(self.ok_s) / self.seconds, "useful": self.useful,
            "useful_per_s": self.useful / self.seconds, "hung_up": self.hung_up, "lost": self.lost, "unsent": self.unsent,
            "unanswered": self.unanswered, **percentiles("", self.ok_s), **percentiles("refused_", self.refused_s),
            "codes": dict(self.codes),
        }  # fmt: skip


def percentiles(prefix: str, values_s: list[float]) -> dict[str, float | None]:
    """p50, p95, p99 and the largest, ms."""
    ordered = sorted(values_s)
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {
        f"{prefix}{name}_ms": round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3, 3) if ordered else None
        for name, share in shares.items()
    }


class Wire(asyncio.Protocol):
    """One connection; an answer, or its end, goes to the future that waits for it."""

    def __init__(self) -> None:
        self.buffer, self.closed = bytearray(), False
        self.waiter: asyncio.Future[tuple[int, bool] | None] | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """(status, does it close) once an answer is whole."""
        self.buffer += data
        head_end = self.buffer.find(b"\r\n\r\n")
        if head_end < 0 or self.waiter is None or self.waiter.done():
            return
        head = bytes(self.buffer[:head_end]).lower()
        length = _LENGTH.search(head)
        if b"transfer-encoding: chunked" in head:
            whole = self.buffer.endswith(b"0\r\n\r\n")
        else:
            whole = len(self.buffer) >= head_end + 4 + (int(length.group(1)) if length else 0)
        if whole:
            self.buffer.clear()
            self.waiter.set_result((int(head[9:12]), b"connection: close" in head))

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come."""
        self.closed = True
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Load:
    """One run."""

    def __init__(self, told: argparse.Namespace) -> None:
        self.told, self.open = told, told.mode == "open"
        self.requests = [self._request(Path(body).read_bytes()) for body in told.body]
        self.next_request = 0
        self.patience_s, self.pause_s = told.patience_ms / 1e3, told.pause_ms / 1e3
        self.objective_s = (told.objective_ms or told.patience_ms) / 1e3
        self.phases = [Phase(seconds, rate) for rate, seconds in told.phase] if self.open else [Phase(told.seconds)]
        self.start_s = self.end_s = time.monotonic() + told.warm
        for phase in self.phases:
            phase.begin_s = self.end_s
            self.end_s += phase.seconds
        self.idle: deque[Wire] = deque()
        self.places = asyncio.Semaphore(told.clients or 2048)
        self.late_s: list[float] = []
        self.connects = self.refused_connects = 0

    def _request(self, body: bytes) -> bytes:
        lines = [
            f"POST {self.told.path} HTTP/1.1", f"Host: {self.told.host}:{self.told.port}", f"Content-Type: {self.told.type}",
            f"Content-Length: {len(body)}", *self.told.header,
        ]  # fmt: skip
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def _counted(self) -> bool:
        return bool(self.open or self.start_s <= time.monotonic() <= self.end_s)

    async def _connect(self) -> Wire:
        while True:
            self.connects += 1
            try:
                _, wire = await asyncio.get_running_loop().create_connection(Wire, self.told.host, self.told.port)
            except OSError:
                self.refused_connects += 1
                await asyncio.sleep(_RECONNECT_S)
            else:
                return wire

    async def _send(self, wire: Wire | None) -> tuple[Wire, tuple[int, bool] | None]:
        if wire is None or wire.closed:
            wire = await self._connect()
        wire.waiter = asyncio.get_running_loop().create_future()
        wire.transport.write(self.requests[self.next_request])
        self.next_request = (self.next_request + 1) % len(self.requests)
        try:
            return wire, await wire.waiter
        except asyncio.CancelledError:
            wire.transport.abort()
            raise

    async def one(self, phase: Phase, meant_s: float, wire: Wire | None) -> tuple[Wire | None, int]:
        """One request: the connection it leaves behind, and its status; 0: hung up or lost."""
        timeout_s = meant_s + self.patience_s - time.monotonic() if self.patience_s else None
        if not self.patience_s and not self.open:
            timeout_s = self.end_s + _TIMER_S - time.monotonic()
        elif not self.patience_s:
            timeout_s = self.end_s + _UNANSWERED_S - time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                wire, answer = await self._send(wire)
        except TimeoutError:
            if self.patience_s and self._counted():
                phase.hung_up += 1
            elif self.open:
                phase.unanswered += 1
            return None, 0
        latency_s = time.monotonic() - meant_s
        if answer is None:
            phase.lost += self._counted()
            return None, 0
        code, closes = answer
        if self._counted():
            phase.codes[str(code)] += 1
            (phase.ok_s if code == 200 else phase.refused_s).append(latency_s)
            phase.useful += code == 200 and (not self.objective_s or latency_s <= self.objective_s)
        if closes:
            wire.transport.close()
        return None if closes else wire, code

    async def client(self) -> None:
        """A closed loop."""
        wire: Wire | None = None
        while (now_s := time.monotonic()) < self.end_s:
            self.phases[0].intended += now_s >= self.start_s
            wire, code = await self.one(self.phases[0], now_s, wire)
            if code != 200 and self.pause_s:
                await asyncio.sleep(self.pause_s)

    async def arrival(self, phase: Phase, meant_s: float) -> None:
        """One request of an open loop."""
        async with self.places:
            if self.patience_s and time.monotonic() - meant_s >= self.patience_s:
                phase.unsent += 1
                return
            self.late_s.append(time.monotonic() - meant_s)
            wire, _ = await self.one(phase, meant_s, self.idle.pop() if self.idle else None)
            if wire is not None:
                self.idle.append(wire)

    async def run(self) -> None:
        """All of it."""
        if not self.open:
            await asyncio.gather(*(self.client() for _ in range(self.told.clients or 1)))
            return
        chance, tasks = random.Random(self.told.seed), set[asyncio.Task[None]]()
        for phase in self.phases:
            meant_s = phase.begin_s + chance.expovariate(phase.rate)
            while meant_s < phase.begin_s + phase.seconds:
                await asyncio.sleep(max(0.0, meant_s - time.monotonic()))
                phase.intended += 1
                tasks.add(task := asyncio.create_task(self.arrival(phase, meant_s)))
                task.add_done_callback(tasks.discard)
                meant_s += chance.expovariate(phase.rate)
        await asyncio.gather(*tasks)


def _phase(text: str) -> tuple[float, float]:
    rate, _, seconds = text.partition(":")
    return float(rate), float(seconds)


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/predict")
    parser.add_argument("--type", default="image/jpeg")
    parser.add_argument("--body", action="append", required=True)
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--mode", choices=["closed", "open"], default="closed")
    parser.add_argument("--clients", "--connections", type=int, default=0)
    for name, default in (("seconds", 5.0), ("warm", 0.0), ("patience-ms", 0.0), ("pause-ms", 0.0), ("objective-ms", 0.0)):
        parser.add_argument(f"--{name}", type=float, default=default)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--phase", type=_phase, action="append", default=[])
    told = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))

    async def go() -> Load:
        load = Load(told)
        await load.run()
        return load

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        load = runner.run(go())
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "client": "python", "client_cpu_s": used.ru_utime + used.ru_stime, "connects": load.connects,
        "refused_connects": load.refused_connects, **percentiles("late_", load.late_s),
        "phases": [phase.figures() for phase in load.phases],
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
