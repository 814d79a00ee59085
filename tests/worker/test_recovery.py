"""A failed batch and the batch size after an out-of-memory, as pure rules."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import inf, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolastic_worker.recovery import FIRST_PROBE_S, SLOWEST_PROBE_S, MemoryCap, Mishap, Rescue, Verdict

BUCKETS = (1, 2, 4, 8, 16, 32)
Part = tuple[int, ...]


def test_the_limit_halves_and_comes_back_one_size_at_a_time() -> None:
    cap = MemoryCap(BUCKETS)
    assert (cap.limit, cap.lowered, cap.trial(1e9)) == (32, False, None)
    assert cap.out_of_memory(0, 32) == 16
    assert cap.out_of_memory(0, 16) == 8
    assert cap.trial(FIRST_PROBE_S - 1) is None
    assert cap.trial(FIRST_PROBE_S) == 16
    cap.fitted(FIRST_PROBE_S, 16)
    assert (cap.limit, cap.lowered) == (16, True)
    assert cap.trial(2 * FIRST_PROBE_S - 1) is None
    assert cap.trial(2 * FIRST_PROBE_S) == 32
    cap.fitted(2 * FIRST_PROBE_S, 32)
    assert (cap.limit, cap.lowered, cap.trial_at_s) == (32, False, inf)


@pytest.mark.parametrize(("images", "limit"), [(32, 16), (31, 16), (17, 16), (16, 8), (5, 4), (2, 1), (1, 1)])
def test_the_limit_is_the_next_smaller_warm_size(images: int, limit: int) -> None:
    assert MemoryCap(BUCKETS).out_of_memory(0, images) == limit


def test_failed_trials_are_ever_further_apart() -> None:
    cap = MemoryCap(BUCKETS)
    cap.out_of_memory(0, 32)
    now_s, waits = 0.0, []
    for _ in range(10):
        waits.append(cap.trial_at_s - now_s)
        now_s = cap.trial_at_s
        images = cap.trial(now_s)
        assert images == 32
        assert cap.out_of_memory(now_s, images) == 16, "a failed trial lowers nothing"
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600]


def test_a_size_that_was_regained_and_lost_again_waits_longer() -> None:
    cap = MemoryCap(BUCKETS)
    cap.out_of_memory(0, 32)
    cap.fitted(60, 32)
    assert cap.out_of_memory(61, 32) == 16
    assert cap.trial_at_s == 61 + 120


def test_after_a_long_peace_the_waiting_begins_anew() -> None:
    cap = MemoryCap(BUCKETS)
    cap.out_of_memory(0, 32)
    cap.out_of_memory(60, 32)
    cap.fitted(180, 32)
    now_s = 180 + 3 * SLOWEST_PROBE_S
    cap.out_of_memory(now_s, 32)
    assert cap.trial_at_s == now_s + FIRST_PROBE_S


def test_a_trial_that_may_not_run_is_asked_for_again_later() -> None:
    cap = MemoryCap(BUCKETS)
    cap.out_of_memory(0, 32)
    cap.postpone(60)
    assert (cap.trial(60), cap.trial(120)) == (None, 32)


@given(
    fits=st.integers(1, 40), steps=st.lists(st.floats(0.1, 2000), max_size=80), wanted=st.lists(st.integers(1, 32), max_size=80)
)
def test_whatever_comes_the_cap_stays_a_warm_size_and_trials_are_rare(fits: int, steps: list[float], wanted: list[int]) -> None:
    """`fits`: the largest batch the device really has memory for."""
    cap, now_s, failures, trials = MemoryCap(BUCKETS), 0.0, 0, []
    for step_s, images in zip(steps, wanted, strict=False):
        now_s += step_s
        before = cap.limit
        trial = cap.trial(now_s)
        size = trial if trial is not None else min(images, cap.limit)
        if trial is not None:
            assert trial > before
            trials.append(now_s)
        if size > fits:
            failures += 1
            assert cap.out_of_memory(now_s, size) < max(size, 2)
        elif trial is not None:
            cap.fitted(now_s, size)
            assert cap.limit == size
        assert cap.limit in BUCKETS
        assert cap.lowered == (cap.trial_at_s < inf)
        assert cap.trial(now_s) is None, "never two trials at one time"
    assert all(later - earlier >= FIRST_PROBE_S for earlier, later in pairwise(trials))
    assert failures <= log2(32) + 1 + now_s / SLOWEST_PROBE_S + log2(SLOWEST_PROBE_S / FIRST_PROBE_S) + 2


def rescue(
    images: int,
    run: Callable[[Part], Mishap | None],
    *,
    limit: Callable[[], int] = lambda: 256,
    content: Sequence[int] | None = None,
) -> tuple[Rescue, list[Part]]:
    """A rescue carried out: `run` tells how a part ends."""
    made = Rescue(images) if content is None else Rescue(images, content.__getitem__)
    parts = []
    while (part := made.next(limit())) is not None:
        parts.append(part)
        mishap = run(part)
        if mishap is None:
            made.answered(part)
        else:
            made.failed(part, mishap)
    return made, parts


def poisoned(*bad: int) -> Callable[[Part], Mishap | None]:
    return lambda part: Mishap.OTHER if set(part) & set(bad) else None


@pytest.mark.parametrize(
    ("images", "bad", "culprits"),
    [
        (8, (3,), (3,)),
        (8, (0, 1), (0, 1)),
        (8, (0, 7), (0, 7)),
        (2, (1,), (1,)),
        (3, (2,), (2,)),
        (32, (31,), (31,)),
        (32, (4, 5, 6, 7), (4, 5, 6, 7)),
    ],
)
def test_the_image_that_fails_alone_is_found_and_the_rest_answered(
    images: int, bad: tuple[int, ...], culprits: tuple[int, ...]
) -> None:
    made, parts = rescue(images, poisoned(*bad))
    assert not made.needs_proof
    verdicts = made.verdicts(proven=False)
    assert tuple(sorted(index for index, verdict in verdicts.items() if verdict is Verdict.CULPRIT)) == culprits
    assert all(verdict is Verdict.ANSWERED for index, verdict in verdicts.items() if index not in culprits)
    assert len(parts) <= 1 + 2 * len(bad) * (log2(images) + 1)


@pytest.mark.parametrize("images", [1, 2, 3, 4, 8, 32, 256])
@pytest.mark.parametrize("proven", [False, True])
def test_when_everything_fails_nobody_is_blamed(images: int, proven: bool) -> None:
    made, parts = rescue(images, lambda part: Mishap.OTHER)
    assert made.needs_proof
    assert len(parts) <= 7
    verdicts = made.verdicts(proven=proven)
    alone = Verdict.CULPRIT if images == 1 and proven else Verdict.FAILED
    assert verdicts == dict.fromkeys(range(images), alone)


def test_an_image_that_was_alone_from_the_start_has_a_second_run_before_it_is_blamed() -> None:
    """In company it would have had one, too: what fails once in a way nobody knows may be no image's fault."""
    ends = iter([Mishap.OTHER, None])
    made, parts = rescue(1, lambda part: next(ends))
    assert parts == [(0,), (0,)]
    assert made.verdicts(proven=False) == {0: Verdict.ANSWERED}
    made, parts = rescue(1, lambda part: Mishap.OTHER)
    assert parts == [(0,), (0,)]
    assert made.verdicts(proven=True) == {0: Verdict.CULPRIT}


def test_one_content_in_several_requests_is_one_suspect() -> None:
    made, _ = rescue(3, lambda part: Mishap.OTHER, content=[7, 7, 7])
    assert made.needs_proof
    assert set(made.verdicts(proven=True).values()) == {Verdict.CULPRIT}
    assert set(made.verdicts(proven=False).values()) == {Verdict.FAILED}


def test_many_culprits_need_a_proof_of_the_device() -> None:
    made, _ = rescue(8, poisoned(0, 2, 4))
    assert made.needs_proof
    assert [index for index, verdict in made.verdicts(proven=True).items() if verdict is Verdict.CULPRIT] == [0, 2, 4]
    assert Verdict.CULPRIT not in made.verdicts(proven=False).values()


def test_a_failure_that_passes_is_tried_once_more_in_the_same_company() -> None:
    ends = iter([Mishap.TRANSIENT, None])
    made, parts = rescue(4, lambda part: next(ends))
    assert parts == [(0, 1, 2, 3)] * 2
    assert set(made.verdicts(proven=False).values()) == {Verdict.ANSWERED}
    made, parts = rescue(4, lambda part: Mishap.TRANSIENT)
    assert len(parts) == 2
    assert not made.needs_proof
    assert set(made.verdicts(proven=True).values()) == {Verdict.FAILED}


def test_out_of_memory_halves_and_never_tries_a_size_twice_in_vain() -> None:
    cap = MemoryCap(BUCKETS)

    def run(part: Part) -> Mishap | None:
        if len(part) <= 4:
            return None
        cap.out_of_memory(0, len(part))
        return Mishap.OUT_OF_MEMORY

    made, parts = rescue(32, run, limit=lambda: cap.limit)
    assert [len(part) for part in parts if len(part) > 4] == [32, 16, 8]
    assert [len(part) for part in parts if len(part) <= 4] == [4] * 8
    assert set(made.verdicts(proven=False).values()) == {Verdict.ANSWERED}
    assert cap.limit == 4


def test_alone_and_still_out_of_memory() -> None:
    made, parts = rescue(4, lambda part: Mishap.OUT_OF_MEMORY if 2 in part else None)
    assert parts == [(0, 1, 2, 3), (0, 1), (2, 3), (2,), (3,)]
    assert made.verdicts(proven=False) == {
        0: Verdict.ANSWERED, 1: Verdict.ANSWERED, 2: Verdict.OUT_OF_MEMORY, 3: Verdict.ANSWERED,
    }  # fmt: skip
    assert not made.needs_proof


def test_images_that_left_are_not_run() -> None:
    made = Rescue(2)
    part = made.next(8)
    assert part is not None
    made.failed(part, Mishap.OTHER)
    made.left((0,))
    assert made.next(8) == (0,)  # its caller leaves out what has left
    assert made.next(8) == (1,)
    made.answered((1,))
    assert made.verdicts(proven=False) == {0: Verdict.LEFT, 1: Verdict.ANSWERED}


@given(
    images=st.integers(1, 40),
    limit=st.integers(1, 40),
    data=st.data(),
)
def test_every_image_gets_one_verdict_in_a_bounded_number_of_runs(images: int, limit: int, data: st.DataObject) -> None:
    mishaps = st.sampled_from([None, None, *Mishap])
    answered: list[int] = []

    def run(part: Part) -> Mishap | None:
        assert 1 <= len(part) <= limit
        assert not set(part) & set(answered), "nothing is run again once it is answered"
        mishap = data.draw(mishaps)
        if mishap is None:
            answered.extend(part)
        return mishap

    made, parts = rescue(images, run, limit=lambda: limit)
    verdicts = made.verdicts(proven=data.draw(st.booleans()))
    assert sorted(verdicts) == list(range(images))
    assert sorted(index for index, verdict in verdicts.items() if verdict is Verdict.ANSWERED) == sorted(answered)
    assert len(parts) <= 2 * images + 1
