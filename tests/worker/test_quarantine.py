"""Held by content, for a while, never too many."""

from hypothesis import given
from hypothesis import strategies as st

from yolastic_worker.quarantine import Quarantine
from yolastic_worker.types import content_digest


def test_an_image_is_held_until_its_time_is_over() -> None:
    quarantine, digest = Quarantine(600), content_digest(b"image")
    assert not quarantine.holds(digest, 0)
    quarantine.add(digest, 0)
    assert quarantine.holds(digest, 599)
    assert not quarantine.holds(content_digest(b"another"), 1)
    assert quarantine.held(599) == 1
    assert not quarantine.holds(digest, 600), "it gets another chance"
    assert quarantine.held(600) == 0


def test_being_asked_for_does_not_lengthen_it_and_failing_again_does() -> None:
    quarantine = Quarantine(10)
    quarantine.add(b"a", 0)
    assert quarantine.holds(b"a", 9)
    assert not quarantine.holds(b"a", 11)
    quarantine.add(b"a", 11)
    assert quarantine.holds(b"a", 20)


def test_when_all_are_over_nobody_needs_to_ask() -> None:
    """Whoever asks has to compute a digest of all that comes in."""
    quarantine = Quarantine(10)
    assert quarantine.over(0)
    quarantine.add(b"a", 0)
    quarantine.add(b"b", 5)
    assert not quarantine.over(14)
    assert quarantine.over(15)
    quarantine.add(b"a", 20)
    assert not quarantine.over(29)


def test_an_image_without_a_digest_is_not_held() -> None:
    quarantine = Quarantine(10)
    quarantine.add(b"", 0)
    assert quarantine.over(0)


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 5)), max_size=200))
def test_bounded_and_the_newest_are_held(events: list[tuple[int, float]]) -> None:
    quarantine, now_s, added = Quarantine(20, most=8), 0.0, {}
    for name, step_s in events:
        now_s += step_s
        digest = bytes([name, 1])
        quarantine.add(digest, now_s)
        added[digest] = now_s
        assert quarantine.held(now_s) <= 8
        newest = sorted(added, key=added.__getitem__)[-1]
        assert quarantine.holds(newest, now_s)
    for digest, since_s in added.items():
        if quarantine.holds(digest, now_s):
            assert now_s < since_s + 20
