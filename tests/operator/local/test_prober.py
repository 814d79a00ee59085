"""Real workers under a constant-rate prober, while their number and their revision change, one is bad, and one is killed."""

import asyncio
import hashlib
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from stopping import stop

from yolastic_cli.load import Answer, OpenLoad, Phase, play, read_labelled_images
from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.cluster.local import LocalCluster
from yolastic_operator.cluster.process import WorkerProcess
from yolastic_operator.loop import Loop, LoopSettings
from yolastic_operator.model import Ref, Worker

pytestmark = pytest.mark.alone

EXAMPLES = Path(__file__).parents[3] / "examples"
REF = Ref("default", "shapes")
SIMULATED = RuntimeSpec(
    image="none",
    backend="Simulated",
    simulate="fixed_ms=10,per_image_ms=5,memory_fixed_mib=600,memory_per_image_mib=60,memory_limit_mib=4096",
)
FULL = SIMULATED.model_copy(
    update={"shared": True, "simulate": (SIMULATED.simulate or "").replace("memory_limit_mib=4096", "memory_limit_mib=2000")}
)
"""A shared device with 1,800 MiB within the headroom: a worker with a batch of 8 takes 1,080, one with 2 takes 720."""
PROBES_PER_S = 20.0


def make_spec(**other: Any) -> InferenceSpec:
    digest = (EXAMPLES / "models/shapes.onnx.sha256").read_text().split()[0]
    model = {"uri": f"file://{EXAMPLES}/models/shapes.onnx", "sha256": digest}
    plain = {"model": model, "runtime": "simulated", "batching": {"maxSize": 8}, "drain": {"timeoutSeconds": 20}}
    return InferenceSpec.model_validate({**plain, **other})


class Fleet:
    """A loop that turns in the background on what the spec says at the time."""

    def __init__(self, cluster: LocalCluster, spec: InferenceSpec) -> None:
        self.cluster, self.spec, self.generation = cluster, spec, 1
        self.loop = Loop(cluster, REF, LoopSettings(turn_s=0.2, busy_turn_s=0.2, status_every_s=0.2))

    async def turn_on(self) -> None:
        while True:
            pause_s = await self.loop.turn(self.spec, self.generation, {})
            await asyncio.sleep(pause_s)

    async def said(self, kind: str, reason: str) -> str:
        """Wait until a condition has this reason; its message."""
        while True:
            found = next((item for item in self.cluster.statuses.get("conditions", []) if item["type"] == kind), {})
            if found.get("reason") == reason:
                return str(found["message"])
            await asyncio.sleep(0.05)

    async def left(self, number: int) -> list[WorkerProcess]:
        """Wait until there are no more processes than that."""
        while True:
            found = list(self.cluster._workers.values())
            if len(found) == number:
                return found
            await asyncio.sleep(0.05)

    async def reach(self, spec: InferenceSpec, replicas: int) -> tuple[Worker, ...]:
        """Wait until exactly so many workers of this spec serve and nobody else is there."""
        self.spec, self.generation = spec, self.generation + 1
        while True:
            status, fleet = self.cluster.statuses, await self.cluster.fleet(REF)
            current = [worker for worker in fleet.workers if worker.ready and worker.revision == fleet.revision]
            if status.get("observedGeneration") == self.generation and len(fleet.workers) == len(current) == replicas:
                return fleet.workers
            await asyncio.sleep(0.05)


def probe(scenario: Callable[[Fleet], Awaitable[None]], size: int, runtime: RuntimeSpec = SIMULATED) -> list[Answer]:
    """Play a scenario beside a constant rate, from the moment `size` workers serve; what became of the requests."""
    answers: list[Answer] = []
    began_s = 0.0

    async def scene() -> None:
        nonlocal began_s
        async with asyncio.timeout(150), LocalCluster(port=0, runtimes={"simulated": runtime}) as cluster:
            fleet = Fleet(cluster, make_spec(replicas=size))
            turning = asyncio.create_task(fleet.turn_on())
            await fleet.reach(make_spec(replicas=size), size)
            images = read_labelled_images(EXAMPLES / "images")
            load = OpenLoad((Phase("constant", 140, PROBES_PER_S, PROBES_PER_S),), poisson=False)
            over = asyncio.Event()
            tell = lambda answer: None if over.is_set() else answers.append(answer)  # noqa: E731
            probing = asyncio.create_task(play(f"{await cluster.url(REF)}/predict", load, images, tell))
            began_s = time.monotonic()
            await asyncio.sleep(1)
            await scenario(fleet)
            await asyncio.sleep(1)
            over.set()  # what is under way now is cut off by the prober itself
            began_s = time.monotonic() - began_s
            for task in (probing, turning):
                task.cancel()
            await asyncio.gather(probing, turning, return_exceptions=True)

    asyncio.run(scene())
    assert len(answers) > 0.7 * PROBES_PER_S * began_s
    return answers


def assert_none_failed(answers: list[Answer]) -> None:
    failed = [answer for answer in answers if answer.status != 200]
    assert not failed, f"{Counter(answer.status for answer in answers)} {failed[:3]}"
    assert sum(answer.found for answer in answers) > 0.9 * sum(answer.expected for answer in answers)


@pytest.mark.timeout(180)
def test_no_request_fails_while_workers_come_and_go() -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.reach(make_spec(replicas=3), 3)
        await asyncio.sleep(1)
        assert len(await fleet.reach(make_spec(replicas=1), 1)) == 1
        await fleet.reach(make_spec(replicas=2), 2)
        await fleet.reach(make_spec(replicas=2, queue={"maxLength": 128}), 2)
        # Even with the only worker gone before its successor starts: what comes meanwhile waits in the socket.
        await fleet.reach(make_spec(replicas=1, queue={"maxLength": 128}), 1)
        await fleet.reach(make_spec(replicas=1, queue={"maxLength": 255}, rollout={"strategy": "Recreate"}), 1)

    assert_none_failed(probe(scenario, 1))


@pytest.mark.timeout(180)
def test_a_model_that_cannot_be_served_goes_back_and_the_old_one_never_stops(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is no model")

    async def scenario(fleet: Fleet) -> None:
        (before,) = fleet.cluster._workers.values()
        pid = before.pid
        model = {"uri": f"file://{broken}", "sha256": hashlib.sha256(broken.read_bytes()).hexdigest()}
        fleet.spec, fleet.generation = make_spec(replicas=1, model=model), fleet.generation + 1
        assert "UnsupportedModel" in await fleet.said("Progressing", "RolledBack")
        assert [process.pid for process in await fleet.left(1)] == [pid]
        await fleet.reach(make_spec(replicas=1, queue={"maxLength": 128}), 1)

    assert_none_failed(probe(scenario, 1))


@asynccontextmanager
async def crowd(url: str, statuses: list[int], clients: int = 24) -> AsyncIterator[None]:
    """Clients that ask without a pause: more than a base batch of images waits all the time."""
    image = (EXAMPLES / "images/shapes-00.jpg").read_bytes()

    async def client(session: aiohttp.ClientSession) -> None:
        while True:
            async with session.post(url, data=image, headers={"Content-Type": "image/jpeg"}) as answer:
                statuses.append(answer.status)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        asking = [asyncio.create_task(client(session)) for _ in range(clients)]
        try:
            yield
        finally:
            for task in asking:
                task.cancel()
            ended = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


async def lent(worker: Worker, ceiling: int) -> None:
    """Wait until a worker may run batches of so many images."""
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"http://{worker.address}:{worker.control_port}/state") as answer:
                if (await answer.json())["ceiling"]["ceiling"] >= ceiling:
                    return
            await asyncio.sleep(0.05)


@pytest.mark.timeout(180)
def test_on_a_full_shared_device_the_old_worker_gives_memory_back_for_the_new_one() -> None:
    statuses: list[int] = []

    async def scenario(fleet: Fleet) -> None:
        (before,) = (await fleet.cluster.fleet(REF)).workers
        async with crowd(f"{await fleet.cluster.url(REF)}/predict", statuses):
            # How much a batch gains would be measured on this host, whose load is not the matter here.
            fixed = {"maxSize": 8, "policy": "Fixed"}
            fleet.spec, fleet.generation = make_spec(replicas=1, batching=fixed), fleet.generation + 1
            await lent(before, 8)
            (after,) = await fleet.reach(make_spec(replicas=1, batching=fixed, queue={"maxLength": 128}), 1)
        assert after.name != before.name

    assert_none_failed(probe(scenario, 1, FULL))
    assert set(statuses) == {200}


@pytest.mark.timeout(180)
def test_a_killed_worker_costs_what_is_under_way_on_it() -> None:
    under_way: list[int] = []

    async def scenario(fleet: Fleet) -> None:
        victim = next(iter(fleet.cluster._workers.values()))
        assert victim.pid is not None
        stop(victim.pid)  # so that what it holds can be counted: nothing is answered, nothing more comes in
        connections = psutil.Process(victim.pid).net_connections("tcp")
        under_way.append(
            sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == fleet.cluster.address[1] for one in connections)
        )
        os.kill(victim.pid, signal.SIGKILL)
        await fleet.said("Progressing", "ScalingUp")
        await fleet.said("Progressing", "Stable")

    answers = probe(scenario, 2)
    failed = [answer for answer in answers if answer.status != 200]
    assert len(failed) <= under_way[0], f"{under_way}: {failed[:5]}"
