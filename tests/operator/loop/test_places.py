"""Several inferences and too few devices: a second worker is a reserve, and gives way to those who have too few."""

import asyncio
from typing import Any

import pytest

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.state import WorkerState
from yolastic_operator.cluster.base import WorkerError
from yolastic_operator.cluster.fake import FakeCluster
from yolastic_operator.loop import Loop, LoopSettings
from yolastic_operator.model import Ref
from yolastic_operator.policy.places import FORGET_S, HEARD_S, PATIENCE_S, Places

CAPACITY_PER_S = 32 / 0.052


class Plant:
    """Inferences whose workers need a device each, of which there are so many."""

    def __init__(self, devices: int, *names: str) -> None:
        self.devices, self.now_s, self.places = devices, 1000.0, Places()
        self.clusters: dict[str, FakeCluster] = {}
        self.loops: dict[str, Loop] = {}
        self.specs: dict[str, InferenceSpec] = {}
        self.fits_nowhere: set[str] = set()
        self.images: dict[str, float] = {}
        """Sent to each worker so far; they have names of their own within a cluster, and not beyond."""
        for name in names:
            self.add(name)

    def add(self, name: str, **spec: Any) -> None:
        clock = lambda: self.now_s  # noqa: E731
        model = {"uri": "https://models/m.onnx", "sha256": "0" * 64}
        self.specs[name] = InferenceSpec.model_validate({"model": model, **(spec or {"autoscaling": {"maxReplicas": 8}})})
        self.clusters[name] = FakeCluster(clock, start_s=5.0)
        self.clusters[name].places = 0
        settings = LoopSettings(turn_s=5.0, control_timeout_s=0.05)
        self.loops[name] = Loop(
            self.clusters[name], Ref("plant", name), settings, monotonic=clock, wall=clock, places=self.places
        )

    def load(self, name: str, workers: float) -> None:
        self.clusters[name].demand_per_s = workers * CAPACITY_PER_S

    def has(self, name: str) -> int:
        """Devices."""
        return sum(not fake.unschedulable for fake in self.clusters[name].workers.values())

    def run(self, seconds: float) -> None:
        asyncio.run(self._run(self.now_s + seconds))

    async def _run(self, end_s: float) -> None:
        while self.now_s < end_s:
            for name, cluster in self.clusters.items():
                self.count(name, cluster)
                free = self.devices - sum(self.has(other) for other in self.clusters if other != name)
                cluster.places = 0 if name in self.fits_nowhere else free
                await self.loops[name].turn(self.specs[name], 1, self.status(name))
                assert sum(map(self.has, self.clusters)) <= self.devices
            self.now_s += 5.0

    def count(self, name: str, cluster: FakeCluster) -> None:
        """Five seconds' images to each that serves."""
        serving = [fake for fake in cluster.workers.values() if cluster._ready(fake)]
        for fake in cluster.workers.values():
            key = f"{name}/{fake.name}"
            self.images[key] = self.images.get(key, 0.0) + (cluster.demand_per_s * 5.0 / len(serving) if fake in serving else 0.0)
            fake.state_change = lambda state, key=key: self.told(state, key)

    def told(self, state: WorkerState, key: str) -> WorkerState:
        load = state.load.model_copy(update={"demand_images": round(self.images[key])})
        return state.model_copy(update={"load": load, "worker_id": key})

    def status(self, name: str) -> dict[str, Any]:
        statuses = self.clusters[name].statuses
        return statuses[-1] if statuses else {}

    def reasons(self, name: str) -> list[str]:
        return [
            decision["reason"] for decision in self.status(name)["autoscaling"]["decisions"] if decision["from"] != decision["to"]
        ]

    def sizes(self) -> dict[str, int]:
        return {name: self.has(name) for name in self.clusters}


@pytest.fixture
def two() -> Plant:
    plant = Plant(2, "weld")
    plant.load("weld", 0.4)
    plant.run(120)
    assert plant.sizes() == {"weld": 2}
    assert plant.reasons("weld") == ["SecondWorker"]
    return plant


@pytest.mark.parametrize("spec", [{}, {"replicas": 1}, {"autoscaling": {"minReplicas": 1, "maxReplicas": 3, "mode": "Advisory"}}])
def test_who_has_none_gets_the_device_of_a_second_one_and_not_after_the_window(two: Plant, spec: dict[str, Any]) -> None:
    two.add("paint", **spec)
    two.run(40)
    assert two.sizes() == {"weld": 1, "paint": 1}
    assert two.status("paint")["readyReplicas"] == 1
    assert two.reasons("weld")[0] == "GivesWay"
    told = two.status("weld")["autoscaling"]["decisions"][0]["message"]
    assert told.endswith("1 worker, plant/paint has too few workers and waits for a device")


def test_it_is_not_asked_for_again_at_once_and_takes_nothing_back(two: Plant) -> None:
    two.add("paint")
    two.load("paint", 0.1)
    two.run(40)
    two.run(500)
    assert two.clusters["weld"].replicas == 1
    for _ in range(40):
        two.run(60)
        assert two.sizes() == {"weld": 1, "paint": 1}
    assert [reason for reason in two.reasons("weld") if reason != "SecondWorker"][:1] == ["NoPlaceForSecond"]


def test_who_has_too_few_for_his_load_gets_it(two: Plant) -> None:
    two.devices = 3
    two.add("paint")
    two.load("paint", 0.1)
    two.run(60)
    assert two.sizes() == {"weld": 2, "paint": 1}
    two.load("paint", 1.4)
    two.run(60)
    assert two.sizes() == {"weld": 1, "paint": 2}


def test_a_reserve_does_not_give_way_to_a_reserve_nor_what_load_needs_to_anybody(two: Plant) -> None:
    two.devices = 3
    two.add("paint")
    two.load("paint", 0.4)
    two.run(400)
    assert two.sizes() == {"weld": 2, "paint": 1}
    two.load("weld", 1.3)
    two.run(120)
    two.load("paint", 1.4)
    two.run(600)
    assert two.sizes() == {"weld": 2, "paint": 1}


def test_another_kind_of_device_helps_nobody_and_silence_is_no_want() -> None:
    places, weld, paint = Places(), Ref("plant", "weld"), Ref("plant", "paint")
    places.tell(paint, "nvidia.com/gpu", 1, 0, 0.0)
    assert places.wanted_by(weld, "nvidia.com/gpu", HEARD_S) == "plant/paint"
    assert places.wanted_by(paint, "nvidia.com/gpu", 0.0) == ""
    assert places.wanted_by(weld, "amd.com/gpu", 0.0) == places.wanted_by(weld, None, 0.0) == ""
    assert places.wanted_by(weld, "nvidia.com/gpu", HEARD_S + 1) == ""
    places.tell(paint, "nvidia.com/gpu", 1, 0, HEARD_S + 1)
    assert places.wanted_by(weld, "nvidia.com/gpu", HEARD_S + 1) == "plant/paint"
    places.tell(paint, "nvidia.com/gpu", 0, 1, HEARD_S + 2)
    assert places.wanted_by(weld, "nvidia.com/gpu", HEARD_S + 2) == ""
    places.tell(paint, "nvidia.com/gpu", 1, 1, HEARD_S + 3)
    assert places.wanted_by(weld, "nvidia.com/gpu", HEARD_S + 3) == "plant/paint"
    places.forget(paint)
    assert places.wanted_by(weld, "nvidia.com/gpu", HEARD_S + 3) == ""


def test_who_fits_nowhere_costs_the_others_their_reserve_only_for_a_while() -> None:
    places, weld, paint = Places(), Ref("plant", "weld"), Ref("plant", "paint")

    def wanted(lacking: int, placed: int, from_s: float, to_s: float) -> list[bool]:
        found = []
        for now_s in range(int(from_s), int(to_s), 5):
            places.tell(paint, None, lacking, placed, float(now_s))
            found.append(places.wanted_by(weld, None, float(now_s)) != "")
        return found

    assert sum(wanted(2, 1, 0.0, 1000.0)) == PATIENCE_S / 5 + 1
    assert not any(wanted(1, 1, 1000.0, 1100.0)), "fewer is nothing new"
    assert not any(wanted(2, 1, 1100.0, 1200.0)), "nor is as many again: it waited in vain"
    assert not any(wanted(0, 1, 1200.0, 1100.0 + FORGET_S))
    assert not any(wanted(2, 1, 1100.0 + FORGET_S, 1200.0 + FORGET_S)), "nor after a calm"
    assert all(wanted(1, 2, 2000.0, 2200.0)), "it was helped: what it lacks now is another"


def test_a_need_that_comes_and_goes_is_waited_for_as_long_as_one_that_stays() -> None:
    places, weld, paint = Places(), Ref("plant", "weld"), Ref("plant", "paint")
    waited = 0
    for now_s in range(0, 7200, 5):
        places.tell(paint, None, (now_s // 240) % 2, 1, float(now_s))
        waited += places.wanted_by(weld, None, float(now_s)) != ""
    assert waited == PATIENCE_S / 5 + 1


def test_a_need_long_after_another_is_waited_for_anew() -> None:
    places, weld, paint = Places(), Ref("plant", "weld"), Ref("plant", "paint")
    for now_s in range(0, 1000, 5):
        places.tell(paint, None, 1, 1, float(now_s))
    for now_s in range(1000, 1000 + int(FORGET_S) + 10, 5):
        places.tell(paint, None, 0, 1, float(now_s))
    places.tell(paint, None, 1, 1, 1010.0 + FORGET_S)
    assert places.wanted_by(weld, None, 1010.0 + FORGET_S) == "plant/paint"


def test_a_reserve_that_gave_way_is_told_so_though_its_drain_failed_at_first_and_a_restart_knows_it(two: Plant) -> None:
    two.add("paint")
    two.load("paint", 0.1)
    two.clusters["weld"].faults["drain"] = WorkerError("connection reset")
    two.run(10)
    two.clusters["weld"].faults.clear()
    two.run(100)
    assert two.reasons("weld")[0] == "GivesWay"
    two.places, clock = Places(), lambda: two.now_s
    for name, cluster in two.clusters.items():
        settings = LoopSettings(turn_s=5.0, control_timeout_s=0.05)
        two.loops[name] = Loop(cluster, Ref("plant", name), settings, monotonic=clock, wall=clock, places=two.places)
    two.run(300)
    assert two.clusters["weld"].replicas == 1


def test_one_that_fits_nowhere_does_not_end_a_reserve_for_ever(two: Plant) -> None:
    two.add("paint")
    two.specs["paint"] = two.specs["paint"].model_copy(update={"replicas": 1, "autoscaling": None})
    two.devices = 1
    two.run(60)
    assert two.clusters["weld"].replicas == 1
    two.devices = 2
    two.fits_nowhere.add("paint")
    two.run(PATIENCE_S + 900)
    assert two.sizes() == {"weld": 2, "paint": 0}
