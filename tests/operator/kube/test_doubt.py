"""When a list is due although the watches showed something."""

from dataclasses import replace
from typing import Any

import pytest

from yolastic_contract.state import CeilingState, LoadState, MemoryState, WorkerState
from yolastic_operator.cluster.doubt import FIRST_S, LONGEST_S, Doubts
from yolastic_operator.model import Fleet, Ref, Worker

REF = Ref("plant", "weld")
READY = Worker("weld-1", "r", "Ready", 0.0, address="10.0.0.1", ready=True)
STARTING = replace(READY, phase="Starting", ready=False)


def says(phase: str) -> WorkerState:
    load = LoadState(
        ratio=0, arrived_per_s=0, refused_per_s=0, capacity_per_s=1, queue_images=0, queue_oldest_age_s=0, inflight_images=0,
        busy_ratio=0,
    )  # fmt: skip
    told: dict[str, Any] = {"worker_id": "w", "version": "0", "phase": phase, "backend": "Simulated", "device": "cpu"}
    ceiling = CeilingState(base=1, ceiling=1, effective=1, burst=False, granted=False)
    return WorkerState(
        **told, device_id="GPU-0", started_s=0, max_batch=1, buckets=[1], memory=MemoryState(), ceiling=ceiling, load=load
    )


@pytest.mark.parametrize(
    ("worker", "ordered", "answer", "doubted"),
    [
        (READY, 1, "Ready", False),
        (READY, 1, None, True),  # silent
        (STARTING, 1, "Starting", False),
        (STARTING, 1, None, False),  # nothing listens yet
        (STARTING, 1, "Ready", True),  # its pod must be ready by now
        (READY, 2, "Ready", True),  # one was not seen
        (READY, 0, "Ready", True),  # one should be gone
        (replace(READY, phase="Terminating", ready=False), 0, None, False),
        (READY, None, "Ready", False),
    ],
)
def test_what_is_doubted(worker: Worker, ordered: int | None, answer: str | None, doubted: bool) -> None:
    now_s = 0.0
    doubts = Doubts(lambda: now_s)
    doubts.asked(REF, worker)
    if answer is not None:
        doubts.answered(REF, worker, says(answer))
    fleet = Fleet(ordered, (worker,), "r")
    assert not doubts.due(REF, fleet), "a moment is usual"
    now_s = FIRST_S
    assert doubts.due(REF, fleet) == doubted


def test_lists_that_tell_nothing_new_become_rare_and_an_end_of_the_doubt_forgets_that() -> None:
    now_s = 0.0
    doubts = Doubts(lambda: now_s)
    lists = []
    for now_s in (float(second) for second in range(3 * 3600)):
        if doubts.due(REF, Fleet(2, (READY,), "r")):
            lists.append(now_s)
            doubts.listed(REF, news=False)
    assert lists[:4] == [4, 12, 28, 60]
    assert lists[-1] - lists[-2] == LONGEST_S
    assert not doubts.due(REF, Fleet(1, (READY,), "r"))
    assert not doubts.due(REF, Fleet(2, (READY,), "r"))
    now_s += FIRST_S
    assert doubts.due(REF, Fleet(2, (READY,), "r"))


def test_news_are_followed_closely() -> None:
    now_s = 0.0
    doubts = Doubts(lambda: now_s)
    for _ in range(5):
        doubts.due(REF, Fleet(2, (READY,), "r"))
        now_s += FIRST_S
        assert doubts.due(REF, Fleet(2, (READY,), "r"))
        doubts.listed(REF, news=True)


def test_of_workers_that_are_gone_nothing_is_kept() -> None:
    doubts = Doubts(lambda: 0.0)
    for number in range(3):
        killed = replace(READY, name=f"weld-{number}")
        doubts.asked(REF, killed)
        doubts.due(REF, Fleet(1, (killed,), "r"))
    assert doubts._unheard[REF] == {"weld-2"}
    doubts.forget(REF)
    assert (doubts._unheard, doubts._waits) == ({}, {})
