"""A fleet whose list is due and refused: what the watches showed counts on, and says that nobody confirmed it."""

import asyncio
from typing import Any, cast

import pytest

from yolastic_operator.act.manifests import Surroundings
from yolastic_operator.cluster.api import ApiError, KubernetesApi
from yolastic_operator.cluster.cache import FleetCache
from yolastic_operator.cluster.control import ControlClient
from yolastic_operator.cluster.kubernetes import KubernetesCluster
from yolastic_operator.model import Fleet, Ref

REF = Ref("plant", "weld")
LABELS = {"yolastic.dev/inference": "weld", "yolastic.dev/revision": "r1"}


def pod(name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "plant", "labels": LABELS, "resourceVersion": "7"}
    return {"metadata": metadata, "status": {"phase": "Running"}}


class Api:
    """Two requests a list; refuses them while there is a `fault`."""

    def __init__(self) -> None:
        self.fault: ApiError | None = None
        self.lists = 0
        self.replicas, self.pods = 1, [pod("weld-1")]

    async def get(self, path: str) -> Any:
        self.lists += 1
        if self.fault is not None:
            raise self.fault
        metadata = {"name": "weld", "namespace": "plant", "labels": LABELS, "resourceVersion": "7"}
        return {"metadata": metadata, "spec": {"replicas": self.replicas}}

    async def list(self, path: str, label_selector: str) -> Any:
        return self.pods


class Rig:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.api = Api()
        self.cache = FleetCache(lambda: self.now_s)
        api, control = cast(KubernetesApi, self.api), cast(ControlClient, None)
        self.cluster = KubernetesCluster(api, control, Surroundings(), self.cache, {}, monotonic=lambda: self.now_s)

    def fleet(self, after_s: float = 5.0) -> Fleet:
        self.now_s += after_s
        return asyncio.run(self.cluster.fleet(REF))

    def names(self, after_s: float = 5.0) -> list[str]:
        return [worker.name for worker in self.fleet(after_s).workers]


@pytest.fixture
def rig() -> Rig:
    return Rig()


REFUSALS = [ApiError("list pods: 429 wait", 429), ApiError("list pods: 500", 500), ApiError("list pods: no answer", 0)]


@pytest.mark.parametrize("refusal", REFUSALS, ids=["429", "500", "no answer"])
def test_the_first_list_must_be_made(rig: Rig, refusal: ApiError) -> None:
    rig.api.fault = refusal
    for _ in range(2):
        with pytest.raises(ApiError, match="list pods"):
            rig.fleet()
    rig.api.fault = None
    assert rig.names() == ["weld-1"]


@pytest.mark.parametrize("refusal", REFUSALS, ids=["429", "500", "no answer"])
def test_one_that_is_due_by_time_is_tried_again_each_turn(rig: Rig, refusal: ApiError) -> None:
    assert rig.fleet().unconfirmed == ""
    rig.api.fault = refusal
    for turn in range(1, 4):
        fleet = rig.fleet(601.0 if turn == 1 else 5.0)
        assert ([worker.name for worker in fleet.workers], fleet.replicas) == (["weld-1"], 1)
        assert (fleet.unconfirmed, rig.api.lists) == (str(refusal), 1 + turn)
    rig.cache.put("pod", pod("weld-2"))
    assert rig.names() == ["weld-1", "weld-2"], "the watches go on"
    rig.api.fault, rig.api.replicas, rig.api.pods = None, 2, [pod("weld-2"), pod("weld-3")]
    fleet = rig.fleet()
    assert ([worker.name for worker in fleet.workers], fleet.unconfirmed) == (["weld-2", "weld-3"], "")
    assert rig.fleet().unconfirmed == ""
    assert rig.api.lists == 6, "and then it is the watches' turn again"


def test_one_that_is_due_because_of_a_doubt_is_tried_again_each_turn(rig: Rig) -> None:
    rig.fleet()
    rig.cache.scaled(REF, 2, version=8)  # and no watch tells of a second pod
    assert rig.fleet(0.0).unconfirmed == "", "a moment is usual"
    rig.api.fault = REFUSALS[0]
    assert rig.fleet().unconfirmed == "list pods: 429 wait"
    assert rig.fleet().unconfirmed == "list pods: 429 wait"
    assert rig.api.lists == 3
    rig.api.fault, rig.api.replicas, rig.api.pods = None, 2, [pod("weld-1"), pod("weld-2")]
    fleet = rig.fleet()
    assert ([worker.name for worker in fleet.workers], fleet.unconfirmed) == (["weld-1", "weld-2"], "")
    assert rig.fleet().unconfirmed == ""
    assert rig.api.lists == 4


def test_a_doubt_that_ends_by_itself_needs_no_list(rig: Rig) -> None:
    rig.fleet()
    rig.cache.scaled(REF, 2, version=8)
    rig.fleet(0.0)
    rig.api.fault = REFUSALS[0]
    assert rig.fleet().unconfirmed
    rig.cache.put("pod", pod("weld-2"))
    assert rig.fleet(0.5).unconfirmed == ""


def test_quick_turns_do_not_ask_a_server_that_refuses_any_quicker(rig: Rig) -> None:
    rig.fleet()
    rig.api.fault = REFUSALS[0]
    rig.fleet(601.0)
    for _ in range(20):
        assert rig.fleet(0.5).unconfirmed == "list pods: 429 wait"
    assert rig.api.lists == 1 + 3


def test_an_inference_made_anew_under_the_name_begins_anew(rig: Rig) -> None:
    rig.fleet()
    rig.api.fault = REFUSALS[0]
    assert rig.fleet(601.0).unconfirmed
    rig.cluster.forget(REF)
    rig.api.fault = None
    assert rig.fleet(0.0).unconfirmed == ""
