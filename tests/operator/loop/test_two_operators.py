"""Two operators on one autoscaled inference by mistake: they agree on a size and leave it."""

import asyncio
import random

import pytest

from yolastic_contract.inference import InferenceSpec
from yolastic_operator.cluster.fake import FakeCluster
from yolastic_operator.loop import Loop, LoopSettings
from yolastic_operator.model import Ref

REF = Ref("plant", "weld", "uid-1")
SPEC = InferenceSpec.model_validate(
    {
        "model": {"uri": "https://models/m.onnx", "sha256": "0" * 64},
        "drain": {"timeoutSeconds": 20},
        "autoscaling": {
            "minReplicas": 1,
            "maxReplicas": 6,
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 30}},
        },
    }
)
CAPACITY_PER_S = 32 / 0.052


class Two:
    def __init__(self) -> None:
        self.now_s = 1e6
        self.cluster = FakeCluster(lambda: self.now_s)
        clocks = {"monotonic": lambda: self.now_s, "wall": lambda: self.now_s}
        self.loops = [Loop(self.cluster, REF, LoopSettings(), **clocks) for _ in range(2)]
        self.due_s = [self.now_s, self.now_s + 2.3]

    async def run(self, load: float, seconds: float) -> None:
        self.cluster.demand_per_s = load * CAPACITY_PER_S
        end_s = self.now_s + seconds
        while min(self.due_s) < end_s:
            which = self.due_s.index(min(self.due_s))
            self.now_s = max(self.now_s, self.due_s[which])
            known = self.cluster.statuses[-1] if self.cluster.statuses else {}
            self.due_s[which] = self.now_s + await self.loops[which].turn(SPEC, 1, known)
        self.now_s = end_s


@pytest.mark.parametrize("seed", range(6))
def test_they_come_to_rest_with_workers_enough(seed: int) -> None:
    async def scenario() -> None:
        generator, two = random.Random(seed), Two()
        for _ in range(8):
            await two.run(generator.choice([0, 0.3, 0.6, 1.5, 2.2, 3.5, 5]), generator.choice([20, 60, 150]))
        await two.run(1.5, 400)
        ordered, written = len(two.cluster.told("scale")), len(two.cluster.statuses)
        await two.run(1.5, 300)
        assert (len(two.cluster.told("scale")), len(two.cluster.statuses)) == (ordered, written)
        assert two.cluster.replicas in {2, 3}

    asyncio.run(scenario())
