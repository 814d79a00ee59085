"""The load that measures: rates, checks and percentiles are right."""

import math

import pytest

from yolastic_cli.load import OpenLoad, Phase, arrivals, compare, intersection_over_union, percentile, rate_at

PHASES = (Phase("night", 10, 2, 2), Phase("ramp", 10, 2, 100), Phase("rush", 10, 100, 100))


@pytest.mark.parametrize(("at_s", "rate"), [(0, 2), (9.9, 2), (15, 51), (20, 100), (29.9, 100), (30, 0), (99, 0)])
def test_rate_follows_the_phases(at_s: float, rate: float) -> None:
    assert rate_at(PHASES, at_s) == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize("poisson", [True, False])
def test_arrivals_carry_the_rate_and_end(poisson: bool) -> None:
    times = list(arrivals(OpenLoad(PHASES, poisson=poisson)))
    wanted = 20 + 510 + 1000
    assert len(times) == pytest.approx(wanted, abs=4 * math.sqrt(wanted) if poisson else 3)
    assert times == sorted(times)
    assert times[-1] < 30
    assert sum(time_s < 10 for time_s in times) == pytest.approx(20, abs=18 if poisson else 1)


def test_arrivals_repeat_with_their_seed() -> None:
    assert list(arrivals(OpenLoad(PHASES, seed=1))) == list(arrivals(OpenLoad(PHASES, seed=1)))
    assert list(arrivals(OpenLoad(PHASES, seed=1))) != list(arrivals(OpenLoad(PHASES, seed=2)))


def _row(name: str, *box: float) -> dict[str, object]:
    return {"name": name, "confidence": 0.9, "box": dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))}


@pytest.mark.parametrize(
    ("rows", "found", "extra"),
    [
        ([], 0, 0),
        ([_row("star", 0, 0, 10, 10)], 1, 0),
        ([_row("ring", 0, 0, 10, 10)], 0, 1),
        ([_row("star", 0, 0, 10, 10), _row("star", 0, 0, 10, 10)], 1, 1),
        ([_row("star", 5, 5, 15, 15)], 0, 1),
        ([_row("star", 0, 0, 10, 9), _row("ring", 20, 20, 40, 40)], 2, 0),
    ],
)
def test_an_answer_is_held_against_the_labels(rows: list[dict[str, object]], found: int, extra: int) -> None:
    objects = (("star", (0.0, 0.0, 10.0, 10.0)), ("ring", (20.0, 20.0, 40.0, 40.0)))
    assert compare(objects, rows) == (found, extra)


def test_overlap() -> None:
    assert intersection_over_union((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert intersection_over_union((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    assert intersection_over_union((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 5), (90, 9), (95, 10), (100, 10)])
def test_percentile_is_a_value_that_was_seen(percent: float, value: float) -> None:
    assert percentile(list(range(10, 0, -1)), percent) == value


def test_percentile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(percentile([], 50))
