"""A worker that joins gets its share though every client holds a keep-alive connection, and no request fails for it."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.cluster.local import LocalCluster
from yolastic_operator.loop import Loop, LoopSettings
from yolastic_operator.model import Ref, Worker

pytestmark = pytest.mark.alone

EXAMPLES = Path(__file__).parents[3] / "examples"
IMAGE = (EXAMPLES / "images/shapes-00.jpg").read_bytes()
REF = Ref("default", "shapes")
SIMULATED = RuntimeSpec(
    image="none",
    backend="Simulated",
    simulate="fixed_ms=10,per_image_ms=2,memory_fixed_mib=600,memory_per_image_mib=60,memory_limit_mib=4096",
)
CLIENTS = 240
"""Whose connection goes where is chance: with so many the share of a third is within 30 % of it in 999 of 1,000 cases."""
PERIOD_S = 3.0
WITHIN_S = 10.0
LEAST_SHARE = 0.7
ANSWERED = re.compile(rb'^yolastic_images_total\{[^}]*outcome="ok"[^}]*\} (\S+)', re.MULTILINE)


def make_spec(replicas: int) -> InferenceSpec:
    digest = (EXAMPLES / "models/shapes.onnx.sha256").read_text().split()[0]
    model = {"uri": f"file://{EXAMPLES}/models/shapes.onnx", "sha256": digest}
    return InferenceSpec.model_validate({"model": model, "runtime": "simulated", "replicas": replicas})


class Clients:
    """Clients that keep their connection for as long as the worker does, each with its own beat."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        head = f"POST /predict HTTP/1.1\r\nHost: shapes\r\nContent-Type: image/jpeg\r\nContent-Length: {len(IMAGE)}\r\n\r\n"
        self._request = head.encode() + IMAGE
        self.statuses: list[int] = []
        self.connections = 0

    async def one(self, number: int) -> None:
        await asyncio.sleep(number * PERIOD_S / CLIENTS)
        while True:
            reader, writer = await asyncio.open_connection(*self._address)
            self.connections += 1
            try:
                while await self._ask(reader, writer):  # noqa: ASYNC110
                    await asyncio.sleep(PERIOD_S)
            finally:
                writer.close()
                await writer.wait_closed()
            await asyncio.sleep(PERIOD_S)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One image; whether the connection stays."""
        try:
            writer.write(self._request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            await reader.readexactly(int(length[1]))
        except (OSError, asyncio.IncompleteReadError):
            self.statuses.append(0)
            return False
        self.statuses.append(int(head.split(b" ", 2)[1]))
        return b"connection: close" not in head

    async def settled(self) -> None:
        """Wait until all hold on to their connections: for a while nobody has made a new one."""
        held = 0
        while self.connections < CLIENTS or self.connections != held:
            held = self.connections
            await asyncio.sleep(1.5 * PERIOD_S)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.one(number)) for number in range(CLIENTS)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def answered(session: aiohttp.ClientSession, workers: tuple[Worker, ...]) -> dict[str, float]:
    """Images that each worker has answered since its start."""

    async def one(worker: Worker) -> float:
        async with session.get(f"http://{worker.address}:{worker.control_port}/metrics") as response:
            return sum(float(value) for value in ANSWERED.findall(await response.read()))

    return dict(zip([worker.name for worker in workers], await asyncio.gather(*map(one, workers)), strict=True))


class Fleet:
    """A loop that turns in the background, and the workers of its cluster."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster, self.replicas, self.generation = cluster, 1, 1
        self.turning: asyncio.Task[None] | None = None

    def start(self) -> None:
        """An operator begins, with what is in the cluster and the status."""
        self.turning = asyncio.create_task(self._turn_on(Loop(self.cluster, REF, LoopSettings(turn_s=1.0, busy_turn_s=0.5))))

    async def stop(self) -> None:
        assert self.turning is not None
        self.turning.cancel()
        await asyncio.gather(self.turning, return_exceptions=True)

    async def _turn_on(self, loop: Loop) -> None:
        while True:
            pause_s = await loop.turn(make_spec(self.replicas), self.generation, self.cluster.statuses)
            await asyncio.sleep(pause_s)

    async def order(self, replicas: int) -> None:
        self.replicas, self.generation = replicas, self.generation + 1
        while (await self.cluster.fleet(REF)).replicas != replicas:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def reach(self, replicas: int) -> tuple[Worker, ...]:
        await self.order(replicas)
        while True:
            workers = (await self.cluster.fleet(REF)).workers
            if len(workers) == replicas and all(worker.ready for worker in workers):
                return workers
            await asyncio.sleep(0.05)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("before", "after", "restarts"), [(1, 2, False), (2, 3, False), (1, 2, True)])
def test_a_new_worker_gets_its_share_within_ten_seconds(before: int, after: int, restarts: bool, record_property: Any) -> None:
    """`restarts`: the operator does, and looks again only when the new worker is there."""

    async def scene() -> tuple[dict[str, float], Clients]:
        async with (
            asyncio.timeout(60),
            LocalCluster(port=0, runtimes={"simulated": SIMULATED}) as cluster,
            aiohttp.ClientSession() as session,
        ):
            fleet = Fleet(cluster)
            fleet.start()
            await fleet.reach(before)
            clients = Clients(*cluster.address)
            async with clients.running():
                await clients.settled()
                if restarts:
                    await fleet.order(after)
                    await fleet.stop()
                workers = await fleet.reach(after)
                if restarts:
                    fleet.start()
                joined_s = time.monotonic()
                await asyncio.sleep(WITHIN_S - 4)
                early = await answered(session, workers)
                await asyncio.sleep(max(0.0, joined_s + WITHIN_S - time.monotonic()))
                late = await answered(session, workers)
            await fleet.stop()
            return {name: late[name] - early[name] for name in late}, clients

    counts, clients = asyncio.run(scene())
    fair = sum(counts.values()) / after
    share = list(counts.values())[-1] / fair
    record_property("share", share)
    assert [status for status in clients.statuses if status != 200] == []
    assert len(clients.statuses) > 0.4 * CLIENTS / PERIOD_S * WITHIN_S
    assert share >= LEAST_SHARE, counts
