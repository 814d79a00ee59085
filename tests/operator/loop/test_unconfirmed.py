"""Turns on what the watches showed last, while the API server refuses the list that was due: they go on, and nothing shrinks."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from yolastic_operator.model import Fleet, Ref

WHY = "list /api/v1/namespaces/plant/pods: 429 too many requests"


def refuse(it: Any, *hidden: str) -> None:
    """From now on the fleet is the present one, less the workers of which no watch told, with one's own orders."""
    known = asyncio.run(it.cluster.fleet(it.loop._ref))

    async def shown(ref: Ref) -> Fleet:
        it.cluster._settle()
        workers = tuple(worker for worker in known.workers if worker.name not in hidden)
        return replace(known, workers=workers, replicas=it.cluster.replicas, unconfirmed=WHY)

    it.cluster.fleet = shown


def answer(it: Any) -> None:
    del it.cluster.fleet


def at_rest(world: Any, size: int, **spec: Any) -> Any:
    it = world(replicas=size, **spec)
    it.run_until(lambda: it.ready == size)
    it.run(90)
    it.cluster.calls.clear()
    return it


def test_ceilings_and_growth_go_on(world: Any) -> None:
    it = at_rest(world, 2)
    refuse(it)
    it.change(replicas=4, batching={"maxSize": 8})
    it.run(10)
    assert it.cluster.replicas == 4
    assert {(name, ceiling) for name, _, ceiling in it.cluster.told("grant")} == {("worker-1", 8), ("worker-2", 8)}
    assert it.status["observedGeneration"] == 2


def smaller(it: Any) -> list[tuple[str, Any]]:
    return [call for call in it.cluster.calls if call[0] in {"drain", "scale"}]


@pytest.mark.parametrize("hidden", [(), ("worker-1",)])
def test_a_smaller_size_waits_until_all_workers_are_known(world: Any, hidden: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    it = at_rest(world, 3)
    refuse(it, *hidden)
    it.change(replicas=1)
    it.run(120)
    assert smaller(it) == []
    told = {step["about"]: step["text"] for step in it.status["autoscaling"]["explanation"]}
    assert told["Written"] == f"no smaller size while nobody tells whether these are all workers: {WHY}"
    assert [record.message for record in caplog.records].count(f"plant/weld: look: {WHY}") == 1
    answer(it)
    it.run_until(lambda: it.cluster.replicas == it.ready == 1, 30)
    assert len(it.cluster.told("drain")) >= 2
    assert caplog.records[-1].message == "plant/weld: look works again"


def test_little_load_of_the_known_workers_is_no_ground_to_shrink_on(world: Any) -> None:
    calm = {"scaleDown": {"stabilizationWindowSeconds": 60}}
    it = world(autoscaling={"maxReplicas": 5, "behavior": calm})
    it.cluster.demand_per_s = 1400.0
    it.run(300)
    assert it.cluster.replicas == it.ready >= 3
    it.cluster.calls.clear()
    refuse(it, "worker-1")
    it.cluster.demand_per_s = 300.0
    it.run(300)
    assert smaller(it) == []
    assert "not shrinking while nobody tells whether these are all workers" in it.condition("ScalingActive")["message"]
    answer(it)
    it.run(45)
    assert smaller(it) == [], "what was wanted without knowing does not count in the window"
    it.run_until(lambda: it.cluster.replicas < 3, 60)


def test_a_worker_that_leaves_already_is_not_made_up_for_at_the_cost_of_unknown_ones(world: Any) -> None:
    it = at_rest(world, 3)
    it.cluster.drain_s = 1000.0
    it.change(replicas=2)
    it.run(10)
    (drained,) = set(it.cluster.told("drain"))
    hidden = next(name for name in it.cluster.workers if name != drained)
    refuse(it, hidden)
    it.change(replicas=3)
    it.run(300)
    assert it.cluster.told("scale") == []
    answer(it)
    it.run_until(lambda: it.cluster.replicas == it.ready == 3, 60)
    assert drained not in it.cluster.workers
    assert hidden in it.cluster.workers


def test_no_old_worker_makes_room_for_one_of_which_nobody_knows_whether_it_found_some(world: Any) -> None:
    it = world(replicas=2)
    it.cluster.places = 2
    it.run_until(lambda: it.ready == 2)
    it.run(30)
    it.change(replicas=2, model={"uri": "https://models/m.onnx", "sha256": "1" * 64})
    it.run(1)
    assert any(fake.unschedulable for fake in it.cluster.workers.values())
    refuse(it)
    it.run(120)
    assert it.cluster.workload.manner == "Surge"
    answer(it)
    asyncio.run(it.turn())
    assert it.cluster.workload.manner == "Surge", "what was between is not known now either"
    it.run_until(
        lambda: it.ready == 2 and {fake.revision for fake in it.cluster.workers.values()} == {it.cluster.workload.revision}
    )
