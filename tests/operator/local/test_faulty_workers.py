"""Real workers that hang or say what cannot be, under the real loop: nothing shrinks on that, and no request fails."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from lying_worker import LIES
from stopping import stopped

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.cluster import process
from yolastic_operator.cluster.local import LocalCluster
from yolastic_operator.loop import Loop, LoopSettings
from yolastic_operator.model import Ref, Worker

pytestmark = pytest.mark.alone

EXAMPLES = Path(__file__).parents[3] / "examples"
IMAGE = (EXAMPLES / "images/shapes-00.jpg").read_bytes()
LYING = str(Path(__file__).with_name("lying_worker.py"))
REF = Ref("default", "shapes")
SIMULATED = RuntimeSpec(
    image="none",
    backend="Simulated",
    simulate="fixed_ms=10,per_image_ms=2,memory_fixed_mib=600,memory_per_image_mib=60,memory_limit_mib=4096",
)
WORKERS = 3
"""So many that two of them, known, ask for fewer."""
TIMEOUT_S = 0.5
SLACK_S = 1.0


class Scene:
    """Three workers at next to no load; a turn would make one of them, were all of them known."""

    def __init__(self, cluster: LocalCluster, least: int, lies: Path) -> None:
        self.cluster, self._lies = cluster, lies
        digest = (EXAMPLES / "models/shapes.onnx.sha256").read_text().split()[0]
        self._spec = InferenceSpec.model_validate(
            {
                "model": {"uri": f"file://{EXAMPLES}/models/shapes.onnx", "sha256": digest},
                "runtime": "simulated",
                "autoscaling": {
                    "minReplicas": least,
                    "maxReplicas": 4,
                    "forecast": "None",
                    "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
                },
            }
        )
        settings = LoopSettings(turn_s=0.5, busy_turn_s=0.2, control_timeout_s=TIMEOUT_S, status_every_s=0, ages_every_s=0)
        self._loop = Loop(cluster, REF, settings)
        self.statuses: list[int] = []

    def lie(self, text: str) -> None:
        new = self._lies.with_suffix(".new")
        new.write_text(text)
        new.rename(self._lies)

    async def turn(self) -> None:
        """One turn, which no worker holds up for longer than its own time-outs."""
        began_s = time.monotonic()
        await self._loop.turn(self._spec, 1, {"desiredReplicas": WORKERS})
        assert time.monotonic() - began_s < 3 * TIMEOUT_S + SLACK_S

    async def ready(self, count: int) -> tuple[Worker, ...]:
        while True:
            workers = (await self.cluster.fleet(REF)).workers
            if len(workers) == WORKERS and sum(worker.ready for worker in workers) == count:
                return workers
            await asyncio.sleep(0.05)

    @property
    def size(self) -> int:
        return int(self.cluster.statuses["desiredReplicas"])

    def told(self, about: str) -> str:
        steps = self.cluster.statuses["autoscaling"]["explanation"]
        return " | ".join(step["text"] for step in steps if step["about"] == about)

    def condition(self, kind: str) -> dict[str, Any]:
        return next(one for one in self.cluster.statuses["conditions"] if one["type"] == kind)

    async def probe(self) -> None:
        """A request every 50 ms, each on a connection of its own."""

        async def one() -> None:
            try:
                async with session.post(f"http://{host}:{port}/predict", data=IMAGE, headers=kind) as answer:
                    await answer.read()
                    self.statuses.append(answer.status)
            except (aiohttp.ClientError, OSError, TimeoutError):
                self.statuses.append(0)

        (host, port), kind = self.cluster.address, {"Content-Type": "image/jpeg"}
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, asyncio.TaskGroup() as group:
            while not self._done:
                group.create_task(one())
                await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def probed(self) -> AsyncIterator[None]:
        """Ends when every request has its answer: all of them must be good."""
        self._done = False
        prober = asyncio.create_task(self.probe())
        yield
        self._done = True
        await prober
        assert len(self.statuses) > 20
        assert set(self.statuses) == {200}


@contextlib.asynccontextmanager
async def scene_of(folder: Path, *, least: int = 1, lie: str = "") -> AsyncIterator[Scene]:
    lies = folder / "lie"
    command = (sys.executable, LYING, str(lies))
    cluster = LocalCluster(port=0, runtimes={"simulated": SIMULATED}, control_timeout_s=TIMEOUT_S, worker_command=command)
    async with asyncio.timeout(90), cluster:
        scene = Scene(cluster, least, lies)
        scene.lie(lie)
        await scene.turn()
        await scene.ready(WORKERS)
        yield scene


def hung(cluster: LocalCluster, name: str) -> contextlib.AbstractContextManager[None]:
    """A worker that does not run."""
    pid = cluster._workers[name].pid
    assert pid is not None
    assert psutil.Process(pid).ppid() == os.getpid()
    return stopped(pid)


def test_whatever_one_worker_says_nothing_shrinks_on_it_and_two_turns_later_all_is_right(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene_of(tmp_path, lie="shapes-2 nan") as scene, scene.probed():
            for lie in LIES:
                scene.lie(f"shapes-2 {lie}")
                for _ in range(2):
                    await scene.turn()
                    assert scene.size == WORKERS, lie
                assert "not shrinking without fresh figures of every worker (shapes-2: " in scene.told("Survivors"), lie
                assert scene.condition("ScalingActive")["status"] == "True", lie
                assert len((await scene.cluster.fleet(REF)).workers) == WORKERS
            scene.lie("")
            await scene.turn()
            await scene.turn()
            assert scene.size == 1

    asyncio.run(scenario())


def test_a_worker_that_hangs_while_it_counts_as_ready_is_not_decided_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unasked(*_: Any) -> None:
        """As long as nobody probes, a worker stays what it was; a cluster lets a probe fail several times, too."""

    async def scenario() -> None:
        async with scene_of(tmp_path, lie="shapes-1 nan") as scene, scene.probed():
            monkeypatch.setattr(process.WorkerProcess, "probe", unasked)
            await scene.ready(WORKERS)
            await scene.turn()  # this one is known from now on, and that is no reason to shrink a moment later
            with hung(scene.cluster, "shapes-2"):
                scene.lie("")
                for _ in range(4):
                    await scene.turn()
                    assert scene.size == WORKERS
                assert "(shapes-2: " in scene.told("Survivors")
            await scene.turn()
            await scene.turn()
            assert scene.size == 1

    asyncio.run(scenario())


def test_a_worker_that_hangs_is_one_fewer_until_it_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene_of(tmp_path, least=WORKERS) as scene, scene.probed():
            await scene.turn()
            assert scene.condition("Ready")["status"] == "True"
            with hung(scene.cluster, "shapes-2"):
                await scene.ready(WORKERS - 1)
                await scene.turn()
                assert (scene.size, scene.cluster.statuses["readyReplicas"]) == (WORKERS, WORKERS - 1)
                assert scene.condition("Ready")["message"].startswith("2 of 3 workers ready")
            await scene.ready(WORKERS)
            await scene.turn()
            assert (scene.size, scene.cluster.statuses["readyReplicas"]) == (WORKERS, WORKERS)

    asyncio.run(scenario())
