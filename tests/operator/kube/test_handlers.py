"""What wakes a loop, and what it survives; without an API server."""

import asyncio
import itertools
import time
from collections.abc import Mapping
from typing import Any

import kopf
import pytest
from pydantic import ValidationError

from yolastic_contract.inference import InferenceSpec
from yolastic_operator import handlers
from yolastic_operator.cluster.cache import FleetCache
from yolastic_operator.handlers import Bell, Deps
from yolastic_operator.heartbeat import Heartbeat
from yolastic_operator.model import Ref
from yolastic_operator.refusal import describe

REF = Ref("plant", "weld", "uid-1")
GOOD: dict[str, Any] = {"model": {"uri": "http://models.invalid/m.onnx", "sha256": "0" * 64}}


class RecordedLoop:
    """Counts its turns; each may raise what the test says."""

    def __init__(self, pause_s: float = 60.0, failure: Exception | None = None) -> None:
        self.pause_s = pause_s
        self.failure = failure
        self.turns: asyncio.Queue[tuple[int, Mapping[str, Any]]] = asyncio.Queue()
        self.refusals: list[tuple[int, str, str]] = []

    async def turn(self, spec: InferenceSpec, generation: int, status: Mapping[str, Any]) -> float:
        self.turns.put_nowait((generation, status))
        if self.failure is not None:
            raise self.failure
        return self.pause_s

    async def refuse(self, generation: int, status: Mapping[str, Any], reason: str, message: str) -> float:
        self.refusals.append((generation, reason, message))
        return self.pause_s


def body(spec: dict[str, Any], generation: int = 1) -> kopf.Body:
    metadata = {"name": "weld", "namespace": "plant", "uid": "uid-1", "generation": generation}
    return kopf.Body({"metadata": metadata, "spec": spec, "status": {"replicas": 2}})


def deps_with(loop: RecordedLoop, gone: list[Ref] | None = None) -> Deps:
    forget = (lambda _: None) if gone is None else gone.append
    make_loop: Any = lambda _: loop  # noqa: E731
    return Deps(make_loop, FleetCache(time.monotonic), {}, Heartbeat(time.monotonic), forget, turn_s=0.01)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "MIN_PAUSE_S", 0.0)


def test_a_ring_ends_the_pause() -> None:
    loop = RecordedLoop()
    deps = deps_with(loop)

    async def scenario() -> None:
        task = asyncio.create_task(handlers._tend(REF, body(GOOD), deps))
        for _ in range(3):
            assert await asyncio.wait_for(loop.turns.get(), 5) == (1, {"replicas": 2})
            await asyncio.sleep(0)
            deps.wake(("plant", "weld"))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())


def test_a_loop_that_ends_leaves_nothing() -> None:
    loop, gone = RecordedLoop(), list[Ref]()
    deps = deps_with(loop, gone)

    async def scenario() -> None:
        task = asyncio.create_task(handlers._tend(REF, body(GOOD), deps))
        await asyncio.wait_for(loop.turns.get(), 5)
        assert list(deps.bells) == [("plant", "weld")]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
    assert deps.bells == {}
    assert gone == [REF]
    assert deps.heartbeat.late(-1) == []


def test_a_loop_whose_object_was_made_anew_ends_in_the_middle_of_its_turn_and_before_the_next_one_begins() -> None:
    order: list[str] = []

    class Hanging(RecordedLoop):
        async def turn(self, *_: Any) -> float:
            order.append("the old one turns")
            try:
                await asyncio.Event().wait()
            finally:
                order.append("it ends")
            raise AssertionError

    class Next(RecordedLoop):
        async def turn(self, *told: Any) -> float:
            order.append("the next one turns")
            return await super().turn(*told)

    loops = iter([Hanging(), following := Next()])
    deps = deps_with(following, gone := [])
    deps.make_loop = lambda _: next(loops)  # type: ignore[assignment, return-value]
    again = Ref("plant", "weld", "uid-2")

    async def scenario() -> None:
        old = asyncio.create_task(handlers._tend(REF, body(GOOD), deps))
        await asyncio.sleep(0)
        new = asyncio.create_task(handlers._tend(again, body(GOOD), deps))
        await asyncio.wait_for(following.turns.get(), 5)
        await asyncio.wait_for(old, 5)
        assert gone == [REF]
        deps.wake(("plant", "weld"))
        await asyncio.wait_for(following.turns.get(), 5)
        new.cancel()
        await asyncio.gather(new, return_exceptions=True)

    asyncio.run(scenario())
    assert order[:3] == ["the old one turns", "it ends", "the next one turns"]
    assert (deps.bells, gone) == ({}, [REF, again])


def test_a_regular_pause_ends_at_the_place_of_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, asked = RecordedLoop(pause_s=0.01), list[float]()
    deps = deps_with(loop)
    monkeypatch.setattr(handlers.pacing, "pause_s", lambda now_s, place_s, turn_s: asked.append(place_s) or turn_s)

    async def scenario() -> None:
        task = asyncio.create_task(handlers._tend(REF, body(GOOD), deps))
        for _ in range(3):
            await asyncio.wait_for(loop.turns.get(), 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
    assert len(asked) >= 2
    assert set(asked) == {handlers.pacing.phase_s(REF, 0.01)}


def test_the_status_is_kept_until_it_was_read_and_who_owns_a_field_never() -> None:
    loop = RecordedLoop()
    deps = deps_with(loop)
    registry = kopf.OperatorRegistry()
    handlers.register(registry, deps)
    (watch,) = (handler for handler in registry._watching.get_all_handlers() if handler.id == "inference")
    bell = Bell()

    def seen() -> dict[str, Any]:
        metadata = {"name": "weld", "namespace": "plant", "generation": 1, "managedFields": [{"manager": "kubectl"}]}
        one = {"metadata": metadata, "spec": GOOD, "status": {"replicas": 2}}
        asyncio.run(watch.fn(event={"type": "MODIFIED", "object": one}))  # type: ignore[arg-type]
        assert "managedFields" not in one["metadata"]
        return one

    assert "status" in seen()  # its daemon comes later
    deps.bells["plant", "weld"] = bell
    assert "status" in seen()  # and may not act yet, or has not begun
    bell.generation = 1
    bell.rung.clear()
    assert "status" not in seen()
    assert not bell.rung.is_set(), "a status that was written is no news"
    bell.generation = 2
    seen()
    assert bell.rung.is_set(), "another spec is"


def test_an_object_that_is_gone_is_marked_even_where_nothing_held_it() -> None:
    """kopf ends a daemon by the mark alone."""
    registry = kopf.OperatorRegistry()
    handlers.register(registry, deps_with(RecordedLoop()))
    (watch,) = (handler for handler in registry._watching.get_all_handlers() if handler.id == "inference")
    for mark, expected in (({}, "t0"), ({"deletionTimestamp": "t1"}, "t1")):
        one = {"metadata": {"name": "weld", "namespace": "plant", "creationTimestamp": "t0", **mark}}
        asyncio.run(watch.fn(event={"type": "DELETED", "object": one}))  # type: ignore[arg-type]
        assert one["metadata"]["deletionTimestamp"] == expected


def test_another_spec_of_a_runtime_wakes_and_nothing_else_of_it() -> None:
    deps = deps_with(RecordedLoop())
    registry = kopf.OperatorRegistry()
    handlers.register(registry, deps)
    (watch,) = (handler for handler in registry._watching.get_all_handlers() if handler.id == "runtime")
    bell = deps.bells["plant", "weld"] = Bell()

    def wakes(kind: str, image: str, **metadata: Any) -> bool:
        bell.rung.clear()
        one = {"metadata": {"name": "fast", **metadata}, "spec": {"image": image}}
        asyncio.run(watch.fn(event={"type": kind, "object": one}))  # type: ignore[arg-type]
        return bell.rung.is_set()

    told = [("ADDED", "worker:1"), ("MODIFIED", "worker:1"), ("MODIFIED", "worker:2"), ("DELETED", "worker:2")]
    assert [wakes(*one, resourceVersion=str(version)) for version, one in enumerate(told)] == [True, False, True, True]
    assert deps.runtimes == {}


def test_the_least_pause_is_part_of_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, waited, timeout = RecordedLoop(pause_s=0.05), list[float](), asyncio.timeout
    monkeypatch.setattr(handlers, "MIN_PAUSE_S", 0.02)
    monkeypatch.setattr(handlers.asyncio, "timeout", lambda delay_s: waited.append(delay_s) or timeout(delay_s))

    async def scenario() -> None:
        task = asyncio.create_task(handlers._tend(REF, body(GOOD), deps_with(loop)))
        for _ in range(2):
            await asyncio.wait_for(loop.turns.get(), 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
    assert waited[0] == pytest.approx(0.03)


def test_an_unforeseen_error_costs_one_turn() -> None:
    loop = RecordedLoop(failure=RuntimeError("unforeseen"))
    deps = deps_with(loop)

    async def scenario() -> None:
        task = asyncio.create_task(handlers._tend(REF, body(GOOD), deps))
        for _ in range(3):
            await asyncio.wait_for(loop.turns.get(), 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "spec.model: Field required"),
        (
            GOOD | {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}},
            "spec.autoscaling: minReplicas must not exceed maxReplicas",
        ),
        (GOOD | {"replicas": 1, "autoscaling": {"maxReplicas": 2}}, "spec: set either replicas or autoscaling, not both"),
        (
            GOOD | {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5},
            "spec.a: Extra inputs are not permitted; spec.b: Extra inputs are not permitted; "
            "spec.c: Extra inputs are not permitted; and 2 more",
        ),
    ],
)
def test_a_spec_that_cannot_be_read_is_told_in_a_sentence(spec: dict[str, Any], message: str) -> None:
    loop = RecordedLoop()
    bell = Bell()
    pause_s = asyncio.run(handlers._turn(loop, REF, body(spec, 7), bell, 5.0))  # type: ignore[arg-type]
    assert loop.refusals == [(7, "InvalidSpec", message)]
    assert (pause_s, bell.generation) == (60.0, 7)


def test_a_refusal_never_shows_values() -> None:
    secret = "hunter2" * 10
    with pytest.raises(ValidationError) as caught:
        InferenceSpec.model_validate(GOOD | {"model": {"uri": f"ftp://{secret}/m", "sha256": secret}})
    assert secret not in describe(caught.value)


def test_only_late_loops_are_unhealthy() -> None:
    now_s = 0.0
    heartbeat = Heartbeat(lambda: now_s)
    heartbeat.beat("a")
    now_s = 200.0
    heartbeat.beat("b")
    now_s = 301.0
    assert heartbeat.late(300) == ["a"]
    heartbeat.end("a")
    assert heartbeat.late(300) == []


def test_a_pod_that_is_gone_gives_its_memory_back() -> None:
    loop, gone = RecordedLoop(), list[tuple[tuple[str, str], str]]()
    deps = deps_with(loop)
    deps.pod_gone = lambda key, pod: gone.append((key, pod))
    registry = kopf.OperatorRegistry()
    handlers.register(registry, deps)
    (pod,) = (handler for handler in registry._watching.get_all_handlers() if handler.id == "pod")
    metadata = {"name": "weld-1", "namespace": "plant", "labels": {"yolastic.dev/inference": "weld"}, "resourceVersion": "1"}
    for kind in ("ADDED", "DELETED"):
        asyncio.run(pod.fn(event={"type": kind, "object": {"metadata": metadata, "status": {}}}))  # type: ignore[arg-type]
    assert gone == [(("plant", "weld"), "weld-1")]


def test_an_outage_of_the_server_is_waited_out_and_its_end_is_noticed_within_a_turn() -> None:
    chosen = kopf.OperatorSettings()
    handlers.configure(chosen)
    pauses: Any = chosen.networking.error_backoffs
    for _ in range(2):  # every request begins anew
        first = list(itertools.islice(pauses, 1000))
        assert len(first) == 1000
        assert first[0] < 1
        assert max(first) < 5.0
