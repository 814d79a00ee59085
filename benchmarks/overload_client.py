"""Impatient clients, in a process of their own: a crowd that hangs up and comes again, and a rate that jumps tenfold.

Run as `python overload_client.py crowd|bursts HOST PORT IMAGE '{"options": ...}'`; prints one JSON object. Raw protocols on
uvloop, one timer a request: 512 clients fit beside the worker on two cores.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvloop

clock = time.perf_counter


@dataclass(frozen=True, slots=True)
class Answer:
    """One request and how it ended, as its client saw it."""

    sent_s: float
    ended_s: float
    code: str
    """A status, `gone`: the client hung up, or `lost`: the worker closed the connection."""


class Connection(asyncio.Protocol):
    """One request at a time; `ended` is told the code of each."""

    def __init__(self, ended: Callable[["Connection", Answer], None]) -> None:
        self._ended, self._buffer, self._sent_s, self._waiting = ended, b"", 0.0, False
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Open."""
        self.transport = transport

    def send(self, request: bytes, hang_up_after_s: float | None) -> None:
        """Send a request, and hang up when it is not answered in time."""
        self._sent_s, self._waiting, self._buffer = clock(), True, b""
        self.transport.write(request)
        if hang_up_after_s is not None:
            self._timer = asyncio.get_running_loop().call_later(hang_up_after_s, self._hang_up)

    def data_received(self, data: bytes) -> None:
        """Take what came, up to a whole answer."""
        self._buffer = data = self._buffer + data if self._buffer else data
        head = data.find(b"\r\n\r\n")
        at = data.find(b"content-length: ", 0, head)
        if head < 0 or at < 0 or len(data) < head + 4 + int(data[at + 16 : data.index(b"\r", at)]):
            return
        closing = data.find(b"connection: close", 0, head) >= 0
        if closing:
            self.transport.close()
        self._end(data[9:12].decode(), closed=closing)

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed by the worker, unless it was us."""
        self._end("lost", closed=True)

    def _hang_up(self) -> None:
        self.transport.abort()
        self._end("gone", closed=True)

    def _end(self, code: str, *, closed: bool) -> None:
        if not self._waiting:
            return
        self._waiting = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.usable = not closed
        self._ended(self, Answer(self._sent_s, clock(), code))

    usable = True
    """The connection may carry another request."""


class Clients:
    """What all kinds of load share: where to, what, and the answers so far."""

    def __init__(self, host: str, port: int, image: bytes) -> None:
        self._host, self._port, self._image = host, port, image
        self.answers: list[Answer] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def request(self, patience_ms: int | None) -> bytes:
        """The bytes of a request that tells its patience, or does not."""
        told = "" if patience_ms is None else f"x-request-timeout-ms: {patience_ms}\r\n"
        head = f"POST /predict HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: image/jpeg\r\n{told}"
        return f"{head}content-length: {len(self._image)}\r\n\r\n".encode() + self._image

    async def connect(self, ended: Callable[[Connection, Answer], None]) -> Connection:
        """A new connection; the worker's backlog may be full for a moment."""
        while True:
            try:
                loop = asyncio.get_running_loop()
                return (await loop.create_connection(lambda: Connection(ended), self._host, self._port))[1]
            except OSError:
                await asyncio.sleep(0.02)

    def spawn(self, work: Any) -> None:
        """Run a coroutine beside the others."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def steady(self, until_s: float) -> None:
        """One patient client, one request after the other."""
        got: asyncio.Queue[Answer] = asyncio.Queue()
        connection = await self.connect(lambda _, answer: got.put_nowait(answer))
        request = self.request(None)
        while clock() < until_s:
            connection.send(request, None)
            answer = await got.get()
            self.answers.append(answer)
            if not connection.usable:
                connection = await self.connect(lambda _, answer: got.put_nowait(answer))
            if answer.code != "200":
                await asyncio.sleep(0.05)
        connection.transport.close()

    async def crowd(self, clients: int, until_s: float, *, patience_s: float, tell: bool, pause_s: float) -> None:
        """So many clients in a closed loop, each with a patience; who is turned away pauses, who hung up comes again at once."""
        request, loop = self.request(round(patience_s * 1e3) if tell else None), asyncio.get_running_loop()
        open_now: set[Connection] = set()

        def again(connection: Connection) -> None:
            if clock() >= until_s:
                open_now.discard(connection)
                connection.transport.close()
            elif connection.usable:
                connection.send(request, patience_s)
            else:
                open_now.discard(connection)
                self.spawn(join())

        def ended(connection: Connection, answer: Answer) -> None:
            self.answers.append(answer)
            if answer.code in ("200", "gone"):
                again(connection)
            else:
                loop.call_later(pause_s, again, connection)

        async def join() -> None:
            connection = await self.connect(ended)
            open_now.add(connection)
            again(connection)

        for _ in range(clients):
            self.spawn(join())
        await asyncio.sleep(until_s - clock())
        for connection in list(open_now):
            connection.transport.abort()

    async def rate(self, per_s: Callable[[float], float], until_s: float, patience_ms: int) -> None:
        """Poisson arrivals at a rate that changes with time, whatever becomes of the answers."""
        request, rng = self.request(patience_ms), random.Random(5)
        free: list[Connection] = []

        def ended(connection: Connection, answer: Answer) -> None:
            self.answers.append(answer)
            if connection.usable:
                free.append(connection)

        async def by_new() -> None:
            (await self.connect(ended)).send(request, None)

        free += [await self.connect(ended) for _ in range(64)]
        next_s = clock()
        while next_s < until_s:
            next_s += rng.expovariate(per_s(next_s))
            wait_s = next_s - clock()
            if wait_s > 0.001:
                await asyncio.sleep(wait_s)
            if free:
                free.pop().send(request, None)
            else:
                self.spawn(by_new())
        await asyncio.sleep(1.0)
        for connection in free:
            connection.transport.close()


def percentile(values: list[float], share: float) -> float | None:
    """Of seconds, in milliseconds; None of nothing."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3, 1) if ordered else None


def _latencies(answers: list[Answer], from_s: float, to_s: float, code: str = "200") -> list[float]:
    return [a.ended_s - a.sent_s for a in answers if a.code == code and from_s <= a.sent_s < to_s]


async def run_crowd(clients: Clients, options: dict[str, Any]) -> dict[str, Any]:
    """Calm, crowd, calm: useful answers a second after its first second, and a steady client's p50 before, and 1 s after."""
    calm_s, warm_s, patience_s = 2.0, 1.0, options["patience_ms"] / 1e3
    await clients.steady(clock() + calm_s)
    before = [a.ended_s - a.sent_s for a in clients.answers]
    clients.answers.clear()
    began_s = clock()
    ends_s = began_s + warm_s + options["seconds"]
    await clients.crowd(options["clients"], ends_s, patience_s=patience_s, tell=options["tell"], pause_s=options["pause_s"])
    crowd, clients.answers = clients.answers, []
    ended_s = clock()
    await clients.steady(ended_s + 3.0)
    seen = [a for a in crowd if began_s + warm_s <= a.ended_s < ends_s]
    useful = [a.ended_s - a.sent_s for a in seen if a.code == "200" and a.ended_s - a.sent_s <= patience_s]
    return {
        "useful_per_s": round(len(useful) / options["seconds"], 1), "p50_ms": percentile(useful, 0.5),
        "p99_ms": percentile(useful, 0.99), "codes": Counter(a.code for a in seen),
        "refused_p50_ms": percentile([a.ended_s - a.sent_s for a in seen if a.code == "429"], 0.5),
        "before_p50_ms": percentile(before, 0.5),
        "first_second_p50_ms": percentile(_latencies(clients.answers, ended_s, ended_s + 1.0), 0.5),
        "after_p50_ms": percentile(_latencies(clients.answers, ended_s + 1.0, ended_s + 3.0), 0.5),
    }  # fmt: skip


async def run_bursts(clients: Clients, options: dict[str, Any]) -> dict[str, Any]:
    """A base rate, and every `period_s` a burst of ten times as much for 2 s: what those sent in a burst got."""
    began_s, count, burst_s, period_s = clock() + 2.0, options["bursts"], 2.0, options["period_s"]

    def in_burst(at_s: float) -> bool:
        return at_s >= began_s and (at_s - began_s) % period_s < burst_s

    await clients.rate(
        lambda at_s: options["base_per_s"] * (10 if in_burst(at_s) else 1), began_s + count * period_s, options["objective_ms"]
    )
    seen = [a for a in clients.answers if in_burst(a.sent_s)]
    ok = [a.ended_s - a.sent_s for a in seen if a.code == "200"]
    return {
        "within": sum(seconds <= options["objective_ms"] / 1e3 for seconds in ok), "answered": len(ok),
        "answered_per_s": round(len(ok) / (count * burst_s), 1), "p50_ms": percentile(ok, 0.5), "p99_ms": percentile(ok, 0.99),
        "refused_p50_ms": percentile([a.ended_s - a.sent_s for a in seen if a.code == "429"], 0.5),
        "refused_p99_ms": percentile([a.ended_s - a.sent_s for a in seen if a.code == "429"], 0.99),
        "codes": Counter(a.code for a in seen), "calm_codes": Counter(a.code for a in clients.answers if not in_burst(a.sent_s)),
    }  # fmt: skip


def main() -> None:
    """Run what the command line says."""
    kind, host, port, image, options = sys.argv[1:]
    with open(image, "rb") as file:
        body = file.read()

    async def go() -> dict[str, Any]:
        return await {"crowd": run_crowd, "bursts": run_bursts}[kind](Clients(host, int(port), body), json.loads(options))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(go())))


if __name__ == "__main__":
    main()
