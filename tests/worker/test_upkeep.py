"""What the engine thread does between batches."""

from math import inf

import pytest

from yolastic_worker.upkeep import Chore, Upkeep


@pytest.mark.parametrize(
    ("now_s", "idle", "trial_at_s", "chore"),
    [
        (29, True, inf, None),
        (30, True, inf, Chore.CANARY),
        (299, False, inf, None),
        (300, False, inf, Chore.CANARY),
        (10, True, 10, Chore.TRIAL),
        (10, False, 10, None),
        (39, False, 10, None),
        (40, False, 10, Chore.TRIAL),
        (30, True, 10, Chore.CANARY),
    ],
)
def test_when(now_s: float, idle: bool, trial_at_s: float, chore: Chore | None) -> None:
    assert Upkeep(0, canary=True).next(now_s, idle=idle, trial_at_s=trial_at_s) is chore


def test_the_canary_comes_every_thirty_seconds() -> None:
    upkeep = Upkeep(0, canary=True)
    assert upkeep.wake_s(inf) == 30
    assert upkeep.next(31, idle=True, trial_at_s=inf) is Chore.CANARY
    assert upkeep.next(31, idle=True, trial_at_s=inf) is None
    upkeep.sang(31.5)
    assert upkeep.canary_s == 31.5
    assert upkeep.wake_s(inf) == 61.5
    assert upkeep.wake_s(40) == 40


def test_memory_and_doubt_come_before_the_next_batch() -> None:
    upkeep = Upkeep(0, canary=True)
    upkeep.doubt()
    upkeep.want_shrink()
    assert [upkeep.next(1, idle=False, trial_at_s=inf) for _ in range(3)] == [Chore.SHRINK, Chore.CANARY, None]


def test_without_a_canary_there_is_no_question_to_ask() -> None:
    upkeep = Upkeep(0, canary=False)
    upkeep.doubt()
    assert upkeep.next(1e6, idle=True, trial_at_s=inf) is None
    assert (upkeep.canary_s, upkeep.wake_s(inf)) == (None, inf)
