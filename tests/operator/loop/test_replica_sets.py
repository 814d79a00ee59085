"""The model of the Deployment controller: what it orders for old and new ReplicaSets, step by step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolastic_operator.cluster.replica_sets import Order, rolled, scaled


def order(replicas: int, surge: int = 0, unavailable: int = 1) -> Order:
    return Order("new", replicas, surge, unavailable)


@pytest.mark.parametrize(
    ("sizes", "ready", "told", "after"),
    [
        # Up to the surge, and not beyond the size.
        ((4, 0), (4, 0), order(4), (3, 0)),
        ((4, 0), (4, 0), order(4, surge=2, unavailable=0), (4, 2)),
        ((2, 0), (2, 0), order(4, surge=2, unavailable=0), (2, 4)),
        ((1, 6), (1, 4), order(4), (1, 4)),
        # Old ones that do not serve go first, then as many that do as may be away.
        ((4, 0), (2, 0), order(4, unavailable=2), (2, 0)),
        ((4, 0), (3, 0), order(4, unavailable=2), (2, 0)),
        ((4, 0), (1, 0), order(4, unavailable=2), (2, 0)),
        # New ones that do not serve yet count as away.
        ((3, 2), (3, 0), order(5, unavailable=2), (3, 2)),
        ((3, 2), (3, 1), order(5, unavailable=2), (2, 2)),
        # Three ordered, places for two: the one that may be away is the one without a place, old or new.
        ((3, 0), (2, 0), order(3), (2, 0)),
        ((2, 1), (2, 0), order(3), (2, 1)),
        # Unless it is said that it does not count: then one that serves goes, and no second before there is another.
        ((2, 1), (2, 0), order(3, unavailable=2), (1, 1)),
        ((1, 2), (1, 0), order(3, unavailable=2), (1, 2)),
        ((1, 2), (1, 1), order(3, unavailable=2), (0, 2)),
        ((0, 3), (0, 1), order(3, unavailable=2), (0, 3)),
    ],
)
def test_a_step_of_a_rolling_update(sizes: tuple[int, int], ready: tuple[int, int], told: Order, after: tuple[int, int]) -> None:
    old, new = sizes
    found = rolled({"old": old, "new": new}, {"old": ready[0], "new": ready[1]}, told)
    assert (found["old"], found["new"]) == after


@pytest.mark.parametrize(
    ("sizes", "told", "after"),
    [
        ((0, 0), order(3), (0, 3)),
        ((2, 0), order(3), (3, 0)),  # the new one is not there yet: the old one takes it all
        ((1, 1), order(3), (1, 2)),
        ((2, 1), order(4), (3, 1)),
        ((1, 1), order(1), (0, 1)),
        ((2, 2), order(3), (1, 2)),
        ((2, 1), order(2, surge=1), (2, 1)),
        ((2, 4), order(3), (1, 2)),
        ((2, 1), order(0), (0, 0)),
    ],
)
def test_another_size_is_shared_in_proportion(sizes: tuple[int, int], told: Order, after: tuple[int, int]) -> None:
    found = scaled({"old": sizes[0], "new": sizes[1]}, told)
    assert (found["old"], found["new"]) == after


COUNT = st.integers(0, 6)


@given(COUNT, COUNT, COUNT, COUNT, st.booleans(), COUNT)
def test_it_comes_to_rest_within_its_bounds(
    replicas: int, old: int, new: int, ready: int, surges: bool, unavailable: int
) -> None:
    told = order(replicas, int(surges), 0 if surges else 1 + unavailable)
    sizes = {"old": old, "new": min(new, replicas)}
    available = {"old": min(ready, old), "new": max(min(ready - old, sizes["new"]), 0)}
    before = sum(available.values())
    for _ in range(20):
        after = rolled(sizes, available, told)
        assert all(size >= 0 for size in after.values())
        assert after["new"] <= replicas
        assert sum(after.values()) <= max(sum(sizes.values()), replicas + told.surge)
        available = {name: min(available[name], size) for name, size in after.items()}
        if after == sizes:
            break
        sizes = after
    else:
        pytest.fail("it goes on for ever")
    assert sum(available.values()) >= min(before, told.least)
