"""Batch forming: who goes next, when, and how many; a fake clock throughout."""

import gc
import weakref
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolastic_worker.batcher import Batcher, BatchRules, Turn, Window
from yolastic_worker.types import Displaced, Geometry, Image, Outcome, ShapeKey, Thresholds

KEY = ShapeKey(640, 640)
OTHER_KEY = ShapeKey(320, 320)
GEOMETRY = Geometry(1, 1, 1.0, 0, 0)
PIXELS = np.zeros((1, 1, 3), np.uint8)
LATER_S = 1e6


def image(
    deadline_s: float = LATER_S, *, arrived_s: float = 0.0, source: str = "", key: ShapeKey = KEY, cancelled: bool = False
) -> Image:
    return Image(
        key=key, pixels=PIXELS, geometry=GEOMETRY, thresholds=Thresholds(), arrived_s=arrived_s, deadline_s=deadline_s,
        finish=lambda _: None, source=source, cancelled=cancelled,
    )  # fmt: skip


def silent() -> Image:
    one = image()
    one.silent = True
    return one


def line(fixed_s: float, per_image_s: float) -> Callable[[int], float | None]:
    return lambda images: fixed_s + per_image_s * images


def unknown(_: int) -> float | None:
    return None


def offered(batcher: Batcher, *images: Image, now_s: float = 0.0) -> list[Image]:
    for one in images:
        batcher.offer(one, now_s)
    return list(images)


# --- when


def test_adaptive_goes_at_once_on_a_device_of_its_own() -> None:
    batcher = Batcher(BatchRules(max_delay_s=10, eager_size=8))
    (only,) = offered(batcher, image(), now_s=5.0)
    assert batcher.turn(5.0, 32, line(0.02, 0.001)) == Turn(batch=(only,))
    assert only.queued_s == 5.0
    assert batcher.waiting == 0


def test_nothing_waits() -> None:
    assert Batcher(BatchRules()).turn(1.0, 32, unknown) == Turn()
    assert Batcher(BatchRules(window=Window.FIXED)).turn(1.0, 32, unknown) == Turn()


@pytest.mark.parametrize("shared", [False, True])
def test_fixed_waits_for_eager_size_or_max_delay(shared: bool) -> None:
    batcher = Batcher(BatchRules(window=Window.FIXED, max_delay_s=0.010, eager_size=3, shared=shared))
    first, second = offered(batcher, image(), image(), now_s=1.0)
    assert batcher.turn(1.002, 32, unknown) == Turn(wait_until_s=1.010)
    assert batcher.turn(1.010, 32, unknown).batch == (first, second)
    three = offered(batcher, image(), image(), image(), now_s=2.0)
    assert batcher.turn(2.0, 32, unknown).batch == tuple(three)


def test_fixed_does_not_wait_for_more_than_the_limit() -> None:
    batcher = Batcher(BatchRules(window=Window.FIXED, max_delay_s=0.010, eager_size=8))
    two = offered(batcher, image(), image())
    assert batcher.turn(0.0, 2, unknown).batch == tuple(two)


SHARED = BatchRules(shared=True, max_delay_s=0.010, eager_size=4, objective_s=0.100)


@pytest.mark.parametrize(
    ("rules", "arrived_s", "deadline_s", "speed", "wait_until_s"),
    [
        (SHARED, 0.0, LATER_S, line(0.02, 0.001), 0.010),  # plenty of slack: the whole delay
        (SHARED, -0.072, LATER_S, line(0.02, 0.001), 0.004),  # 100 ms - 72 ms gone - 24 ms for a batch of four
        (SHARED, -0.090, LATER_S, line(0.02, 0.001), None),  # the slack is spent
        (SHARED, 0.0, 0.029, line(0.02, 0.001), 0.005),  # the image's own deadline
        (SHARED, 0.0, LATER_S, line(0.2, 0.0), None),  # the objective cannot be met at all
        (SHARED, 0.0, LATER_S, unknown, None),  # no speed, no slack to spend
        (BatchRules(shared=True, max_delay_s=0.010), -9.0, LATER_S, line(0.02, 0.001), 0.010),  # no objective
        (BatchRules(shared=True, max_delay_s=0.010, eager_size=1), 0.0, LATER_S, line(0.02, 0.001), None),
        (BatchRules(shared=True, max_delay_s=0.0), 0.0, LATER_S, line(0.02, 0.001), None),
        (SHARED, 0.0, LATER_S, line(0.0, 0.01), None),  # a batch saves the device nothing: waiting does not pay
    ],
)
def test_adaptive_on_a_shared_device_spends_only_slack(
    *, rules: BatchRules, arrived_s: float, deadline_s: float, speed: Callable[[int], float | None], wait_until_s: float | None
) -> None:
    batcher = Batcher(rules)
    (only,) = offered(batcher, image(deadline_s, arrived_s=arrived_s))
    turn = batcher.turn(0.0, 32, speed)
    if wait_until_s is None:
        assert turn.batch == (only,)
    else:
        assert turn.batch == ()
        assert turn.wait_until_s == pytest.approx(wait_until_s)
        assert batcher.turn(turn.wait_until_s or 0.0, 32, speed).batch == (only,)


def test_shared_device_goes_when_eager_size_wait() -> None:
    batcher = Batcher(SHARED)
    four = offered(batcher, *(image() for _ in range(4)))
    assert batcher.turn(0.0, 32, line(0.02, 0.001)).batch == tuple(four)


def test_waiting_ends_with_a_deadline_so_that_its_client_hears_of_it() -> None:
    batcher = Batcher(BatchRules(window=Window.FIXED, max_delay_s=0.010, eager_size=4))
    (short, _) = offered(batcher, image(0.004), image())
    assert batcher.turn(0.0, 32, unknown) == Turn(wait_until_s=0.004)
    turn = batcher.turn(0.004, 32, unknown)
    assert turn == Turn(dropped=(short,), wait_until_s=0.010)
    assert short.outcome is Outcome.EXPIRED


# --- who


def test_oldest_deadline_first_then_order_of_arrival() -> None:
    batcher = Batcher(BatchRules())
    late, first, second, soon = offered(batcher, image(9.0), image(5.0), image(5.0), image(2.0))
    assert batcher.turn(0.0, 3, unknown).batch == (soon, first, second)
    assert batcher.turn(0.0, 3, unknown).batch == (late,)


def test_one_source_cannot_starve_the_others() -> None:
    batcher = Batcher(BatchRules())
    offered(batcher, *(image(1.0 + n / 100, source="flood") for n in range(50)))
    offered(batcher, image(9.0, source="a"), image(8.0, source="b"), image(7.0), image(6.0))
    taken = batcher.turn(0.0, 6, unknown).batch
    assert Counter(one.source for one in taken) == {"flood": 2, "a": 1, "b": 1, "": 2}
    assert [one.deadline_s for one in taken if one.source == ""] == [6.0, 7.0]


def test_the_round_goes_on_where_the_last_batch_ended() -> None:
    batcher = Batcher(BatchRules())
    offered(batcher, *(image(source=source) for source in "abcabc"))
    order = [one.source for _ in range(3) for one in batcher.turn(0.0, 2, unknown).batch]
    assert order == ["a", "b", "c", "a", "b", "c"]


def test_a_batch_holds_one_key_and_the_oldest_deadline_chooses_it() -> None:
    batcher = Batcher(BatchRules())
    small = offered(batcher, image(5.0, key=OTHER_KEY), image(6.0, key=OTHER_KEY))
    large = offered(batcher, image(5.5))
    assert batcher.waiting == 3
    assert batcher.turn(0.0, 8, unknown).batch == tuple(small)
    assert batcher.turn(0.0, 8, unknown).batch == tuple(large)


def test_a_key_that_waits_for_company_does_not_hold_up_one_that_is_ready() -> None:
    batcher = Batcher(BatchRules(window=Window.FIXED, max_delay_s=0.010, eager_size=2))
    lonely = offered(batcher, image(1.0))
    pair = offered(batcher, image(2.0, key=OTHER_KEY), image(2.0, key=OTHER_KEY))
    assert batcher.turn(0.0, 8, unknown).batch == tuple(pair)
    assert batcher.turn(0.0, 8, unknown) == Turn(wait_until_s=0.010)
    assert batcher.turn(0.010, 8, unknown).batch == tuple(lonely)


def test_the_dead_are_dropped_before_any_work() -> None:
    batcher = Batcher(BatchRules())
    gone, alive, expired, both = offered(batcher, image(cancelled=True), image(), image(1.0), image(1.0, cancelled=True))
    turn = batcher.turn(1.0, 8, unknown)
    assert turn.batch == (alive,)
    assert set(turn.dropped) == {gone, expired, both}
    assert [one.outcome for one in (gone, expired, both, alive)] == [
        Outcome.CANCELLED, Outcome.EXPIRED, Outcome.CANCELLED, None,
    ]  # fmt: skip
    assert batcher.waiting == 0


def test_the_cancelled_take_no_place_in_a_batch() -> None:
    batcher = Batcher(BatchRules())
    images = offered(batcher, *(image(cancelled=n % 2 == 0) for n in range(10)))
    turn = batcher.turn(0.0, 4, unknown)
    assert turn.batch == tuple(images[1:8:2])
    assert batcher.waiting == 2


def test_when_all_of_a_key_are_cancelled_the_next_key_goes() -> None:
    batcher = Batcher(BatchRules())
    offered(batcher, image(1.0, cancelled=True))
    (alive,) = offered(batcher, image(5.0, key=OTHER_KEY))
    assert batcher.turn(0.0, 4, unknown).batch == (alive,)
    offered(batcher, image(cancelled=True))
    assert batcher.turn(0.0, 4, unknown).batch == ()


def test_drain_takes_all_oldest_deadline_first() -> None:
    batcher = Batcher(BatchRules())
    late, soon = offered(batcher, image(9.0), image(2.0, key=OTHER_KEY))
    assert batcher.drain() == (soon, late)
    assert (batcher.waiting, batcher.drain(), batcher.turn(0.0, 4, unknown)) == (0, (), Turn())


def test_oldest_age() -> None:
    batcher = Batcher(BatchRules())
    assert batcher.oldest_age_s(5.0) == 0
    offered(batcher, image(9.0), now_s=1.0)
    offered(batcher, image(3.0), now_s=2.0)
    offered(batcher, image(10.0, key=OTHER_KEY), now_s=2.5)
    assert batcher.oldest_age_s(4.0) == 3.0
    batcher.turn(2.5, 1, unknown)  # takes the second: its deadline is older
    assert batcher.oldest_age_s(4.0) == 3.0
    batcher.turn(2.5, 1, unknown)
    assert batcher.oldest_age_s(4.0) == 1.5


# --- places


def test_a_client_that_has_gone_frees_its_place_at_once() -> None:
    batcher = Batcher(BatchRules())
    gone, stays = offered(batcher, image(), image())
    assert batcher.leave(gone, 0.0)
    assert not batcher.leave(gone, 0.0), "once"
    assert gone.outcome is Outcome.CANCELLED
    assert (batcher.waiting, batcher.held) == (1, 1)
    assert batcher.turn(0.0, 4, unknown) == Turn(batch=(stays,))
    assert not batcher.leave(stays, 0.0), "it runs"
    assert stays.cancelled
    assert stays.outcome is None


def test_what_is_being_decoded_holds_a_place() -> None:
    batcher = Batcher(BatchRules())
    batcher.expect("a", 3)
    assert (batcher.held, batcher.waiting) == (3, 0)
    offered(batcher, image(source="a"))
    batcher.give_up("a")
    assert (batcher.held, batcher.waiting) == (2, 1)
    batcher.turn(0.0, 4, unknown)
    assert batcher.held == 1


@pytest.mark.parametrize(
    ("held", "newcomer", "images", "drop_oldest", "victim"),
    [
        ({"a": 6}, "b", 1, False, "a"),
        ({"a": 6, "c": 3}, "b", 1, False, "a"),
        ({"a": 6, "c": 3}, "c", 1, False, "a"),  # 5 and 4 afterwards
        ({"a": 5, "c": 4}, "c", 1, False, None),  # it would only turn round who has more
        ({"a": 6}, "b", 3, False, "a"),  # 3 and 3
        ({"a": 6}, "b", 4, False, None),
        ({"a": 6}, "a", 1, False, None),  # its own share is used up
        ({"a": 6}, "a", 1, True, "a"),
        ({"a": 5, "c": 4}, "c", 1, True, "c"),
        ({"a": 6}, "a", 7, True, None),
        ({"": 6}, "", 1, True, ""),
        ({}, "a", 1, True, None),
    ],
)
def test_who_gives_up_places(*, held: dict[str, int], newcomer: str, images: int, drop_oldest: bool, victim: str | None) -> None:
    batcher = Batcher(BatchRules())
    for source, count in held.items():
        for number in range(count):
            offered(batcher, image(source=source, key=KEY if number % 2 else OTHER_KEY), now_s=number)
    assert batcher.yields(newcomer, images, drop_oldest=drop_oldest) == (victim is not None)
    out = batcher.displace(newcomer, images, drop_oldest=drop_oldest)
    if victim is None:
        assert out == ()
        return
    assert {one.source for one in out} == {victim}
    count = held[victim]
    assert [one.queued_s for one in out] == (
        list(range(images)) if drop_oldest else list(range(count - 1, count - 1 - images, -1))
    )
    assert {(one.outcome, type(one.error)) for one in out} == {(Outcome.REJECTED, Displaced)}
    assert batcher.held == sum(held.values()) - images


def test_the_work_ahead_of_a_quiet_source() -> None:
    batcher = Batcher(BatchRules())
    offered(batcher, *(image(source="flood") for _ in range(50)), *(image(source="b") for _ in range(2)))
    batcher.expect("quiet", 1)
    assert batcher.ahead_of("quiet", 1) == 1 + 2 + 2
    assert batcher.ahead_of("quiet", 9) == 1 + 10 + 2
    assert batcher.ahead_of("flood", 1) == 53


def test_while_silent_clients_hang_up_their_newest_goes_first() -> None:
    batcher = Batcher(BatchRules())
    for _ in range(10):
        (gone,) = offered(batcher, silent())
        batcher.leave(gone, 0.0)
    waiting = offered(batcher, silent(), silent(), image(5.0), silent(), image(4.0), silent())
    taken = batcher.turn(0.0, 5, unknown).batch
    assert batcher.newest_first
    assert taken == (waiting[4], waiting[5], waiting[2], waiting[3], waiting[1])
    assert batcher.turn(30.0, 4, unknown).batch == (waiting[0],)
    assert not batcher.newest_first, "they hung up half a minute ago"


def test_a_few_hang_ups_among_many_answers_change_nothing() -> None:
    batcher = Batcher(BatchRules())
    for _ in range(10):
        offered(batcher, *(silent() for _ in range(32)))
        batcher.turn(0.0, 32, unknown)
        (gone,) = offered(batcher, silent())
        batcher.leave(gone, 0.0)
    first, second = offered(batcher, silent(), silent())
    assert batcher.turn(0.0, 1, unknown).batch == (first,)
    assert batcher.turn(0.0, 1, unknown).batch == (second,)


def test_those_a_full_batch_would_answer_too_late_leave_when_others_can_use_it() -> None:
    batcher = Batcher(BatchRules())
    doomed, *fine = offered(batcher, image(0.030), *(image(1.0) for _ in range(4)))
    turn = batcher.turn(0.0, 4, line(0.02, 0.004))
    assert turn == Turn(batch=tuple(fine), dropped=(doomed,))
    assert doomed.outcome is Outcome.EXPIRED
    alone = offered(batcher, image(0.030))
    assert batcher.turn(0.0, 4, line(0.2, 0.004)).batch == tuple(alone), (
        "nobody else needs the engine, and estimates can be wrong"
    )


# --- how many


@pytest.mark.parametrize(
    ("waiting", "limit", "speed", "sizes"),
    [
        (9, 32, line(0.0026, 0.0024), [8, 1]),  # 8/t(8) = 367/s beats 9/t(16) = 219/s
        (15, 32, line(0.020, 0.001), [15]),  # 15/t(16) = 417/s beats 8/t(8) = 286/s
        (3, 32, line(0.020, 0.001), [3]),
        (3, 32, line(0.0, 0.001), [2, 1]),  # a batch gains nothing: no padding
        (20, 12, line(0.020, 0.001), [8, 8, 4]),  # no bucket above the limit
        (40, 32, line(0.020, 0.001), [32, 8]),
        (9, 32, unknown, [9]),
        (20, 12, unknown, [8, 8, 4]),
    ],
)
def test_buckets_by_useful_images_per_second(
    waiting: int, limit: int, speed: Callable[[int], float | None], sizes: list[int]
) -> None:
    batcher = Batcher(BatchRules(pad_to_buckets=True, buckets=(1, 2, 4, 8, 16, 32)))
    offered(batcher, *(image() for _ in range(waiting)))
    assert [len(batcher.turn(0.0, limit, speed).batch) for _ in sizes] == sizes
    assert batcher.waiting == 0


def test_exact_sizes_where_a_shape_costs_nothing() -> None:
    batcher = Batcher(BatchRules(buckets=(1, 2, 4, 8, 16, 32)))
    offered(batcher, *(image() for _ in range(9)))
    assert len(batcher.turn(0.0, 32, line(0.0026, 0.0024)).batch) == 9


# --- always

KEYS = st.sampled_from([KEY, OTHER_KEY])
OFFER = st.tuples(st.just("offer"), st.floats(0, 3), st.sampled_from(["", "a", "b"]), KEYS)
STEPS = st.lists(
    st.one_of(
        OFFER,
        OFFER,
        st.tuples(st.just("turn"), st.integers(1, 9)),
        st.tuples(st.just("wait"), st.floats(0.001, 1.0)),
        st.tuples(st.just("cancel"), st.integers(0, 99)),
    ),
    max_size=120,
)
RULES = st.builds(
    BatchRules,
    window=st.sampled_from(Window),
    max_delay_s=st.floats(0, 0.5),
    eager_size=st.integers(1, 8),
    shared=st.booleans(),
    objective_s=st.none() | st.floats(0.01, 1),
    pad_to_buckets=st.booleans(),
    buckets=st.just((1, 2, 4, 8, 16)),
)


@settings(deadline=None, max_examples=200)
@given(rules=RULES, steps=STEPS, fixed_s=st.floats(0, 0.3), per_image_s=st.floats(0.0001, 0.1))
def test_every_image_leaves_exactly_once_and_no_rule_is_broken(
    *, rules: BatchRules, steps: list[tuple[str, float, str, ShapeKey]], fixed_s: float, per_image_s: float
) -> None:
    batcher = Batcher(rules)
    now_s = 0.0
    images: list[Image] = []
    left: Counter[int] = Counter()

    def check(turn: Turn, limit: int) -> None:
        assert len(turn.batch) <= limit
        assert len({one.key for one in turn.batch}) <= 1
        assert all(one.deadline_s > now_s and not one.cancelled and one.outcome is None for one in turn.batch)
        for one in turn.dropped:
            assert one.outcome is (Outcome.CANCELLED if one.cancelled else Outcome.EXPIRED)
            full_s = fixed_s + per_image_s * limit if turn.batch else 0.0
            assert one.cancelled or one.deadline_s <= now_s + full_s
        left.update(id(one) for one in (*turn.batch, *turn.dropped))
        if not turn.batch:
            assert (turn.wait_until_s is not None) == (batcher.waiting > 0)
            assert turn.wait_until_s is None or turn.wait_until_s > now_s

    for step, *values in steps:
        match step, values:
            case "offer", [float(patience_s), str(source), key]:
                assert isinstance(key, ShapeKey)
                images.append(image(now_s + patience_s, arrived_s=now_s, source=source, key=key))
                batcher.offer(images[-1], now_s)
            case "turn", [int(limit)]:
                check(batcher.turn(now_s, limit, line(fixed_s, per_image_s)), limit)
            case "wait", [float(seconds)]:
                now_s += seconds
            case "cancel", [int(index)] if images:
                images[index % len(images)].cancelled = True
        assert batcher.waiting == len(images) - left.total()
        ages_s = [now_s - one.queued_s for one in images if not left[id(one)]]
        assert batcher.oldest_age_s(now_s) == pytest.approx(max(ages_s, default=0.0))
    left.update(id(one) for one in batcher.drain())
    assert left == Counter(id(one) for one in images)


@settings(deadline=None)
@given(st.lists(st.floats(1, 100), min_size=1, max_size=200), st.integers(1, 40))
def test_without_sources_the_order_is_by_deadline(deadlines_s: list[float], limit: int) -> None:
    batcher = Batcher(BatchRules())
    offered(batcher, *(image(deadline_s) for deadline_s in deadlines_s))
    order: list[float] = []
    while batcher.waiting:
        order += [one.deadline_s for one in batcher.turn(0.0, limit, unknown).batch]
    assert order == sorted(deadlines_s)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=100), st.integers(1, 12))
def test_sources_that_wait_are_served_in_turn(sources: list[str], limit: int) -> None:
    batcher = Batcher(BatchRules())
    offered(batcher, *(image(source=source) for source in sources))
    order: list[str] = []
    while batcher.waiting:
        order += [one.source for one in batcher.turn(0.0, limit, unknown).batch]
    for source in set(sources):
        places = [index for index, one in enumerate(order) if one == source]
        assert all(later - earlier <= len(set(sources)) for earlier, later in pairwise(places))


def test_what_has_left_is_not_kept_alive() -> None:
    """An image's pixels are a megabyte; a queue that is never empty must not hold on to those it has served."""
    batcher = Batcher(BatchRules())
    offered(batcher, image(LATER_S + 1, source="patient"))
    pixels: list[weakref.ref[np.ndarray[Any, Any]]] = []
    for step in range(2000):
        one = image(LATER_S - step, source=f"client-{step}" if step % 2 else "")
        one.pixels = np.zeros((1, 1, 3), np.uint8)
        pixels.append(weakref.ref(one.pixels))
        batcher.offer(one, step)
        del one
        batcher.turn(step, 1, unknown)
        batcher.offer(image(LATER_S + 1, source="patient"), step)
        batcher.turn(step, 1, unknown)
    assert batcher.waiting == 1
    gc.collect()
    assert sum(reference() is not None for reference in pixels) <= 1
    tickets = [thing for thing in gc.get_objects() if type(thing).__name__ == "_Ticket"]
    assert len(tickets) < 300
