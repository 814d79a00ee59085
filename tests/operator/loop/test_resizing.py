"""Any sequence of sizes, on a cluster that takes its time: it arrives, and never serves with fewer than it must."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

STEPS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 4), st.booleans()), min_size=1, max_size=5)
"""Size wanted, turns until the next wish, and whether the cluster sleeps meanwhile: orders are taken, and not yet acted on."""


@given(steps=STEPS)
@settings(max_examples=60, deadline=None)
def test_every_size_is_reached_and_who_is_wanted_serves(world: Any, steps: list[tuple[int, int, bool]]) -> None:
    it = world(replicas=3)
    it.run(30)
    settle = it.cluster._settle
    least = 3
    for wanted, turns, sleeps in steps:
        it.cluster._settle = (lambda: None) if sleeps else settle
        it.change(replicas=wanted)
        least = min(least, wanted)
        for _ in range(turns):
            it.now_s += asyncio.run(it.turn())
            serving = sum(it.cluster._ready(fake) for fake in it.cluster.workers.values())
            assert serving >= least
    it.cluster._settle = settle
    it.run(90)
    assert it.cluster.replicas == it.ready == len(it.cluster.workers) == steps[-1][0]
    assert all(fake.drains_s is None for fake in it.cluster.workers.values())


def test_an_order_on_which_the_cluster_acts_late_is_given_once(world: Any) -> None:
    it = world(replicas=3)
    it.run(30)
    settle, it.cluster._settle = it.cluster._settle, lambda: None
    it.change(replicas=2)
    it.run(90)
    assert [size for size, _ in it.cluster.told("scale")] == [2]
    it.cluster._settle = settle
    it.run(30)
    assert it.cluster.replicas == it.ready == len(it.cluster.workers) == 2
