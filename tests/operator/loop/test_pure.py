"""The pure parts of acting: steps of shrinking, grants, status and events."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolastic_contract.behavior import Behavior
from yolastic_contract.inference import InferenceSpec
from yolastic_contract.inference_status import (
    MOST_SCALE_EVENTS,
    Condition,
    DecisionStatus,
    ExplanationStep,
    InferenceStatus,
    ScaleEventStatus,
)
from yolastic_contract.runtime import RuntimeSpec
from yolastic_contract.state import ModelState, WorkerState
from yolastic_operator.act import ceilings, changes, events, news, rolling, shrink
from yolastic_operator.act import status as folding
from yolastic_operator.act.rebalancing import Rebalancing
from yolastic_operator.act.workload import build
from yolastic_operator.cluster.fake import FakeCluster
from yolastic_operator.loop import _first_size
from yolastic_operator.model import (
    Bounds,
    CeilingDecision,
    ConditionUpdate,
    Decision,
    Fleet,
    Fresh,
    Missing,
    Mode,
    Observation,
    PolicyState,
    Reading,
    Ref,
    ReplicaDecision,
    ScaleEvent,
    Stale,
    Tiers,
    Worker,
    WorkerPhase,
    WorkerView,
)
from yolastic_operator.model import (
    Step as ExplainedStep,
)
from yolastic_operator.policy import explain
from yolastic_operator.policy.rollout import Kept, Record

REF = Ref("plant", "weld")
SPEC = InferenceSpec.model_validate({"model": {"uri": "file:///m.onnx", "sha256": "0" * 64}})


def a_state() -> WorkerState:
    async def scenario() -> WorkerState:
        cluster = FakeCluster(lambda: 0.0, start_s=0.0)
        await cluster.ensure(build(REF, SPEC, "cpu", cluster.runtimes["cpu"]), 1)
        return await cluster.state(REF, (await cluster.fleet(REF)).workers[0])

    return asyncio.run(scenario())


STATE = a_state()


def state(phase: str = "Ready", inflight: int = 0, **other: Any) -> WorkerState:
    load = STATE.load.model_copy(update={"inflight_images": inflight})
    return STATE.model_copy(update={"phase": phase, "load": load, **other})


def view(
    name: str, reading: Reading[WorkerState], phase: WorkerPhase = "Ready", *, ready: bool = True, revision: str = "a"
) -> WorkerView:
    worker = Worker(name, revision, phase, 0.0, address=None if phase == "Pending" else "127.0.0.1", ready=ready)
    return WorkerView(worker, reading, Missing("not asked"))


def seen(replicas: int | None, *views: WorkerView) -> Observation:
    return Observation(Fleet(replicas, tuple(item.worker for item in views), "a"), views)


SERVING, BUSY = view("w1", Fresh(state())), view("w2", Fresh(state(inflight=4)))
EMPTY = view("w1", Fresh(state("Draining")), ready=False)
DRAINING = view("w2", Fresh(state("Draining", inflight=4)), ready=False)
SILENT = view("w2", Missing("no answer"))
STARTING = view("w2", Missing("connection refused"), "Starting", ready=False)
FAILED = view("w2", Missing("the worker is Failed"), "Failed", ready=False)
NOWHERE = replace(STARTING, worker=replace(STARTING.worker, address=None))
PENDING = view("w2", Missing("the worker is Pending"), "Pending", ready=False)
OLD_STATE = view("w1", Stale(state("Draining"), 9.0), ready=False)
THIRD = view("w3", Fresh(state(inflight=1)))
FOURTH = view("w4", Fresh(state(inflight=1)))
UNREADY = view("w2", Fresh(state()), ready=False)
UNREADY_AND_BUSY = view("w2", Fresh(state(inflight=4)), ready=False)
Step = tuple[tuple[str, ...], int | None, tuple[str, ...], tuple[str, ...]]
"""drain, order, victims, waiting"""
NOTHING: Step = ((), None, (), ())
STEPS: dict[str, tuple[Observation, int, tuple[str, ...], dict[str, float], Step]] = {
    "no size ordered yet": (seen(None, SERVING), 3, (), {}, NOTHING),
    "all is well": (seen(2, SERVING, BUSY), 2, (), {}, NOTHING),
    "grow at once": (seen(2, SERVING, BUSY), 5, (), {}, ((), 5, (), ())),
    "shrink begins with a drain": (seen(2, SERVING, BUSY), 1, ("w2",), {}, (("w2",), None, (), ("w2",))),
    "a drain not heard of is sent again": (seen(2, SERVING, BUSY), 1, ("w2",), {"w2": 99.0}, (("w2",), None, (), ("w2",))),
    "images in flight are waited for": (seen(2, SERVING, DRAINING), 1, ("w2",), {"w2": 99.0}, ((), None, (), ("w2",))),
    "an empty one is ordered away": (seen(2, EMPTY, BUSY), 1, ("w1",), {"w1": 99.0}, ((), 1, ("w1",), ())),
    "an old word of emptiness does not do": (seen(2, OLD_STATE, BUSY), 1, ("w1",), {"w1": 99.0}, (("w1",), None, (), ("w1",))),
    "time is up": (seen(2, SERVING, DRAINING), 1, ("w2",), {"w2": 70.0}, ((), 1, ("w2",), ())),
    "silence is waited for": (seen(2, SERVING, SILENT), 1, ("w2",), {"w2": 99.0}, (("w2",), None, (), ("w2",))),
    "who never served goes at once": (seen(2, SERVING, STARTING), 1, ("w2",), {}, ((), 1, ("w2",), ())),
    "who has no place goes at once": (seen(2, SERVING, PENDING), 1, ("w2",), {}, ((), 1, ("w2",), ())),
    "who has failed meanwhile goes": (seen(2, SERVING, FAILED), 1, ("w2",), {"w2": 99.0}, ((), 1, ("w2",), ())),
    "who nobody can reach yet goes": (seen(2, SERVING, NOWHERE), 1, ("w2",), {"w2": 99.0}, ((), 1, ("w2",), ())),
    "one of two is done": (seen(2, EMPTY, DRAINING), 0, ("w1", "w2"), {"w1": 99.0, "w2": 99.0}, ((), 1, ("w1",), ("w2",))),
    "load is back: let go first": (seen(2, SERVING, DRAINING), 2, (), {"w2": 99.0}, ((), 1, ("w2",), ())),
    "much load is back: let go first": (seen(2, SERVING, DRAINING), 5, (), {"w2": 99.0}, ((), 1, ("w2",), ())),
    "load is back, and who never heard stays": (seen(2, SERVING, BUSY), 2, (), {"w2": 60.0}, NOTHING),
    "load is back for one of two": (seen(3, SERVING, BUSY, THIRD), 2, (), {"w2": 60.0, "w3": 60.0}, ((), 2, ("w3",), ())),
    "load is back, and who gets none of it goes": (seen(2, SERVING, UNREADY), 2, (), {"w2": 99.0}, ((), 1, ("w2",), ())),
    "who serves nobody goes at once": (seen(2, SERVING, UNREADY), 1, ("w2",), {}, ((), 1, ("w2",), ())),
    "images in flight are waited for where no more come": (
        seen(2, SERVING, UNREADY_AND_BUSY), 1, ("w2",), {}, (("w2",), None, (), ("w2",)),
    ),
    "a further one goes, and nobody is let off": (
        seen(4, SERVING, BUSY, THIRD, FOURTH), 1, ("w2", "w3", "w4"), {"w2": 60.0, "w3": 60.0},
        (("w4",), 2, ("w2", "w3"), ("w4",)),
    ),
    "more load is back": (seen(2, SERVING, BUSY), 4, (), {"w2": 60.0}, ((), 4, (), ())),
    "who never heard and is silent goes": (seen(2, SERVING, SILENT), 2, (), {"w2": 60.0}, ((), 1, ("w2",), ())),
    "who has gone is forgotten": (seen(1, SERVING), 1, (), {"w9": 50.0}, NOTHING),
    "who was never made is given up first": (seen(4, SERVING, BUSY), 2, ("w1", "w2"), {}, ((), 2, (), ())),
    "more than was never made": (seen(4, SERVING, BUSY), 1, ("w2",), {}, (("w2",), 2, (), ("w2",))),
    "nobody was made": (seen(2), 0, (), {}, ((), 0, (), ())),
    "load is back, and one was never made": (seen(3, SERVING, DRAINING), 3, (), {"w2": 99.0}, ((), 1, ("w2",), ())),
    "victims nobody knows are none": (seen(2, SERVING, BUSY), 1, ("w9",), {}, NOTHING),
}  # fmt: skip


@pytest.mark.parametrize(("observation", "desired", "victims", "leaving", "expected"), STEPS.values(), ids=STEPS)
def test_steps_of_shrinking(
    observation: Observation, desired: int, victims: tuple[str, ...], leaving: dict[str, float], expected: Step
) -> None:
    step = shrink.plan(observation, desired=desired, victims=victims, leaving=leaving, seen={}, now_s=100.0, timeout_s=30.0)
    assert (step.drain, step.order, step.victims, step.waiting) == expected
    assert "w9" not in step.leaving


def test_who_was_ordered_away_is_not_taken_off_the_size_again() -> None:
    for desired in (1, 2):
        step = shrink.plan(
            seen(2, EMPTY, replace(BUSY), view("w3", Fresh(state()))),
            desired=desired,
            victims=("w1",),
            leaving={},
            seen={"w1": 0.0},
            dismissed={"w1"},
            now_s=100.0,
            timeout_s=30.0,
        )
        assert (step.drain, step.order) == ((), None)


def test_who_was_silent_whenever_it_was_asked_to_drain_gets_its_time_once_it_is_heard_again() -> None:
    def step(observation: Observation, leaving: Any, deaf: Any, now_s: float) -> shrink.SizeStep:
        return shrink.plan(
            observation, desired=1, victims=("w2",), leaving=leaving, seen={}, deaf=deaf, now_s=now_s, timeout_s=30.0
        )

    asked = step(seen(2, SERVING, SILENT), {}, (), 0.0)
    assert (asked.drain, asked.order, asked.deaf) == (("w2",), None, {"w2"})
    asked = step(seen(2, SERVING, SILENT), asked.leaving, asked.deaf, 5.0)
    assert (asked.drain, asked.order, asked.deaf) == (("w2",), None, {"w2"})
    heard = step(seen(2, SERVING, BUSY), asked.leaving, asked.deaf, 100.0)
    assert (heard.drain, heard.order, heard.deaf) == (("w2",), None, frozenset())
    late = step(seen(2, SERVING, BUSY), heard.leaving, heard.deaf, 130.0)
    assert (late.order, late.victims) == (1, ("w2",)), "it is told and does not drain: the cluster's signal makes it"
    gone = step(seen(2, SERVING, SILENT), asked.leaving, asked.deaf, 30.0)
    assert (gone.order, gone.victims) == (1, ("w2",)), "nor is silence waited for without end"


@pytest.mark.parametrize(("replicas", "kept_s"), [(2, 10), (1, 120), (None, 120)])
def test_how_long_who_was_ordered_away_counts_as_gone(replicas: int | None, kept_s: float) -> None:
    observation = seen(replicas, SERVING, DRAINING, view("w3", Missing("gone"), "Terminating", ready=False))
    assert shrink.still_dismissed(observation, {"w2": 0.0}, kept_s - 1) == {"w2": 0.0}
    assert shrink.still_dismissed(observation, {"w2": 0.0}, kept_s) == {}


def test_an_unbidden_drain_is_taken_over_after_a_while() -> None:
    observation = seen(2, SERVING, DRAINING)
    noticed = shrink.unbidden(observation, {}, {}, 100.0)
    assert noticed == {"w2": 100.0}
    for now_s, order in ((109.9, None), (110.0, 1)):
        noticed = shrink.unbidden(observation, {}, noticed, now_s)
        step = shrink.plan(observation, desired=2, victims=(), leaving={}, seen=noticed, now_s=now_s, timeout_s=30.0)
        assert step.order == order
    assert shrink.unbidden(observation, {"w2": 90.0}, noticed, 120.0) == {}


@given(
    phases=st.lists(st.sampled_from([SERVING, BUSY, EMPTY, DRAINING, SILENT, STARTING, PENDING]), max_size=8),
    desired=st.integers(0, 10),
    data=st.data(),
)
def test_an_order_never_takes_who_still_serves(phases: list[WorkerView], desired: int, data: st.DataObject) -> None:
    views = [replace(item, worker=replace(item.worker, name=f"w{index}")) for index, item in enumerate(phases)]
    names = [item.worker.name for item in views]
    victims = data.draw(st.permutations(names))[: max(len(names) - desired, 0)]
    leaving = dict.fromkeys(data.draw(st.sets(st.sampled_from(names))) if names else (), 95.0)
    observation = seen(len(views), *views)
    step = shrink.plan(observation, desired=desired, victims=victims, leaving=leaving, seen={}, now_s=100.0, timeout_s=30.0)
    if step.order is None:
        assert step.victims == ()
    elif step.order > len(views):
        assert (step.order, step.victims) == (desired, ())
    else:
        assert len(step.victims) == len(views) - step.order
        growing = desired > len(views) - len(leaving)
        for item in views:
            if item.worker.name in step.victims and not growing:
                assert not item.worker.ready
    assert set(step.drain) <= set(step.leaving) <= set(names)


def decision(base: int = 8, ceiling: int = 32) -> CeilingDecision:
    return CeilingDecision(Tiers(base, ceiling), Bounds(spec=32, latency=48), "Spec")


def with_ceiling(
    base: int,
    ceiling: int,
    *,
    granted: bool = True,
    buckets: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
    budget_bytes: int | None = None,
) -> WorkerState:
    now = {"base": base, "ceiling": ceiling, "granted": granted, "budget_bytes": budget_bytes}
    tiers = STATE.ceiling.model_copy(update=now)
    return state(ceiling=tiers, buckets=list(buckets))


GRANTS: dict[str, tuple[WorkerView, list[tuple[int, int]]]] = {
    "has them": (view("w", Fresh(with_ceiling(8, 32))), []),
    "its own start values": (view("w", Fresh(with_ceiling(8, 32, granted=False))), [(8, 32)]),
    "too high": (view("w", Fresh(with_ceiling(16, 64))), [(8, 32)]),
    "other base": (view("w", Fresh(with_ceiling(4, 32))), [(8, 32)]),
    "another budget": (view("w", Fresh(with_ceiling(8, 32, budget_bytes=1 << 30))), [(8, 32)]),
    "warmed up to less": (view("w", Fresh(with_ceiling(8, 32, buckets=(1, 2, 4)))), [(4, 4)]),
    "has what it can": (view("w", Fresh(with_ceiling(4, 4, buckets=(1, 2, 4)))), []),
    "another revision": (view("w", Fresh(with_ceiling(1, 1)), revision="b"), []),
    "not ready": (view("w", Fresh(state("Starting"))), []),
    "silent": (view("w", Missing("no answer")), []),
    "old news": (view("w", Stale(with_ceiling(1, 1), 9.0)), []),
}


@pytest.mark.parametrize(("worker", "expected"), GRANTS.values(), ids=GRANTS)
def test_who_is_granted_what(worker: WorkerView, expected: list[tuple[int, int]]) -> None:
    grants = [(grant.base, grant.ceiling) for _, grant in ceilings.pending(seen(1, worker), decision())]
    assert grants == expected
    for _, grant in ceilings.pending(seen(1, worker), decision()):
        assert grant.bounds == {"spec": 32, "latency": 48}


def condition(kind: str, status: str, reason: str, message: str = "", at: str = "2026-01-01T00:00:00Z") -> Condition:
    return Condition.model_validate(
        {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at}
    )


def status_with(*conditions: Condition, decisions: tuple[DecisionStatus, ...] = ()) -> InferenceStatus:
    plain = InferenceStatus(conditions=list(conditions))
    return plain.model_copy(update={"autoscaling": plain.autoscaling.model_copy(update={"decisions": list(decisions)})})


def said(text: str | None) -> Condition | None:
    """`Ready False Starting`: type, status, reason."""
    return condition(*text.split()) if text else None


TOLD: dict[str, tuple[str | None, str, str | None]] = {
    "ready": (None, "Ready True WorkersReady", "Normal Ready"),
    "ready as before": ("Ready True WorkersReady", "Ready True WorkersReady 2/3", None),
    "starting": (None, "Ready False Starting", None),
    "lost": ("Ready True WorkersReady", "Ready False Starting", "Warning NotReady"),
    "refused": (None, "Ready False RuntimeNotFound", "Warning RuntimeNotFound"),
    "refused as before": ("Ready False RuntimeNotFound", "Ready False RuntimeNotFound again", None),
    "told by ModelLoaded": ("Ready False Starting", "Ready False ModelLoadFailed", None),
    "model failed": (None, "ModelLoaded False FixedBatch", "Warning ModelLoadFailed"),
    "model unknown": (None, "ModelLoaded Unknown Loading", None),
    "model loaded": ("ModelLoaded Unknown Loading", "ModelLoaded True Loaded", "Normal ModelLoaded"),
    "does not fit": (None, "MemoryBudgetResolved False DoesNotFit", "Warning MemoryBudgetUnresolved"),
    "metrics from the start": (None, "MetricsAvailable True Fresh", None),
    "metrics after the start": ("MetricsAvailable Unknown NoReadyWorkers", "MetricsAvailable True Fresh", None),
    "metrics gone": ("MetricsAvailable True Fresh", "MetricsAvailable False Stale", "Warning MetricsUnavailable"),
    "metrics back": ("MetricsAvailable False Stale", "MetricsAvailable True Fresh", "Normal MetricsAvailable"),
    "no room": (None, "ScalingLimited True Unschedulable", "Warning ScalingLimited"),
    "at the maximum": ("ScalingLimited False InRange", "ScalingLimited True TooManyReplicas", "Warning ScalingLimited"),
    "at the minimum": (None, "ScalingLimited True TooFewReplicas", None),
    "progress": (None, "Progressing True ScalingUp", None),
}


@pytest.mark.parametrize(("before", "after", "expected"), TOLD.values(), ids=TOLD)
def test_which_conditions_are_told(before: str | None, after: str, expected: str | None) -> None:
    statuses = [status_with(*(item for item in [said(text)] if item)) for text in (before, after)]
    told = [f"{event.type} {event.reason}" for event in events.between(*statuses)]
    assert told == ([expected] if expected else [])


def change(time: str, start: int, end: int, **other: Any) -> DecisionStatus:
    return DecisionStatus.model_validate({"time": time, "from": start, "to": end, "reason": "R", "message": "why", **other})


def test_of_two_decisions_that_read_the_same_the_second_is_told_as_well() -> None:
    once = change("2026-01-01T00:00:00Z", 1, 2)
    assert len(events.between(status_with(decisions=(once,)), status_with(decisions=(once, once)))) == 1


def test_each_new_decision_is_told_once_oldest_first() -> None:
    first = change("2026-01-01T00:00:00Z", 1, 2)
    second = change("2026-01-01T00:00:05Z", 2, 2, batchFrom=8, batchTo=16)
    third = change("2026-01-01T00:00:05Z", 2, 4)
    told = events.between(status_with(decisions=(first,)), status_with(decisions=(third, second, first)))
    assert [(event.reason, event.message) for event in told] == [
        ("BatchCeilingChanged", "from 8 to 16 images: why"),
        ("Rescaled", "from 2 to 4 workers: why"),
    ]


def test_a_transition_time_moves_with_the_status_alone() -> None:
    status = InferenceStatus()
    times = []
    steps = (("False", "A"), ("False", "B"), ("True", "C"), ("True", "C"), ("False", "A"))
    for index, (value, reason) in enumerate(steps):
        update = ConditionUpdate("Ready", value, reason)  # type: ignore[arg-type]
        status = folding.with_conditions(status, [update], generation=1, now_s=60.0 * index)
        times.append(status.conditions[0].last_transition_time)
    assert [time[14:16] for time in times] == ["00", "00", "02", "02", "04"]


def test_at_rest_a_status_shares_with_the_one_before_whatever_is_as_it_was() -> None:
    observation = seen(1, view("a", Fresh(STATE)))
    update = ConditionUpdate("Ready", "True", "WorkersReady")

    def fold(before: InferenceStatus, update: ConditionUpdate, now_s: float) -> InferenceStatus:
        return folding.fold(before, folding.Facts(REF, SPEC, 1, now_s, observation, conditions=[update]))

    first = fold(InferenceStatus(), update, 60.0)
    later = fold(first, update, 65.0)
    assert later == first
    assert later.conditions is first.conditions
    assert later.model is first.model
    other = fold(later, replace(update, reason="Other"), 70.0)
    assert other.conditions[0].reason == "Other"
    assert other.model is first.model


def test_a_status_of_another_version_is_read_as_far_as_it_is_known() -> None:
    good = folding.render(
        status_with(condition("Ready", "True", "WorkersReady"), decisions=(change("2026-01-01T00:00:00Z", 1, 2),))
    )
    read = folding.read({**good, "canary": {"x": 1}, "memory": {"budget": "8Gi", "shape": "round"}, "desiredReplicas": 3})
    assert read.desired_replicas == 3
    assert read.conditions[0].type == "Ready"
    assert read.autoscaling.decisions[0].to == 2
    assert read.memory.budget == "8Gi", "what stands beside it is known"
    assert folding.read({}) == InferenceStatus()
    assert folding.read({"autoscaling": "none", "desiredReplicas": 3}).desired_replicas == 3


@pytest.mark.parametrize(
    "strange",
    [
        {"autoscaling": {"ladderStep": 1}},
        {"autoscaling": {"decisions": [{"trigger": "x"}, {}]}},
        {"autoscaling": {"metrics": [{"source": "Keda"}]}},
        {"conditions": [{"severity": "x"}]},
        {"conditions": [{"reason": "no/reason"}, {}]},
    ],
)
def test_what_another_version_says_beside_what_is_known_costs_nothing_else(strange: dict[str, Any]) -> None:
    told = tuple(change("2026-01-01T00:00:00Z", size, size + 1) for size in (1, 2))
    good = folding.render(status_with(condition("Ready", "True", "R"), condition("ModelLoaded", "True", "R"), decisions=told))
    good["autoscaling"]["metrics"] = [{"name": "x", "source": "Workers", "current": "1", "target": "1"}]

    def merge(part: Any, more: Any) -> Any:
        if isinstance(more, dict):
            return {**part, **{name: merge(part[name], value) if name in part else value for name, value in more.items()}}
        if isinstance(more, list):
            return [merge(one, other) for one, other in zip(part, more, strict=False)] + part[len(more) :]
        return more

    read = folding.read(merge(good, strange))
    assert [one.to for one in read.autoscaling.decisions] == [2, 3]
    assert [one.type for one in read.conditions][-1] == "ModelLoaded"


def test_numbers_in_messages_are_not_worth_a_write() -> None:
    base = status_with(condition("ScalingActive", "True", "ValidMetrics", "load ratio 0.52 over 2 workers"))
    noise = status_with(condition("ScalingActive", "True", "ValidMetrics", "load ratio 0.6 over 2 workers"))
    other = status_with(condition("ScalingActive", "True", "ValidMetrics", "load ratio 0.52 over 2 workers; holding"))
    assert news.same_but_for_numbers(base, noise)
    assert not news.same_but_for_numbers(base, other)


def test_another_load_to_aim_for_is_a_number() -> None:
    def aims(percent: int) -> InferenceStatus:
        size = replace(decided().replicas, load_ratio=0.5, source="Workers", target_percent=percent)
        known = PolicyState(objective_percent=percent, swing=percent / 200)
        return folded(NO_STATUS, decision=replace(decided(), replicas=size, state=known))

    assert [(one.target, one.name) for one in aims(61).autoscaling.metrics] == [("610m", "yolastic_load_ratio")]
    assert (aims(61).autoscaling.objective_load_percent, aims(61).autoscaling.demand_swing_percent) == (61, 30)
    assert aims(61) != aims(70)
    assert news.same_but_for_numbers(aims(61), aims(70))


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ((1400, 0), (1400, 0), True),
        ((1400, 0), (1100, 0), True),
        ((1400, 0), (1000, 0), False),
        ((1000, 0), (1400, 0), False),
        ((1400, 0), (10, 0), False),
        ((10, 0), (6, 0), True),  # by chance
        ((10, 0), (2, 0), False),
        ((2, 0), (0, 0), False),
        ((1, 0), (0, 0), True),  # by chance
        ((0, 0), (2, 0), False),
        ((100, 0), (100, 300), True),
        ((100, 0), (100, 900), False),
    ],
)
def test_which_loads_are_the_same_but_for_noise(before: tuple[int, int], now: tuple[int, int], same: bool) -> None:
    def explained(per_s: int, queued: int) -> InferenceStatus:
        load = {"arrived_per_s": per_s / 2, "queue_images": queued // 2}
        views = [view(name, Fresh(state(load=STATE.load.model_copy(update=load)))) for name in ("a", "b")]
        told = explain.steps(seen(2, *views), ReplicaDecision(2, None, "FixedReplicas", ""), None)
        said = [ExplanationStep(about=step.about, text=step.text) for step in told]
        plain = InferenceStatus()
        return plain.model_copy(update={"autoscaling": plain.autoscaling.model_copy(update={"explanation": said})})

    assert news.same_load(explained(*before), explained(*now)) is same
    assert news.same_explanation(explained(*before), explained(*now)), "the words are the same"
    assert news.same_load(InferenceStatus(), explained(*now))


NO_STATUS = InferenceStatus()


def folded(before: InferenceStatus = NO_STATUS, now_s: float = 60.0, **facts: Any) -> InferenceStatus:
    return folding.fold(
        before, folding.Facts(REF, facts.pop("spec", SPEC), 1, now_s, **{"observation": seen(2, SERVING, BUSY), **facts})
    )


def decided(lost_for_s: float | None = None, *steps: ExplainedStep) -> Decision:
    size = ReplicaDecision(2, None, "MetricsUnavailable", "why", lost_for_s=lost_for_s)
    return Decision(size, None, (), (), PolicyState(), explanation=steps)


def test_who_is_being_removed_or_not_ready_is_not_told_as_one_that_serves_the_model() -> None:
    model = ModelState(sha256="0" * 64, task="Detect", names=["a"], input_width=64, input_height=64, precision="FP32")
    views = [
        view(f"w{index}", Fresh(state(model=model)), phase, ready=ready)
        for index, (phase, ready) in enumerate([("Ready", True), ("Ready", False), ("Terminating", True)])
    ]  # type: ignore[arg-type]
    now = folded(observation=seen(2, *views))
    assert (now.replicas, now.ready_replicas, now.model.loaded_replicas) == (2, 1, 1)


def test_a_word_that_no_condition_can_bear_costs_no_status() -> None:
    update = ConditionUpdate("ModelLoaded", "False", "OutOfnvidia.com/gpu", "half a \ud800 character")
    told = folding._condition(None, update, 1, 60.0)
    assert (told.reason, told.message) == ("Unknown", "OutOfnvidia.com/gpu: half a ? character")


def test_what_is_told_is_bounded_whoever_says_it() -> None:
    long = "x" * 5000
    now = folded(
        decision=decided(None, *(ExplainedStep("Load", long) for _ in range(40))),
        conditions=[ConditionUpdate("Ready", "False", "R" * 100, long)],
        changes=[change(f"2026-01-01T00:00:0{number}Z", number, number + 1) for number in range(9)],
    )
    assert (len(now.conditions[0].reason), len(now.conditions[0].message)) == (64, 1024)
    assert (len(now.autoscaling.explanation), len(now.autoscaling.explanation[0].text)) == (16, 512)
    assert [one.from_ for one in now.autoscaling.decisions] == [8, 7, 6, 5, 4], "the newest first"


def test_the_begin_of_an_outage_is_told_once() -> None:
    first = folded(decision=decided(10.0), now_s=100.0)
    later = folded(first, decision=decided(15.9), now_s=105.0)
    assert first.autoscaling.metrics_lost_time == later.autoscaling.metrics_lost_time == "1970-01-01T00:01:30Z"
    assert folded(later, decision=decided(), now_s=110.0).autoscaling.metrics_lost_time is None


def test_the_address_stays_when_a_turn_could_not_ask_for_it() -> None:
    assert folded(folded(url="http://weld"), url=None).url == "http://weld"


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [(10, 12, True), (10, 13, False), (100, 110, True), (100, 111, False), (0, 1, False), (1, 0, False)],
)
def test_which_bounds_count_as_the_same(before: int, after: int, same: bool) -> None:
    """0: not even one image fits, and that is never noise."""
    assert folding._is_same_bound(before, after) == same


@pytest.mark.parametrize(("mebibytes", "told"), [(100, "100Mi"), (105, "100Mi"), (95, "100Mi"), (106, "106Mi"), (None, None)])
def test_a_size_keeps_its_words_while_it_moves_within_noise(mebibytes: int | None, told: str | None) -> None:
    assert folding._steady_bytes("100Mi", None if mebibytes is None else mebibytes << 20) == told


def test_which_changes_of_size_a_restart_goes_on_from() -> None:
    """Oldest first; one of a time to come is of a clock that was set since."""
    told = [scaled("1970-01-01T00:02:00Z", -1), scaled("1970-01-01T00:00:50Z", 2), scaled("never", 1)]
    plain = InferenceStatus()
    status = plain.model_copy(update={"autoscaling": plain.autoscaling.model_copy(update={"scale_events": told})})
    assert changes.scale_events(status, now_s=1000.0, wall_s=60.0) == (ScaleEvent(990.0, 2), ScaleEvent(1000.0, -1))


def scaled(time: str, change: int) -> ScaleEventStatus:
    return ScaleEventStatus(time=time, change=change)


def test_what_rates_count_is_kept_for_as_long_as_they_do_and_advice_or_a_ceiling_is_none_of_it() -> None:
    slow = Behavior.model_validate({"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 600}]}})
    before = [scaled("1970-01-01T00:05:00Z", 1), scaled("1970-01-01T00:04:50Z", -1), scaled("1970-01-01T00:00:10Z", 1)]
    nothing = [change("1970-01-01T00:11:00Z", 4, 9, advice=True), change("1970-01-01T00:11:00Z", 4, 4, batchFrom=8, batchTo=16)]
    assert changes.still_counted(before, nothing, slow, wall_s=660.0) is before
    found = changes.still_counted(before, [*nothing, change("1970-01-01T00:11:00Z", 4, 6)], slow, wall_s=660.0)
    assert found == [scaled("1970-01-01T00:11:00Z", 2), scaled("1970-01-01T00:05:00Z", 1)]


def test_of_too_many_the_oldest_are_counted_as_one_and_never_as_less() -> None:
    slow = Behavior.model_validate({"scaleUp": {"policies": [{"type": "Pods", "value": 90, "periodSeconds": 1800}]}})
    kept: list[ScaleEventStatus] = []
    for second in range(50):
        told = change(f"1970-01-01T00:00:{second:02}Z", second, second + 1)
        kept = changes.still_counted(kept, [told], slow, wall_s=float(second))
    assert len(kept) == MOST_SCALE_EVENTS
    assert sum(event.change for event in kept) == 50
    assert kept[-1] == scaled("1970-01-01T00:00:18Z", 19)


def test_second_workers_that_were_given_up_are_known_again() -> None:
    told = (
        change("1970-01-01T00:00:50Z", 1, 2, reason="SecondWorker"),
        change("1970-01-01T00:00:40Z", 2, 1, reason="NoPlaceForSecond"),
        change("1970-01-01T00:00:30Z", 2, 1, reason="NoPlaceForSecond", advice=True),
        change("1970-01-01T00:00:20Z", 2, 1, reason="NoPlaceForSecond"),
        change("1970-01-01T00:00:10Z", 2, 1, reason="GivesWay"),
        change("1970-01-01T00:00:05Z", 2, 1, reason="LoadBelowTarget"),
    )
    assert changes.gave_up_s(status_with(decisions=told), now_s=1000.0, wall_s=60.0) == [980.0, 960.0, 950.0]


def test_another_recommendation_alone_is_not_worth_a_write() -> None:
    def recommending(size: int) -> InferenceStatus:
        return folded(decision=replace(decided(), replicas=replace(decided().replicas, recommended=size)))

    assert news.same_but_for_numbers(recommending(2), recommending(3))


def test_advice_is_told_again_after_it_was_acted_on_and_paused_tells_nothing_new() -> None:
    news_of = changes.Changes(NO_STATUS)

    def told(mode: Mode, ceiling: int, advised: int | None, now_s: float) -> list[tuple[int, int | None, bool | None]]:
        turn = replace(decided(), ceiling=decision(1, ceiling), mode=mode)
        turn = replace(turn, replicas=replace(turn.replicas, advised=advised))
        return [(one.to, one.batch_to, one.advice) for one in news_of.of(turn, 2, moved=None, now_s=now_s, wall_s=now_s)]

    assert told("Advisory", 32, 4, 0.0) == [(2, 32, True), (4, None, True)]
    assert told("Advisory", 32, 4, 100.0) == []
    assert told("Active", 8, None, 200.0) == [(2, 8, None)]
    assert told("Advisory", 32, 4, 300.0) == [(2, 32, True), (4, None, True)]
    assert told("Advisory", 32, 2, 320.0) == [], "the size is as it would be"
    assert told("Advisory", 32, 4, 340.0) == [], "within a minute that is a gust"
    assert told("Advisory", 32, 4, 380.0) == [(4, None, True)], "and then advice again, the same or not"
    assert told("Paused", 4, None, 400.0) == []
    assert told("Active", 4, None, 500.0) == [], "it was taken note of"
    wordy = replace(decided().replicas, reason="R" * 100, message="x" * 5000)
    (moved,) = news_of.of(replace(decided(), replicas=wordy), 2, moved=(2, 3), now_s=600.0, wall_s=600.0)
    assert (moved.from_, moved.to, len(moved.reason), len(moved.message)) == (2, 3, 64, 512)


@pytest.mark.parametrize(
    ("fields", "wanted_last", "first"),
    [
        ({}, 5, 1),
        ({"replicas": 3}, 5, 3),
        ({"autoscaling": {"minReplicas": 2, "maxReplicas": 6}}, 0, 2),
        ({"autoscaling": {"minReplicas": 2, "maxReplicas": 6}}, 5, 5),
        ({"autoscaling": {"minReplicas": 2, "maxReplicas": 6}}, 9, 6),
    ],
)
def test_with_which_size_a_fleet_is_made(fields: dict[str, Any], wanted_last: int, first: int) -> None:
    """What was wanted last when somebody deleted it: made smaller, it would drop load until it had grown again."""
    spec = InferenceSpec.model_validate({"model": {"uri": "file:///m.onnx", "sha256": "0" * 64}, **fields})
    assert _first_size(spec, InferenceStatus(desired_replicas=wanted_last)) == first


def test_who_was_asked_to_leave_is_not_told_of_who_joined() -> None:
    rebalancing = Rebalancing(0.0)
    assert rebalancing.due(seen(2, SERVING, BUSY), (), counted=2, now_s=0.0, wall_s=1e6) == ()
    due = rebalancing.due(seen(3, SERVING, BUSY, THIRD), ("w2",), counted=2, now_s=5.0, wall_s=1e6)
    assert [worker.name for worker in due] == ["w1"]


@pytest.mark.parametrize("text", ["", "no JSON", "[1]", '{"running": {"revision": "a"}}', '{"givenUp": {}}', '{"good": 1}'])
def test_a_record_that_cannot_be_read_is_none(text: str) -> None:
    assert rolling.read(text) == Record()


def test_a_record_too_long_to_be_kept_is_not_kept() -> None:
    def record(length: int) -> Record:
        return Record(running=Kept("a", "cpu", SPEC, RuntimeSpec(image="worker:1", affinity={"x": "y" * length})))

    assert rolling.read(rolling.render(record(1000))) == record(1000)
    assert rolling.render(record(rolling.LONGEST)) == ""


@pytest.mark.parametrize(("ratio", "current", "told"), [(0.56, "520m", "0.52"), (0.58, "580m", "0.58")])
def test_a_load_that_moves_within_noise_keeps_its_number_and_its_words(ratio: float, current: str, told: str) -> None:
    spec = InferenceSpec.model_validate(
        {**SPEC.model_dump(by_alias=True, exclude_defaults=True), "autoscaling": {"maxReplicas": 3}}
    )

    def loaded(before: InferenceStatus, load: float) -> InferenceStatus:
        size = replace(decided().replicas, load_ratio=load, source="Workers", target_percent=80)
        said = ConditionUpdate("ScalingActive", "True", "ValidMetrics", f"load ratio {load:.2f} over 2 workers")
        return folded(before, spec=spec, decision=replace(decided(), replicas=size), conditions=[said])

    now = loaded(loaded(NO_STATUS, 0.52), ratio)
    assert now.autoscaling.metrics[0].current == current
    assert now.conditions[0].message == f"load ratio {told} over 2 workers"
