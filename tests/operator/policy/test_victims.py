import pytest
from policy_builders import seen, state, view

from yolastic_contract.state import HealthState
from yolastic_operator.model import Missing
from yolastic_operator.policy.victims import choose

CALM = view("calm", told=state(inflight=1), created_s=5.0)
BUSY = view("busy", told=state(inflight=9), created_s=9.0)
SHORT = state(inflight=50).model_copy(update={"health": HealthState(out_of_memory_cap=4)})


@pytest.mark.parametrize(
    ("workers", "order"),
    [
        ([BUSY, CALM], ["calm", "busy"]),
        ([view("old", created_s=1.0), view("new", created_s=2.0)], ["new", "old"]),
        ([view("b"), view("a")], ["a", "b"]),
        ([CALM, BUSY, view("short of memory", told=SHORT)], ["short of memory", "calm", "busy"]),
        ([CALM, view("silent", told=Missing("no answer"))], ["silent", "calm"]),
        ([CALM, view("previous", told=state(inflight=50), revision="r0")], ["previous", "calm"]),
        ([CALM, view("starting", phase="Starting")], ["starting", "calm"]),
        (
            [CALM, view("starting", phase="Starting"), view("homeless", phase="Pending", unschedulable=True)],
            ["homeless", "starting", "calm"],
        ),
        (
            [CALM, view("homeless", phase="Pending", unschedulable=True), view("failed", phase="Failed")],
            ["failed", "homeless", "calm"],
        ),
        ([view("failed", phase="Failed"), view("leaving", told=state(phase="Draining", inflight=99))], ["leaving", "failed"]),
    ],
)
def test_the_worst_go_first(workers, order):
    observation = seen(*workers)
    assert list(choose(observation, 0)) == order
    assert list(choose(observation, len(workers) - 1)) == order[:1]
    assert list(choose(observation, len(workers))) == []


def test_as_many_as_the_ordered_size_is_too_large():
    assert choose(seen(CALM, BUSY, replicas=None), 0) == ()
    assert choose(seen(CALM, BUSY, replicas=2), 5) == ()
    assert choose(seen(CALM, BUSY, replicas=6), 2) == ()
    assert choose(seen(CALM, BUSY, replicas=6), 1) == ("calm",)
    assert choose(seen(CALM, BUSY, view("surge", phase="Starting"), replicas=2), 1) == ("surge",)
    assert choose(seen(CALM, BUSY, view("gone", phase="Terminating"), replicas=2), 1) == ("calm",)
