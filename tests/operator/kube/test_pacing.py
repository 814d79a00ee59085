"""Turns of many loops spread over a turn's length, and stay there."""

from hypothesis import given
from hypothesis import strategies as st

from yolastic_operator.model import Ref
from yolastic_operator.pacing import pause_s, phase_s

TURN_S = 5.0
TOOK_S = 0.01


@given(st.floats(0, 1e7), st.floats(0, TURN_S))
def test_a_pause_is_between_two_fifths_of_a_turn_and_a_whole_one(now_s: float, place_s: float) -> None:
    assert 0.4 * TURN_S <= pause_s(now_s, place_s, TURN_S) <= TURN_S


def after(turns: int, now_s: float, place_s: float) -> float:
    """When so many more turns have ended, each of which takes `TOOK_S`."""
    for _ in range(turns):
        now_s += pause_s(now_s, place_s, TURN_S) + TOOK_S
    return now_s


@given(st.floats(0, 1e7), st.floats(0, TURN_S - 0.1))
def test_the_second_turn_is_at_its_place(now_s: float, place_s: float) -> None:
    assert abs((after(2, now_s, place_s) - place_s) % TURN_S - TOOK_S) < 1e-6


def test_at_its_place_a_loop_turns_every_turn_however_long_a_turn_takes() -> None:
    assert [pause_s(100.0 + 2.0 + took_s, 2.0, TURN_S) for took_s in (0.25, 1.0, 3.0)] == [4.75, 4.0, 2.0]


def test_five_hundred_loops_held_up_together_part_again() -> None:
    refs = [Ref("plant", f"line-{number}", f"uid-{number}") for number in range(500)]
    tenths = [round(10 * (after(2, 100.0, phase_s(ref, TURN_S)) % TURN_S)) for ref in refs]
    assert max(tenths.count(tenth) for tenth in set(tenths)) <= 25  # all at once: 500; evenly: 10


def test_an_object_keeps_its_place() -> None:
    assert phase_s(Ref("plant", "weld", "uid-1"), TURN_S) == phase_s(Ref("plant", "weld", "uid-1"), TURN_S)
    assert 0 <= phase_s(Ref("plant", "weld"), TURN_S) < TURN_S
