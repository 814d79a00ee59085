"""The cluster in memory behaves as a cluster does, as far as the loop can tell."""

import asyncio
from typing import Any

import pytest

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.state import CeilingGrant, WorkerState
from yolastic_operator.act.workload import build
from yolastic_operator.cluster.base import ClusterError, WorkerError
from yolastic_operator.cluster.fake import FakeCluster
from yolastic_operator.model import Fleet, Ref, Worker, Workload

REF = Ref("plant", "weld")


def workload(sha256: str = "0" * 64) -> Workload:
    spec = InferenceSpec.model_validate({"model": {"uri": "file:///m.onnx", "sha256": sha256}})
    return build(REF, spec, "cpu", FakeCluster(lambda: 0.0).runtimes["cpu"])


class Scene:
    def __init__(self, **settings: Any) -> None:
        self.now_s = 0.0
        self.cluster = FakeCluster(lambda: self.now_s, **settings)

    def ensure(self, replicas: int, sha256: str = "0" * 64) -> None:
        asyncio.run(self.cluster.ensure(workload(sha256), replicas))

    def scale(self, replicas: int, *victims: str) -> None:
        asyncio.run(self.cluster.scale(REF, replicas, victims))

    def after(self, seconds: float) -> Fleet:
        self.now_s += seconds
        return asyncio.run(self.cluster.fleet(REF))

    def phases(self) -> dict[str, str]:
        return {worker.name: worker.phase for worker in self.after(0).workers}

    def worker(self, name: str) -> Worker:
        return next(worker for worker in self.after(0).workers if worker.name == name)

    def state(self, name: str) -> WorkerState:
        return asyncio.run(self.cluster.state(REF, self.worker(name)))


def test_workers_become_ready_with_time() -> None:
    it = Scene(start_s=10.0)
    assert it.after(0) == Fleet(None, (), None)
    it.ensure(2)
    it.ensure(9)
    assert it.phases() == {"worker-1": "Starting", "worker-2": "Starting"}
    assert it.state("worker-1").phase == "Starting"
    assert it.state("worker-1").speed is None
    assert [worker.ready for worker in it.after(10).workers] == [True, True]
    assert it.state("worker-1").ready_after_s == 10.0


def test_a_worker_keeps_the_limit_it_was_started_with() -> None:
    it = Scene(start_s=0.0)
    it.ensure(1)
    asyncio.run(it.cluster.grant(REF, it.worker("worker-1"), CeilingGrant(base=64, ceiling=256, bounds={})))
    state = it.state("worker-1")
    assert (state.ceiling.base, state.ceiling.ceiling, state.max_batch) == (32, 32, 32)


def test_demand_is_shared_by_those_that_are_ready() -> None:
    it = Scene(start_s=0.0, demand_per_s=600.0)
    it.ensure(1)
    alone = it.state("worker-1").load
    assert alone.arrived_per_s == 600.0
    assert alone.ratio == pytest.approx(600 / (32 / 0.052))
    it.scale(3)
    assert it.state("worker-2").load.arrived_per_s == 200.0


def test_a_drain_takes_its_time_and_the_others_take_over() -> None:
    it = Scene(start_s=0.0, drain_s=4.0, demand_per_s=100.0)
    it.ensure(2)
    asyncio.run(it.cluster.drain(REF, it.worker("worker-1")))
    assert it.phases() == {"worker-1": "Draining", "worker-2": "Ready"}
    assert it.state("worker-1").load.inflight_images > 0
    assert it.state("worker-2").load.arrived_per_s == 100.0
    it.now_s += 4
    assert it.state("worker-1").load.inflight_images == 0
    it.scale(1)
    assert it.phases() == {"worker-2": "Ready"}


def test_who_goes_first() -> None:
    it = Scene(start_s=0.0, places=3)
    for size in (1, 2, 3, 4):
        it.ensure(1)
        it.scale(size)
        it.after(1)
    assert it.phases()["worker-4"] == "Pending"
    assert it.worker("worker-4").unschedulable
    it.scale(3, "worker-2")
    assert set(it.phases()) == {"worker-1", "worker-2", "worker-3"}
    it.scale(2, "worker-2")
    assert set(it.phases()) == {"worker-1", "worker-3"}
    it.scale(1)
    assert set(it.phases()) == {"worker-1"}


def test_a_new_revision_comes_one_by_one() -> None:
    it = Scene(start_s=5.0)
    it.ensure(2)
    it.after(5)
    it.ensure(2, "1" * 64)
    ready = []
    for _ in range(40):
        fleet = it.after(1)
        ready.append(sum(worker.ready for worker in fleet.workers))
        assert len(fleet.workers) <= 3
    assert min(ready) == 2
    assert {worker.revision for worker in fleet.workers} == {fleet.revision}
    assert len(fleet.workers) == 2


def test_grants_are_taken_over_and_recorded() -> None:
    it = Scene(start_s=0.0)
    it.ensure(1)
    assert not it.state("worker-1").ceiling.granted
    asyncio.run(it.cluster.grant(REF, it.worker("worker-1"), CeilingGrant(base=2, ceiling=8)))
    assert it.state("worker-1").ceiling.model_dump(exclude_none=True, exclude_defaults=True) == {
        "base": 2, "ceiling": 8, "effective": 2, "burst": False, "granted": True,
    }  # fmt: skip
    assert it.cluster.told("grant") == [("worker-1", 2, 8)]


def test_faults_are_what_the_test_says() -> None:
    it = Scene(start_s=0.0)
    it.ensure(2)
    it.cluster.faults["scale"] = ClusterError("503")
    with pytest.raises(ClusterError, match="503"):
        it.scale(3)
    it.cluster.workers["worker-1"].broken = "status 500"
    with pytest.raises(WorkerError, match="status 500"):
        it.state("worker-1")
    gone = it.worker("worker-2")
    del it.cluster.faults["scale"]
    it.scale(1, "worker-2")
    with pytest.raises(WorkerError, match="refused"):
        asyncio.run(it.cluster.state(REF, gone))


def test_who_was_named_as_a_victim_once_goes_before_others_that_serve(world: Any) -> None:
    it = world(replicas=3)
    it.run(30)
    first, second, third = it.cluster.workers
    # One that is not ready goes before it; its mark stays.
    it.cluster.workers[third].drains_s = it.now_s
    asyncio.run(it.cluster.scale(Ref("plant", "weld"), 2, (first,)))
    assert list(it.cluster.workers) == [first, second]
    asyncio.run(it.cluster.scale(Ref("plant", "weld"), 1, ()))
    assert list(it.cluster.workers) == [second]
