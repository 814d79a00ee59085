"""A loop with a Prometheus: it decides by it, and by the workers' own word when it is gone."""

import asyncio
import math
from typing import Any

import pytest

from yolastic_operator.loop import Loop
from yolastic_operator.model import Fresh, Missing, Ref
from yolastic_operator.observe.prometheus import LoadRatios, Prometheus

ELASTIC = {"minReplicas": 1, "maxReplicas": 6, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 30}}}


class Told(Prometheus):
    """Answers what the test says."""

    def __init__(self) -> None:
        self.answer = LoadRatios()

    async def load_ratios(self, ref: Ref) -> LoadRatios:
        return self.answer


def with_prometheus(world: Any) -> tuple[Any, Told]:
    it, prometheus = world(autoscaling=ELASTIC), Told()
    clock = lambda: it.now_s  # noqa: E731
    it.loop = Loop(
        it.cluster, Ref("plant", "weld"), it.settings, monotonic=clock, wall=clock, telemetry=it.figures, prometheus=prometheus
    )
    return it, prometheus


def ratios(it: Any, ratio: float, age_s: float = 7.0) -> LoadRatios:
    return LoadRatios({name: Fresh(ratio, age_s) for name in it.cluster.workers}, Fresh(age_s, age_s))


def test_the_size_follows_prometheus(world: Any) -> None:
    it, prometheus = with_prometheus(world)
    it.run(30)
    prometheus.answer = ratios(it, 1.6)
    it.run(5)
    assert it.cluster.replicas == 2
    assert it.status["autoscaling"]["metrics"] == [
        {"name": "yolastic_load_ratio", "current": "1600m", "target": "800m", "source": "Prometheus"}
    ]
    assert ("Prometheus", 7.0) in it.figures.ages


def test_without_it_the_workers_are_asked(world: Any) -> None:
    it, prometheus = with_prometheus(world)
    prometheus.answer = LoadRatios(newest=Missing("Prometheus: no answer within 3 s"))
    it.cluster.demand_per_s = 2.2 * 32 / 0.052
    it.run_until(lambda: it.ready == 3)
    assert it.status["autoscaling"]["metrics"][0]["source"] == "Workers"
    assert it.condition("MetricsAvailable")["status"] == "True"
    assert it.figures.ages[:2] == [("Workers", None), ("Prometheus", None)], "while nobody serves nothing is missing"
    assert it.figures.ages[-2:] == [("Workers", 0.0), ("Prometheus", math.inf)]
    assert "no answer within 3 s" in it.condition("MetricsAvailable")["message"]


def test_ages_alone_are_not_written(world: Any) -> None:
    it, prometheus = with_prometheus(world)
    it.run(900)
    prometheus.answer = ratios(it, 0.0)
    it.run(60)
    written = len(it.cluster.statuses)
    for step in range(120):
        prometheus.answer = ratios(it, 0.0, age_s=2.0 + 5 * (step % 3))
        it.run(5)
    assert len(it.cluster.statuses) == written
    (figures,) = [step["text"] for step in it.status["autoscaling"]["explanation"] if step["about"] == "Figures"]
    assert "1 by Prometheus, up to " in figures


@pytest.mark.parametrize("every", [2, 10])
def test_one_late_answer_now_and_then_is_not_written(world: Any, every: int) -> None:
    """A Prometheus that scrapes each minute has nothing fresh for a moment of it; the workers tell then."""
    it, prometheus = with_prometheus(world)
    it.cluster.demand_per_s = 0.5 * 32 / 0.052
    it.run(30)
    prometheus.answer = ratios(it, 0.5)
    it.run(900)
    written = len(it.cluster.statuses)
    for turn in range(120):
        late = LoadRatios(newest=Missing("Prometheus: no answer within 3 s"))
        prometheus.answer = late if turn % every == 0 else ratios(it, 0.5)
        asyncio.run(it.turn())
        it.now_s += 5
    assert len(it.cluster.statuses) == written
    prometheus.answer = LoadRatios(newest=Missing("Prometheus: no answer within 3 s"))
    it.run(40)
    assert it.condition("MetricsAvailable")["reason"] == "WorkersOnly"
    assert it.status["autoscaling"]["metrics"][0]["source"] == "Workers"
