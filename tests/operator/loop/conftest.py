"""A loop on a cluster in memory, with a clock that the test moves."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from yolastic_contract.inference import InferenceSpec
from yolastic_operator.cluster.fake import FakeCluster
from yolastic_operator.loop import Loop, LoopSettings
from yolastic_operator.model import Ref, Source

REF = Ref("plant", "weld", "uid-1")


@dataclass
class Figures:
    """Telemetry kept in lists."""

    turns: list[float] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    desired: list[tuple[int, int]] = field(default_factory=list)
    recommendations: list[int] = field(default_factory=list)
    ceilings: list[Mapping[str, int]] = field(default_factory=list)
    ages: list[tuple[Source, float | None]] = field(default_factory=list)

    def turn(self, ref: Ref, seconds: float) -> None:
        self.turns.append(seconds)

    def sizes(self, ref: Ref, desired: int, ready: int) -> None:
        self.desired.append((desired, ready))

    def recommended(self, ref: Ref, replicas: int) -> None:
        self.recommendations.append(replicas)

    def ceiling(self, ref: Ref, bounds: Mapping[str, int]) -> None:
        self.ceilings.append(bounds)

    def decision(self, ref: Ref, reason: str) -> None:
        self.reasons.append(reason)

    def observation_age(self, ref: Ref, source: Source, age_s: float | None) -> None:
        self.ages.append((source, age_s))


class World:
    """A cluster, a loop, and their time. `run` plays turns as a daemon would, without waiting."""

    def __init__(self, **spec: Any) -> None:
        self.now_s = 1_000_000.0
        self.cluster = FakeCluster(lambda: self.now_s)
        self.figures = Figures()
        self.generation = 1
        self.spec = self.make_spec(**spec)
        self.settings = LoopSettings(turn_s=5.0, control_timeout_s=0.05)
        self.loop = self.make_loop()

    def make_spec(self, **spec: Any) -> InferenceSpec:
        return InferenceSpec.model_validate({"model": {"uri": "https://models/m.onnx", "sha256": "0" * 64}, **spec})

    def make_loop(self) -> Loop:
        clock = lambda: self.now_s  # noqa: E731
        return Loop(self.cluster, REF, self.settings, monotonic=clock, wall=clock, telemetry=self.figures)

    def change(self, **spec: Any) -> None:
        self.spec = self.make_spec(**spec)
        self.generation += 1

    def restart(self) -> None:
        """Another operator process: it has the status and the cluster, and nothing else."""
        self.loop = self.make_loop()

    @property
    def status(self) -> dict[str, Any]:
        return self.cluster.statuses[-1] if self.cluster.statuses else {}

    def condition(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = next(item for item in self.status["conditions"] if item["type"] == kind)
        return found

    async def turn(self) -> float:
        return await self.loop.turn(self.spec, self.generation, self.status)

    async def _until(self, stop: Callable[[], bool], limit_s: float) -> None:
        end_s = self.now_s + limit_s
        while True:
            delay_s = await self.turn()
            if stop():
                return
            if self.now_s + delay_s > end_s:
                break
            self.now_s += delay_s
        self.now_s = end_s

    def run(self, seconds: float) -> None:
        """Turns for so long."""
        asyncio.run(self._until(lambda: False, seconds))

    def run_until(self, stop: Callable[[], bool], limit_s: float = 600.0) -> None:
        """Turns until it is so."""
        asyncio.run(self._until(stop, limit_s))
        assert stop(), f"not within {limit_s} s"

    @property
    def ready(self) -> int:
        return int(self.status.get("readyReplicas", 0))


@pytest.fixture(scope="session")
def world() -> type[World]:
    return World
