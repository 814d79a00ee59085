"""Real workers under a constant-rate prober, while their number and their revision change: not one request fails."""

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from yolastic_cli.load import Answer, OpenLoad, Phase, play, read_labelled_images
from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.cluster.local import LocalCluster
from yolastic_operator.loop import Loop, LoopSettings
from yolastic_operator.model import Ref, Worker

EXAMPLES = Path(__file__).parents[3] / "examples"
REF = Ref("default", "shapes")
SIMULATED = RuntimeSpec(
    image="none",
    backend="Simulated",
    simulate="fixed_ms=10,per_image_ms=5,memory_fixed_mib=600,memory_per_image_mib=60,memory_limit_mib=4096",
)
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

    async def reach(self, spec: InferenceSpec, replicas: int) -> tuple[Worker, ...]:
        """Wait until exactly so many workers of this spec serve and nobody else is there."""
        self.spec, self.generation = spec, self.generation + 1
        while True:
            status, fleet = self.cluster.statuses, await self.cluster.fleet(REF)
            current = [worker for worker in fleet.workers if worker.ready and worker.revision == fleet.revision]
            if status.get("observedGeneration") == self.generation and len(fleet.workers) == len(current) == replicas:
                return fleet.workers
            await asyncio.sleep(0.05)


@pytest.mark.timeout(180)
def test_no_request_fails_while_workers_come_and_go() -> None:
    answers: list[Answer] = []

    async def scene() -> None:
        async with asyncio.timeout(150), LocalCluster(port=0, runtimes={"simulated": SIMULATED}) as cluster:
            fleet = Fleet(cluster, make_spec(replicas=1))
            turning = asyncio.create_task(fleet.turn_on())
            await fleet.reach(make_spec(replicas=1), 1)
            images = read_labelled_images(EXAMPLES / "images")
            load = OpenLoad((Phase("constant", 140, PROBES_PER_S, PROBES_PER_S),), poisson=False)
            over = asyncio.Event()
            tell = lambda answer: None if over.is_set() else answers.append(answer)  # noqa: E731
            probing = asyncio.create_task(play(f"{await cluster.url(REF)}/predict", load, images, tell))
            await asyncio.sleep(1)
            await fleet.reach(make_spec(replicas=3), 3)
            await asyncio.sleep(1)
            names = await fleet.reach(make_spec(replicas=1), 1)
            assert len(names) == 1
            await fleet.reach(make_spec(replicas=2), 2)
            await fleet.reach(make_spec(replicas=2, queue={"maxLength": 128}), 2)
            await asyncio.sleep(1)
            over.set()  # what is under way now is cut off by the prober itself
            for task in (probing, turning):
                task.cancel()
            await asyncio.gather(probing, turning, return_exceptions=True)

    began_s = time.monotonic()
    asyncio.run(scene())
    failed = [answer for answer in answers if answer.status != 200]
    assert not failed, f"{Counter(answer.status for answer in answers)} {failed[:3]}"
    assert len(answers) > 0.7 * PROBES_PER_S * (time.monotonic() - began_s - 15)
    assert sum(answer.found for answer in answers) > 0.9 * sum(answer.expected for answer in answers)
