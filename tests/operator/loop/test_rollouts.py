"""Rollouts on a cluster in memory: nobody stops before his successor serves, or only one does, and a bad model goes back."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolastic_contract.runtime import RuntimeSpec

GOOD, BETTER, BAD = "0" * 64, "1" * 64, "b" * 64
FIXED_BATCH = ("FixedBatch", "its batch is 1: export it with dynamic=True")


def model(sha256: str) -> dict[str, str]:
    return {"uri": "https://models/m.onnx", "sha256": sha256}


def running(world: Any, size: int, places: int | None, *, quota: bool = False, **spec: Any) -> Any:
    """At rest; `quota`: beyond the places no worker is even made."""
    it = world(replicas=size, **spec)
    it.cluster.bad = {BAD: FIXED_BATCH}
    it.cluster.places, it.cluster.quota = (None, places) if quota else (places, None)
    it.run_until(lambda: it.ready == (size if places is None else min(size, places)))
    it.run(30)
    return it


def autoscaled(world: Any, places: int, per_s: float, **autoscaling: int) -> Any:
    """At rest with as much load as it is."""
    it = world(autoscaling=autoscaling)
    it.cluster.bad = {BAD: FIXED_BATCH}
    it.cluster.places, it.cluster.demand_per_s = places, per_s
    it.run(120)
    return it


def slowly(it: Any) -> None:
    """Whoever goes keeps his device for a while, and the scheduler takes its time."""
    it.cluster.leave_s, it.cluster.place_s = 12.0, 9.0


def served(it: Any) -> int:
    return sum(it.cluster._ready(fake) for fake in it.cluster.workers.values())


def change(it: Any, sha256: str, **spec: Any) -> None:
    size = {"replicas": it.spec.replicas} if it.spec.autoscaling is None else {"autoscaling": it.spec.autoscaling}
    it.change(model=model(sha256), **size, **spec)


def play(it: Any, seconds: float, restarts: frozenset[int] = frozenset()) -> tuple[int, list[str]]:
    """Turns for so long: the fewest workers that served at once, and what Progressing said, without repetition."""
    served_at, said, due = [], [], sorted(it.now_s + after_s for after_s in restarts)

    def look() -> bool:
        served_at.append(served(it))
        told = it.condition("Progressing")
        line = f"{told['reason']}: {told['message']}"
        if not said or said[-1] != line:
            said.append(line)
        if due and it.now_s >= due[0]:
            del due[0]
            it.restart()
        return False

    asyncio.run(it._until(look, seconds))
    return min(served_at), said


@pytest.mark.parametrize(
    ("size", "places", "strategy", "fewest", "reasons"),
    [
        (2, None, "Auto", 2, {"RollingOut", "Stable"}),
        (2, 3, "Auto", 2, {"RollingOut", "Stable"}),
        (2, 2, "Auto", 1, {"RollingOut", "OneByOne", "Stable"}),
        (1, 1, "Auto", 0, {"RollingOut", "OneByOne", "Stable"}),
        (2, None, "Recreate", 1, {"OneByOne", "ScalingUp", "Stable"}),
        (2, None, "RollingUpdate", 2, {"RollingOut", "Stable"}),
    ],
)
@pytest.mark.parametrize("quota", [False, True])
def test_a_change_completes(
    world: Any, quota: bool, size: int, places: int | None, strategy: str, fewest: int, reasons: set[str]
) -> None:
    it = running(world, size, places, quota=quota, rollout={"strategy": strategy})
    change(it, BETTER, rollout={"strategy": strategy})
    fewest_seen, said = play(it, 120)
    assert fewest_seen == fewest
    assert {line.partition(":")[0] for line in said} == reasons, said
    assert it.status["model"] == {"sha256": BETTER, "task": "Detect", "loadedReplicas": size}
    assert it.condition("Ready")["reason"] == "WorkersReady"
    assert it.cluster.workload.manner == ("OneByOne" if strategy == "Recreate" else "Surge")


def test_rolling_update_waits_for_a_device_however_long(world: Any) -> None:
    it = running(world, 2, 2, rollout={"strategy": "RollingUpdate"})
    change(it, BETTER, rollout={"strategy": "RollingUpdate"})
    assert play(it, 300)[0] == 2
    assert "it waits for one" in it.condition("Progressing")["message"]


@pytest.mark.parametrize(("size", "places", "fewest"), [(2, None, 2), (1, None, 1), (2, 2, 1), (1, 1, 0)])
@pytest.mark.parametrize("restarts", [frozenset(), frozenset({5, 25, 35, 60})])
def test_a_bad_model_goes_back(world: Any, size: int, places: int | None, fewest: int, restarts: frozenset[int]) -> None:
    it = running(world, size, places)
    before = set(it.cluster.workers)
    change(it, BAD)
    assert play(it, 150, restarts)[0] == fewest
    assert served(it) == size == it.ready
    assert len(before - set(it.cluster.workers)) == size - fewest, "the others never stopped"
    for kind in ("Ready", "Progressing"):
        told = it.condition(kind)
        assert (told["status"], told["reason"]) == ("False", "RolledBack")
        assert "FixedBatch: its batch is 1: export it with dynamic=True" in told["message"]
    assert it.condition("ModelLoaded")["reason"] == "FixedBatch"
    assert it.status["model"]["sha256"] == GOOD
    assert it.status["observedGeneration"] == it.generation
    assert [event.reason for event in it.cluster.events].count("RolledBack") == 1
    assert it.cluster.workload.manner == "Surge"

    tried = it.cluster._made
    it.run(600)
    assert it.cluster._made == tried, "it is not tried again"
    change(it, BETTER)
    it.run(150)
    assert it.status["model"] == {"sha256": BETTER, "task": "Detect", "loadedReplicas": size}
    assert it.condition("Progressing")["reason"] == "Stable"


@pytest.mark.parametrize(("first", "for_s"), [(BETTER, 15), (BAD, 30)])
def test_what_served_is_known_though_it_has_not_begun_to_serve_again(world: Any, first: str, for_s: int) -> None:
    """Its only worker has made room, and it is asked for again, or was gone back to, a moment before."""
    it = running(world, 1, 1)
    change(it, first)
    play(it, for_s)
    assert served(it) == 0
    change(it, GOOD)
    play(it, 1)
    change(it, BAD)
    play(it, 200, frozenset({2}))
    assert (served(it), it.condition("Ready")["reason"], it.status["model"]["sha256"]) == (1, "RolledBack", GOOD)


def test_what_never_served_has_nothing_to_go_back_to(world: Any) -> None:
    it = world(model=model(BAD), replicas=1)
    it.cluster.bad = {BAD: FIXED_BATCH}
    it.run(120)
    assert it.condition("Ready")["reason"] == "ModelLoadFailed"
    change(it, GOOD)
    it.run(120)
    assert it.condition("Ready")["status"] == "True"


def test_a_bad_runtime_goes_back_too(world: Any) -> None:
    it = running(world, 1, None)
    image = it.cluster.runtimes["cpu"].image
    it.cluster.runtimes["cpu"] = RuntimeSpec(image="example/worker:broken")
    it.run(5)
    newest = next(fake for fake in it.cluster.workers.values() if fake.starts_s > it.now_s)
    newest.starts_s, newest.failure_reason, newest.failure_message = float("inf"), "WorkerExited", "ended with exit code 1"
    it.run(60)
    assert it.condition("Ready")["reason"] == "RolledBack"
    assert it.cluster.workload.runtime.image == image
    assert served(it) == 1


UNPLACED = "of 3 ordered has no place, and one that serves goes at a time"


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("restarts", [frozenset(), frozenset({5, 13, 21, 34, 55, 89})])
@pytest.mark.parametrize("strategy", ["Auto", "Recreate"])
@pytest.mark.parametrize("quota", [False, True])
def test_a_change_completes_with_more_ordered_than_places(
    world: Any, quota: bool, strategy: str, restarts: frozenset[int], slow: bool
) -> None:
    it = running(world, 3, 2, quota=quota, rollout={"strategy": strategy})
    if slow:
        slowly(it)
    assert served(it) == 2
    change(it, BETTER, rollout={"strategy": strategy})
    fewest, said = play(it, 500 if quota else 300, restarts)  # it is tried more patiently
    assert fewest == 1
    assert any(f"1 {UNPLACED}" in line for line in said), said
    assert it.status["model"] == {"sha256": BETTER, "task": "Detect", "loadedReplicas": 2}
    assert it.cluster.replicas == 3
    assert it.condition("Progressing")["reason"] == "ScalingUp"
    assert it.cluster.workload.manner == ("OneByOne" if strategy == "Recreate" else "Surge")

    # Nothing is applied again and again, and a third device is used.
    applied = it.cluster.workload
    it.run(300)
    assert it.cluster.workload == applied
    it.cluster.places, it.cluster.quota = (None, 3) if quota else (3, None)
    it.run(60)
    assert (it.ready, it.condition("Progressing")["reason"]) == (3, "Stable")
    change(it, GOOD, rollout={"strategy": strategy})
    assert play(it, 300)[0] == 2
    assert it.status["model"]["loadedReplicas"] == 3


@pytest.mark.parametrize("restarts", [frozenset(), frozenset({5, 13, 21, 34, 55, 89})])
def test_a_change_completes_when_load_has_ordered_more_than_places(world: Any, restarts: frozenset[int]) -> None:
    it = autoscaled(world, 2, 1400.0, minReplicas=1, maxReplicas=4)
    slowly(it)
    assert (it.cluster.replicas, it.ready, it.condition("ScalingLimited")["reason"]) == (3, 2, "Unschedulable")
    change(it, BETTER)
    fewest, said = play(it, 240, restarts)
    assert (fewest, it.status["model"]["loadedReplicas"], it.status["model"]["sha256"]) == (1, 2, BETTER)
    assert any(f"1 {UNPLACED}" in line for line in said), said
    # The size is what load makes of it.
    it.cluster.demand_per_s = 50.0
    it.run(900)
    assert (it.cluster.replicas, it.condition("Progressing")["reason"]) == (1, "Stable")


@pytest.mark.parametrize("after_s", [2, 14, 30, 45])
def test_load_rises_while_workers_are_replaced_one_by_one(world: Any, after_s: int) -> None:
    it = autoscaled(world, 2, 700.0, minReplicas=2, maxReplicas=4)
    slowly(it)
    assert it.cluster.replicas == 2
    change(it, BETTER)
    assert play(it, after_s)[0] >= 1
    it.cluster.demand_per_s = 2000.0
    assert play(it, 200)[0] == 1
    assert it.cluster.replicas > 2
    assert it.status["model"] == {"sha256": BETTER, "task": "Detect", "loadedReplicas": 2}


@pytest.mark.parametrize(("size", "at_once"), [(3, False), (2, False), (1, False), (0, True)])
def test_fewer_are_ordered_while_workers_are_replaced_one_by_one(world: Any, size: int, at_once: bool) -> None:
    """A Deployment might take a second one that serves: it is told when the old ones have gone, unless nobody is wanted."""
    it = running(world, 4, 3)
    slowly(it)
    change(it, BETTER)
    it.run_until(lambda: bool(it.cluster.workload.unplaced and served(it) == 2))
    it.change(model=model(BETTER), replicas=size)
    assert play(it, 30)[0] >= max(min(size, 3) - 1, 0)
    assert (it.cluster.replicas == size) == at_once
    if not at_once:
        assert "no smaller size while workers are replaced" in it.status["autoscaling"]["explanation"][-1]["text"]
    assert play(it, 200)[0] >= max(min(size, 3) - 1, 0)
    assert (it.cluster.replicas, served(it)) == (size, size)
    assert it.cluster.workload.manner == "Surge"


def test_a_device_that_is_lost_meanwhile_is_noticed(world: Any) -> None:
    it = running(world, 3, 3)
    slowly(it)
    change(it, BETTER)
    it.run_until(lambda: it.cluster.workload.manner == "OneByOne")
    it.cluster.places = 2
    said = play(it, 300)[1]
    assert any("when that stays so for 60 s, the next old one makes room" in line for line in said), said
    assert it.status["model"] == {"sha256": BETTER, "task": "Detect", "loadedReplicas": 2}


@pytest.mark.parametrize(("size", "left", "least", "within_s"), [(1, 0, 0, 120), (2, 1, 1, 700)])
def test_a_revision_that_fits_nowhere_goes_back(world: Any, size: int, left: int, least: int, within_s: int) -> None:
    """What the first old one gave up is nothing to the new revision: a label that no node has, more than any node has."""
    it = running(world, size, size)
    slowly(it)
    change(it, BETTER)
    it.run_until(lambda: served(it) == size - 1 and all(fake.ends_s is None for fake in it.cluster.workers.values()))
    it.cluster.places = left
    assert play(it, within_s)[0] >= least
    assert it.condition("Progressing")["reason"] == "RolledBack"
    assert "NoCapacity" in it.condition("Ready")["message"]
    it.cluster.places = size
    it.run(60)
    assert (served(it), it.status["model"]["sha256"]) == (size, GOOD)


def test_a_bad_model_goes_back_with_more_ordered_than_places(world: Any) -> None:
    it = running(world, 4, 2)
    slowly(it)
    change(it, BAD)
    assert play(it, 300, frozenset({30, 60}))[0] == 1
    assert (served(it), it.cluster.replicas, it.condition("Ready")["reason"]) == (2, 4, "RolledBack")
    change(it, BETTER)
    assert play(it, 300)[0] == 1
    assert it.status["model"]["loadedReplicas"] == 2


@settings(max_examples=100, deadline=None)
@given(
    size=st.integers(1, 4),
    spare=st.integers(-2, 2),
    slow=st.booleans(),
    quota=st.booleans(),
    changes=st.lists(st.tuples(st.sampled_from([GOOD, BETTER, BAD]), st.integers(1, 50), st.booleans()), min_size=1, max_size=4),
)
def test_whatever_changes_when(
    world: Any, size: int, spare: int, slow: bool, quota: bool, changes: list[tuple[str, int, bool]]
) -> None:
    places = max(size + spare, 1)
    it = running(world, size, places, quota=quota)
    if slow:
        slowly(it)
    least = size if places > size else min(size, places) - 1
    for sha256, seconds, restarted in changes:
        change(it, sha256)
        assert play(it, seconds, frozenset({seconds // 2} if restarted else ()))[0] >= least
    assert play(it, 700 if quota else 400)[0] >= least
    last = changes[-1][0]
    assert served(it) == min(size, places)
    assert len(it.cluster.workers) == (min(size, places) if quota else size)
    loaded = it.status["model"]
    assert loaded["loadedReplicas"] == min(size, places)
    if last == BAD:
        assert loaded["sha256"] != BAD
        assert it.condition("Progressing")["reason"] == "RolledBack"
    else:
        assert loaded["sha256"] == last
        assert it.condition("Progressing")["reason"] == ("Stable" if places >= size else "ScalingUp")
