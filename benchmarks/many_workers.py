"""Control ports of many workers that do not exist, one process for all: each on port 9000 of a loopback address of its own.

Every worker tells a steady load that asks for no other size, takes the ceilings it is given, and counts what it is asked.
"""

import asyncio
import json
import random
import socket
import sys
import time
from typing import Final

from yolastic_contract import names
from yolastic_contract.state import CeilingState, Fit, LoadState, MemoryState, ModelState, WorkerState

_LARGEST: Final = 8
_SPEED: Final = Fit(fixed=0.013, per_image=0.012)
_MEMORY: Final = Fit(fixed=600 * 2.0**20, per_image=60 * 2.0**20)
_CAPACITY_PER_S: Final = _LARGEST / _SPEED.at(_LARGEST)
LOAD: Final = 0.25
"""Load ratio of every worker: whatever the forecast makes of it while they appear, the smallest size suffices."""


def address(number: int) -> str:
    """Loopback address of a worker."""
    return f"127.1.{number // 250}.{number % 250 + 1}"


class _Worker:
    """What one of them answers."""

    def __init__(self, number: int, sha256: str, started_s: float) -> None:
        self._number, self._sha256, self._started_s = number, sha256, started_s
        self._tiers = CeilingState(base=_LARGEST, ceiling=_LARGEST, effective=_LARGEST, burst=False, granted=False)
        self._random = random.Random(number)

    def state(self) -> bytes:
        """`GET /state`."""
        labels = [f"class {one}" for one in range(80)]
        state = WorkerState(
            worker_id=f"w{self._number}", version="none", phase="Ready", backend="Simulated", device="simulated",
            device_id=f"GPU-{self._number}", started_s=self._started_s, ready_after_s=20.0, max_batch=_LARGEST,
            buckets=[1, 2, 4, 8], speed=_SPEED, ceiling=self._tiers, load=self._load(),
            memory=MemoryState(limit_bytes=8 << 30, limit_source="Device", fit=_MEMORY, observed_peak_bytes=1 << 30),
            model=ModelState(
                sha256=self._sha256, task="Detect", names=labels, input_width=640, input_height=640, precision="FP16"
            ),
        )  # fmt: skip
        return state.model_dump_json().encode()

    def _load(self) -> LoadState:
        """Varies by chance, as a real one does."""
        per_s = self._random.gauss(LOAD, 0.01) * _CAPACITY_PER_S
        return LoadState(
            ratio=per_s / _CAPACITY_PER_S, arrived_per_s=per_s, refused_per_s=0.0, capacity_per_s=_CAPACITY_PER_S,
            queue_images=self._random.randrange(3), queue_oldest_age_s=0.01, inflight_images=3, busy_ratio=0.9,
            demand_images=round((time.time() - self._started_s) * LOAD * _CAPACITY_PER_S),
        )  # fmt: skip

    def grant(self, body: bytes) -> None:
        """`PUT /ceiling`."""
        told = json.loads(body)
        self._tiers = CeilingState(
            base=told["base"], ceiling=told["ceiling"], effective=told["base"], burst=False, granted=True,
            budget_bytes=told["budget_bytes"],
        )  # fmt: skip


class _Connection(asyncio.Protocol):
    """HTTP as far as the operator speaks it: small requests, one after the other."""

    def __init__(self, worker: _Worker) -> None:
        self._worker = worker
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answers go there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is there in full."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            if len(self._received) < end + 4 + length:
                return
            body, self._received = self._received[end + 4 : end + 4 + length], self._received[end + 4 + length :]
            self._transport.write(self._answer(head, body))

    def _answer(self, head: bytes, body: bytes) -> bytes:
        if head.startswith(b"put /ceiling"):
            self._worker.grant(body)
        answer = self._worker.state() if head.startswith(b"get /state") else b"{}"
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer)


async def serve(count: int, per_object: int) -> None:
    """Answer for `count` workers until the process is ended; prints a line once all ports are open."""
    loop, started_s = asyncio.get_running_loop(), time.time() - 3600
    servers = []
    for number in range(count):
        worker = _Worker(number, f"{number // per_object:064x}", started_s)
        listener = socket.create_server((address(number), names.CONTROL_PORT))
        servers.append(await loop.create_server(lambda worker=worker: _Connection(worker), sock=listener))  # type: ignore[misc]
    print("ready", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
