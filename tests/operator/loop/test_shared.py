"""Loops of several inferences whose workers are on one device, on clusters in memory: leases, modes, status, explanation."""

import asyncio
from typing import Any

import pytest

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_contract.state import Fit
from yolastic_operator.cluster.base import RefusedError
from yolastic_operator.cluster.fake import MIB, FakeCluster, FakeWorker
from yolastic_operator.loop import Loop, LoopSettings
from yolastic_operator.model import Ref
from yolastic_operator.policy.account import FORGOTTEN_S
from yolastic_operator.policy.accounts import Accounts

FIT = Fit(fixed=600.0 * MIB, per_image=60.0 * MIB, samples=6)
BASE_MIB, BURST_MIB = 600 + 8 * 60, 600 + 32 * 60
SHARED = RuntimeSpec(image="example/worker:1", shared=True)


class Host:
    """Several inferences, each with its loop and its cluster, on one device and one clock."""

    def __init__(self, *names: str, memory_mib: int, **spec: Any) -> None:
        self.now_s = 1_000_000.0
        self.memory_bytes = memory_mib * 10 * MIB // 9 + 1
        model = {"uri": "https://models/m.onnx", "sha256": "0" * 64}
        self.specs = {name: InferenceSpec.model_validate({"model": model, **spec}) for name in names}
        self.clusters = {name: FakeCluster(lambda: self.now_s, {"cpu": SHARED}, start_s=2.0, memory=FIT) for name in names}
        for cluster in self.clusters.values():
            cluster.memory_limit_bytes = self.memory_bytes
        self.turns = dict.fromkeys(names, 0)
        self.most_mib = 0.0
        self.start()

    def start(self, **accounts: Any) -> None:
        """An operator's start: nothing is remembered but what is in the clusters."""
        self.accounts = Accounts(**accounts)
        self.due_s = dict.fromkeys(self.clusters, 0.0)
        clock = lambda: self.now_s  # noqa: E731
        settings = LoopSettings(turn_s=5.0, control_timeout_s=0.05)
        self.loops: dict[str, Loop] = {}
        for name, cluster in self.clusters.items():
            ref = Ref("plant", name)
            self.loops[name] = Loop(cluster, ref, settings, monotonic=clock, wall=clock, accounts=self.accounts)
            self.accounts.listen(ref, lambda name=name: self.wake(name))

    def wake(self, name: str) -> None:
        self.due_s[name] = min(self.due_s[name], self.now_s + 0.5)

    def run(self, seconds: float) -> None:
        """Turns when they are due, or when a bell rings, as the daemons would."""
        asyncio.run(self._run(self.now_s + seconds))

    async def _run(self, end_s: float) -> None:
        while (at_s := min(self.due_s.values())) <= end_s:
            self.now_s = max(self.now_s, at_s)
            name = min(self.due_s, key=lambda one: (self.due_s[one], one))
            self.due_s[name] = float("inf")
            self.turns[name] += 1
            pause_s = await self.loops[name].turn(self.specs[name], 1, self.status(name))
            self.due_s[name] = min(self.due_s[name], self.now_s + pause_s)
            self.most_mib = max(self.most_mib, self.used_mib())
        self.now_s = end_s

    def workers(self) -> dict[str, FakeWorker]:
        return {name: next(iter(cluster.workers.values())) for name, cluster in self.clusters.items()}

    def used_mib(self) -> float:
        everybody = [worker for cluster in self.clusters.values() for worker in cluster.workers.values() if not worker.waits]
        return sum(FIT.at(max(worker.ceiling.ceiling, worker.held_images)) / MIB for worker in everybody)

    def ceilings(self) -> list[int]:
        return [worker.ceiling.ceiling for worker in self.workers().values()]

    def status(self, name: str) -> dict[str, Any]:
        statuses = self.clusters[name].statuses
        return statuses[-1] if statuses else {}

    def step(self, name: str, about: str = "Lease") -> str:
        found: str = next(step["text"] for step in self.status(name)["autoscaling"]["explanation"] if step["about"] == about)
        return found

    def condition(self, name: str, kind: str = "MemoryBudgetResolved") -> tuple[str, str, str]:
        found = next(one for one in self.status(name)["conditions"] if one["type"] == kind)
        return found["status"], found["reason"], found["message"]


@pytest.fixture
def three() -> Host:
    host = Host("a", "b", "c", memory_mib=2 * BASE_MIB + BURST_MIB)
    host.run(40)
    assert host.ceilings() == [8, 8, 8]
    return host


def test_each_starts_in_its_turn_and_the_sum_holds(three: Host) -> None:
    assert three.most_mib <= 2 * BASE_MIB + BURST_MIB
    assert [three.status(name)["readyReplicas"] for name in "abc"] == [1, 1, 1]
    assert three.status("b")["batch"]["ceiling"] == 32
    assert three.status("b")["batch"]["appliedReplicas"] == 1
    assert three.status("b")["batch"]["bounds"]["lease"] == 32
    assert three.step("b").endswith("; worker-1 has its base of 8")
    assert three.condition("b")[:2] == ("True", "Device")


def test_a_burst_comes_within_three_seconds_and_moves_on(three: Host) -> None:
    workers = three.workers()
    for name in "abca":
        for worker in workers.values():
            worker.backlog = False
        workers[name].backlog = True
        three.run(3.0)
        assert workers[name].ceiling.ceiling == 32
        workers[name].held_images = 32
        assert "worker-1 is lent a burst of 32, base 8" in three.step(name)
    assert three.most_mib <= 2 * BASE_MIB + BURST_MIB


def test_all_want_it_and_each_gets_its_share(three: Host) -> None:
    for worker in three.workers().values():
        worker.backlog = True
    three.run(5.0)
    assert sorted(three.ceilings()) == [16, 16, 16]
    assert "is lent a burst of 16 of the 32 it may use, base 8" in three.step("a")
    assert [worker.ceiling.reachable for worker in three.workers().values()] == [16, 16, 16]
    assert [worker.ceiling.wanted for worker in three.workers().values()] == [32, 32, 32]


def test_what_is_not_given_back_is_not_lent(three: Host) -> None:
    first, second, _ = three.workers().values()
    first.backlog, first.gives_back = True, False
    three.run(3.0)
    first.held_images = 32
    first.backlog, second.backlog = False, True
    three.run(10.0)
    assert three.ceilings() == [8, 8, 8]
    assert "worker-1 waits for a burst, base 8" in three.step("b")
    first.gives_back = True
    three.run(3.0)
    assert three.ceilings() == [8, 32, 8]


def test_a_restarted_operator_changes_nothing_and_lends_nothing_at_first(three: Host) -> None:
    first, second, _ = three.workers().values()
    first.backlog = True
    three.run(3.0)
    calls = {name: len(cluster.calls) for name, cluster in three.clusters.items()}
    three.start(settle_s=10.0)
    three.run(8.0)
    assert {name: len(cluster.calls) for name, cluster in three.clusters.items()} == calls
    first.backlog, second.backlog = False, True
    three.run(1.5)
    assert three.ceilings() == [8, 8, 8]
    three.run(3.0)
    assert three.ceilings() == [8, 32, 8]


def test_at_rest_it_looks_every_second_and_writes_nothing(three: Host) -> None:
    three.run(60)
    turns, written = dict(three.turns), [len(cluster.statuses) for cluster in three.clusters.values()]
    three.run(60)
    assert all(three.turns[name] - turns[name] <= 61 for name in "abc")
    assert [len(cluster.statuses) for cluster in three.clusters.values()] == written


def test_a_fourth_without_room_says_so() -> None:
    host = Host("a", "b", "c", "d", memory_mib=3 * BASE_MIB + 600)
    host.run(60)
    status, reason, message = host.condition("d")
    assert (status, reason) == ("False", "DeviceFull")
    assert message.startswith("worker-1 finds no room to start on device GPU-0 with ")
    assert message.endswith("beside the bases of older workers: a batch of one takes 660Mi")
    assert host.condition("d", "Ready")[:2] == ("False", "Starting")
    assert [host.condition(name)[0] for name in "abc"] == ["True", "True", "True"]
    assert host.status("a")["batch"]["limitedBy"] == "Lease"
    assert (host.status("a")["batch"]["base"], host.status("a")["batch"]["ceiling"]) == (8, 16)
    assert host.step("a", "Ceiling").startswith("ceiling 16: the shared device can lend no more beside the bases of the others")
    # One goes, and there is room.
    host.clusters["a"].replicas = 0
    host.specs["a"] = host.specs["a"].model_copy(update={"replicas": 0})
    host.run(60)
    assert host.condition("d")[:2] == ("True", "Device")


@pytest.mark.parametrize("mode", ["Advisory", "Paused"])
def test_leases_are_kept_in_every_mode(mode: str) -> None:
    host = Host("a", "b", memory_mib=BASE_MIB + BURST_MIB, autoscaling={"maxReplicas": 1, "mode": mode})
    host.run(30)
    assert host.ceilings() == [8, 8], "nobody may start without a grant"
    host.workers()["a"].backlog = True
    host.run(3.0)
    assert host.ceilings() == [32, 8], "the burst tier is the worker's in every mode"


@pytest.mark.parametrize("mode", ["Advisory", "Paused"])
def test_what_is_advised_or_would_be_decided_is_not_leased(mode: str) -> None:
    """The same worker learns that it is slower: batches of more than four images are not worth it any more."""
    host = Host("a", "b", memory_mib=BASE_MIB + BURST_MIB, autoscaling={"maxReplicas": 1})
    host.run(60)
    autoscaling = host.specs["a"].autoscaling
    assert autoscaling is not None
    host.specs["a"] = host.specs["a"].model_copy(update={"autoscaling": autoscaling.model_copy(update={"mode": mode})})
    host.clusters["a"].speed = Fit(fixed=0.004, per_image=0.019, samples=20)
    host.clusters["a"].calls.clear()
    host.run(60)
    assert [verb for verb, _ in host.clusters["a"].calls if verb == "grant"] == []
    assert host.step("a", "Ceiling").startswith("ceiling 4" if mode == "Advisory" else "held at ceiling 32, base 8; ceiling 4")
    host.workers()["a"].backlog = True
    host.run(3.0)
    assert host.ceilings() == [32, 8], "its burst is what it was granted before"
    assert host.most_mib <= BASE_MIB + BURST_MIB


def test_what_the_ledger_grants_is_told() -> None:
    host = Host("a", "b", memory_mib=BASE_MIB + BURST_MIB)
    host.run(40)
    host.workers()["a"].backlog = True
    told = set()
    for _ in range(8):
        host.run(0.5)
        told.add(host.step("a", "Written"))
    assert "base 8 and ceiling 32 leased to worker-1" in told


@pytest.mark.parametrize("refusal", [RefusedError("UriNotAllowed", "not here"), None])
def test_after_a_restart_a_silent_worker_of_a_refused_object_may_hold_what_it_held(refusal: RefusedError | None) -> None:
    host = Host("a", "b", memory_mib=BASE_MIB + BURST_MIB)
    host.run(40)
    first, second = host.workers().values()
    first.backlog = True
    host.run(3.0)
    first.held_images = 32
    first.hangs = True
    if refusal is not None:
        host.clusters["a"].faults["ensure"] = refusal
    host.now_s += 5
    host.start(born_s=host.now_s, settle_s=10.0, expected=lambda: [("plant", name) for name in "ab"])
    second.backlog = True
    host.run(60)
    assert host.ceilings() == [32, 8]
    assert host.most_mib <= BASE_MIB + BURST_MIB
    assert "worker worker-1 has not said what it holds" in host.step("b")


def test_one_that_was_refused_at_first_and_is_mended_counts_until_it_speaks() -> None:
    host = Host("a", "b", memory_mib=BASE_MIB + BURST_MIB)
    host.run(40)
    first, second = host.workers().values()
    first.backlog = True
    host.run(3.0)
    first.held_images, first.hangs = 32, True
    host.clusters["a"].faults["ensure"] = RefusedError("UriNotAllowed", "not here")
    host.start(born_s=host.now_s + 1, expected=lambda: [("plant", name) for name in "ab"])
    host.run(20)
    del host.clusters["a"].faults["ensure"]
    second.backlog = True
    host.run(2 * FORGOTTEN_S)
    assert host.ceilings() == [32, 8]
    assert host.most_mib <= BASE_MIB + BURST_MIB


def test_a_refused_object_that_never_speaks_does_not_hold_up_its_neighbours_for_ever() -> None:
    host = Host("a", "b", memory_mib=2 * BURST_MIB)
    host.run(40)
    first, second = host.workers().values()
    first.hangs = True
    host.clusters["a"].faults["ensure"] = RefusedError("UriNotAllowed", "not here")
    host.start(born_s=host.now_s + 1, expected=lambda: [("plant", name) for name in "ab"])
    second.backlog = True
    host.run(FORGOTTEN_S - 10)
    assert second.ceiling.ceiling == 8
    host.run(20)
    assert second.ceiling.ceiling == 32


def test_a_refused_object_still_counts(three: Host) -> None:
    first, second, _ = three.workers().values()
    first.backlog = True
    three.run(3.0)
    three.clusters["a"].faults["ensure"] = RefusedError("UriNotAllowed", "not here")
    three.start(expected=lambda: [("plant", name) for name in "abc"])
    second.backlog = True
    three.run(20.0)
    assert three.most_mib <= 2 * BASE_MIB + BURST_MIB
    assert first.ceiling.ceiling + second.ceiling.ceiling <= 40


def change_model(host: Host, name: str) -> None:
    model = host.specs[name].model.model_copy(update={"sha256": "1" * 64})
    host.specs[name] = host.specs[name].model_copy(update={"model": model})


@pytest.mark.parametrize(("memory_mib", "reasons"), [(2 * 660 + 300, {"RollingOut"}), (BASE_MIB, {"RollingOut", "OneByOne"})])
def test_a_change_completes_on_a_device_full_of_bases(memory_mib: int, reasons: set[str]) -> None:
    """The old worker makes room by its base, or where that is not enough as a whole."""
    host = Host("a", memory_mib=memory_mib, batching={"policy": "Fixed", "maxSize": 8})
    host.run(30)
    change_model(host, "a")
    seen = set()
    for _ in range(100):
        host.run(1.0)
        seen.add(host.condition("a", "Progressing")[1])
    assert seen == {*reasons, "Stable"}
    assert host.status("a")["model"]["sha256"] == "1" * 64
    assert host.most_mib <= memory_mib


def test_a_change_completes_with_more_ordered_than_the_device_has_memory_for() -> None:
    host = Host("a", memory_mib=2 * 660 + 100, replicas=3, batching={"policy": "Fixed", "maxSize": 1})
    cluster = host.clusters["a"]

    def serving() -> int:
        return sum(cluster._ready(worker) for worker in cluster.workers.values())

    host.run(60)
    assert serving() == 2
    change_model(host, "a")
    fewest = 2
    for _ in range(200):
        host.run(1.0)
        fewest = min(fewest, serving())
    assert fewest == 1
    assert host.status("a")["model"] == {"sha256": "1" * 64, "task": "Detect", "loadedReplicas": 2}
    assert cluster.workload is not None
    assert (cluster.workload.manner, cluster.replicas) == ("Surge", 3)


def test_nobody_makes_room_for_one_that_would_find_none_all_the_same() -> None:
    host = Host("a", "b", memory_mib=700 + BASE_MIB, batching={"policy": "Fixed", "maxSize": 8})
    host.run(60)
    before = host.workers()["b"]
    cluster = host.clusters["b"]
    change_model(host, "b")
    cluster.memory = Fit(fixed=2000.0 * MIB, per_image=60.0 * MIB)
    before.state_change = lambda state: state.model_copy(update={"memory": state.memory.model_copy(update={"fit": FIT})})
    host.run(120)
    assert before.name in cluster.workers
    assert cluster.workload is not None
    assert cluster.workload.manner == "Surge"
    assert host.condition("b", "Progressing")[2].endswith("; the new worker waits for memory of the shared device")


def test_while_a_new_revision_starts_the_old_one_is_lent_no_more_than_its_bounds_allow() -> None:
    """The new one has told no figures yet, so nothing is decided: what was decided for the old one stands."""
    host = Host("a", memory_mib=4 * BURST_MIB, objective={"latencyMilliseconds": 80})
    host.run(30)
    old = host.workers()["a"]
    old.backlog = True
    host.run(10)
    assert old.ceiling.ceiling == 16
    host.clusters["a"].places = 1
    change_model(host, "a")
    host.run(9.0)
    assert len(host.clusters["a"].workers) == 2
    assert (old.ceiling.base, old.ceiling.ceiling, old.ceiling.wanted) == (8, 16, 16)
    assert host.step("a").endswith("worker-1 is lent a burst of 16, base 8")
