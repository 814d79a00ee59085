"""A load process of its own: so many clients on keep-alive connections, each sending its next image when it has its answer.

Run as `python closed_loop.py HOST PORT IMAGE CLIENTS SECONDS [WARMUP_SECONDS]`; prints one JSON object. Raw sockets, because an
HTTP library would take more of the machine than the worker does.
"""

import asyncio
import json
import sys
import time
from collections import Counter

import uvloop


class Client(asyncio.Protocol):
    """One client; reconnects when the worker closes the connection after an answer."""

    def __init__(self, load: "Load") -> None:
        self.load, self.buffer, self.sent_s, self.closing = load, bytearray(), 0.0, False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Send the first image."""
        self.transport = transport
        self.send()

    def send(self) -> None:
        """Send the image, or stop when the time is over."""
        if time.perf_counter() >= self.load.end_s:
            self.load.stopped(self)
            return
        self.sent_s = time.perf_counter()
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        """Take what came; after a whole answer send the next image."""
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        headers = bytes(self.buffer[:head]).lower()
        at = headers.index(b"content-length:") + 15
        length = int(headers[at : headers.find(b"\r", at) if b"\r" in headers[at:] else len(headers)])
        if len(self.buffer) < head + 4 + length:
            return
        self.load.answered(int(headers[9:12]), self.sent_s)
        self.buffer.clear()
        if b"connection: close" in headers:
            self.closing = True
            self.transport.close()
            self.load.reconnect()
        else:
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Come again, unless the run is over."""
        if not self.closing and time.perf_counter() < self.load.end_s:
            self.load.codes["lost"] += 1
            self.load.reconnect()


class Load:
    """All clients of one run, and what they got."""

    def __init__(self, host: str, port: int, image: bytes, clients: int, *, seconds: float, warmup_s: float) -> None:
        self.host, self.port, self.clients = host, port, clients
        self.request = (
            f"POST /predict HTTP/1.1\r\nhost: {host}\r\ncontent-type: image/jpeg\r\ncontent-length: {len(image)}\r\n\r\n".encode()
            + image
        )
        self.start_s = time.perf_counter() + warmup_s
        self.end_s = self.start_s + seconds
        self.seconds = seconds
        self.codes: Counter[str] = Counter()
        self.latencies_s: list[float] = []
        self.left = clients
        self.done = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    def answered(self, code: int, sent_s: float) -> None:
        """Count an answer."""
        now_s = time.perf_counter()
        self.codes[str(code)] += 1
        if self.start_s <= now_s <= self.end_s and code == 200:
            self.latencies_s.append(now_s - sent_s)

    def stopped(self, client: Client) -> None:
        """A client has ended."""
        client.closing = True
        client.transport.close()
        self.left -= 1
        if not self.left:
            self.done.set()

    def reconnect(self) -> None:
        """Open a connection in the place of one that closed."""
        task = asyncio.get_running_loop().create_task(self.connect())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def connect(self) -> None:
        """Open a connection; try again while the run lasts."""
        while True:
            try:
                await asyncio.get_running_loop().create_connection(lambda: Client(self), self.host, self.port)
                return
            except OSError:
                self.codes["refused"] += 1
                if time.perf_counter() >= self.end_s:
                    self.left -= 1
                    if not self.left:
                        self.done.set()
                    return
                await asyncio.sleep(0.05)

    async def run(self) -> dict[str, object]:
        """Run all clients; the figures."""
        for _ in range(self.clients):
            await self.connect()
        await asyncio.wait_for(self.done.wait(), self.end_s - time.perf_counter() + 30)
        ordered = sorted(self.latencies_s)

        def at(share: float) -> float | None:
            return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3, 2) if ordered else None

        return {
            "images_per_s": round(len(ordered) / self.seconds, 1), "p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99),
            "answers": sum(self.codes.values()), "codes": dict(self.codes),
        }  # fmt: skip


def main() -> None:
    """Run what the command line says."""
    host, port, image, clients, seconds, *rest = sys.argv[1:]
    with open(image, "rb") as file:
        body = file.read()

    async def go() -> dict[str, object]:
        return await Load(
            host, int(port), body, int(clients), seconds=float(seconds), warmup_s=float(rest[0]) if rest else 0.0
        ).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(go())))


if __name__ == "__main__":
    main()
