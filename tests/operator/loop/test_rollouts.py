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


def running(world: Any, size: int, places: int | None, **spec: Any) -> Any:
    it = world(replicas=size, **spec)
    it.cluster.bad = {BAD: FIXED_BATCH}
    it.cluster.places = places
    it.run_until(lambda: it.ready == size)
    it.run(30)
    return it


def served(it: Any) -> int:
    return sum(it.cluster._ready(fake) for fake in it.cluster.workers.values())


def change(it: Any, sha256: str, **spec: Any) -> None:
    it.change(model=model(sha256), replicas=it.spec.replicas, **spec)


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
def test_a_change_completes(world: Any, size: int, places: int | None, strategy: str, fewest: int, reasons: set[str]) -> None:
    it = running(world, size, places, rollout={"strategy": strategy})
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


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 3),
    spare=st.integers(0, 2),
    changes=st.lists(st.tuples(st.sampled_from([GOOD, BETTER, BAD]), st.integers(1, 50), st.booleans()), min_size=1, max_size=4),
)
def test_whatever_changes_when(world: Any, size: int, spare: int, changes: list[tuple[str, int, bool]]) -> None:
    it = running(world, size, size + spare)
    for sha256, seconds, restarted in changes:
        change(it, sha256)
        assert play(it, seconds, frozenset({seconds // 2} if restarted else ()))[0] >= (size if spare else size - 1)
    assert play(it, 200)[0] >= (size if spare else size - 1)
    last = changes[-1][0]
    assert served(it) == size
    assert len(it.cluster.workers) == size
    loaded = it.status["model"]
    assert loaded["loadedReplicas"] == size
    if last == BAD:
        assert loaded["sha256"] != BAD
        assert it.condition("Progressing")["reason"] == "RolledBack"
    else:
        assert loaded["sha256"] == last
        assert it.condition("Progressing")["reason"] == "Stable"
