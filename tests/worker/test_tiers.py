"""Base and burst tier."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolastic_worker.tiers import TierController


def test_until_a_grant_the_worker_uses_its_own_bound() -> None:
    tiers = TierController(16, 16)
    assert tiers.update(0.0, 100) == 16
    state = tiers.state(0.0)
    assert (state.base, state.ceiling, state.effective, state.burst, state.granted) == (16, 16, 16, False, False)


@pytest.mark.parametrize(("waiting", "limit"), [(0, 8), (1, 8), (8, 8), (9, 32), (500, 32)])
def test_more_than_one_full_base_batch_is_a_burst_at_once(waiting: int, limit: int) -> None:
    tiers = TierController(1, 1)
    tiers.grant(8, 32)
    assert tiers.update(0.0, waiting) == limit
    state = tiers.state(0.0)
    assert (state.effective, state.burst, state.granted) == (limit, limit == 32, True)


def test_burst_ends_when_the_backlog_stayed_under_a_quarter_batch_for_thirty_seconds() -> None:
    tiers = TierController(8, 32)
    assert tiers.update(0.0, 9) == 32
    assert tiers.update(1.0, 1) == 32
    assert tiers.update(30.9, 0) == 32
    assert tiers.update(31.0, 1) == 8
    assert tiers.update(31.1, 8) == 8, "one full batch is no backlog"
    assert tiers.update(31.2, 9) == 32, "and the burst begins at once again"


@pytest.mark.parametrize("waiting", [2, 8, 9])
def test_a_backlog_in_between_starts_the_calm_anew(waiting: int) -> None:
    tiers = TierController(8, 32)
    tiers.update(0.0, 20)
    tiers.update(1.0, 0)
    tiers.update(20.0, waiting)
    assert tiers.update(40.0, 0) == 32
    assert tiers.update(69.9, 0) == 32
    assert tiers.update(70.0, 0) == 8


@pytest.mark.parametrize("base", [1, 2, 4])
def test_single_images_are_no_backlog_for_a_small_base(base: int) -> None:
    tiers = TierController(base, 16)
    tiers.update(0.0, 10)
    for second in range(1, 32):
        limit = tiers.update(float(second), 1)
    assert limit == base


def test_a_grant_counts_from_the_next_batch_in_either_tier() -> None:
    tiers = TierController(8, 32)
    tiers.update(0.0, 9)
    tiers.grant(2, 4)
    assert tiers.effective == 4
    assert tiers.update(0.1, 0) == 4
    assert tiers.update(31.0, 0) == 2
    tiers.grant(4, 4)
    assert tiers.update(31.1, 9) == 4
    assert tiers.state(0.0).burst is False, "there is no tier above the base"


@given(
    st.integers(1, 64),
    st.integers(0, 64),
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 200)), max_size=60),
)
def test_always_one_of_the_two_and_never_late(base: int, more: int, steps: list[tuple[float, int]]) -> None:
    tiers = TierController(base, base + more)
    now_s, backlog_s = 0.0, float("-inf")
    for wait_s, waiting in steps:
        now_s += wait_s
        limit = tiers.update(now_s, waiting)
        assert limit in (base, base + more)
        if waiting > base:
            assert limit == base + more
            backlog_s = now_s
        elif now_s - backlog_s < 30:
            assert limit == base + more, "never leaves within 30 s of a backlog"
