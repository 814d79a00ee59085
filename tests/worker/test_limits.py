"""Limits: each has a flag, a unit and a reason, and arrives where it is read."""

import math
import resource
from dataclasses import fields

import pytest

from yolastic_worker.limits import DEFAULT_LIMITS, ImageFormat, Limits, fit_descriptors, parse_formats, rules
from yolastic_worker.settings import ServeSettings, parse_arguments
from yolastic_worker.types import WorkerFailure


def _limits(*arguments: str) -> Limits:
    settings = parse_arguments(["serve", "--backend", "simulated", *arguments])
    assert isinstance(settings, ServeSettings)
    return settings.limits


def test_every_limit_has_a_flag_and_a_reason() -> None:
    assert set(rules()) == {item.name for item in fields(Limits)}
    assert len({rule.flag for rule in rules().values()}) == len(rules())
    assert all(len(rule.reason) > 20 for rule in rules().values())


def test_the_defaults_pass_their_own_bounds() -> None:
    assert _limits() == DEFAULT_LIMITS


@pytest.mark.parametrize(("name", "rule"), [item for item in rules().items() if item[1].kind != "formats"])
def test_every_limit_can_be_told_and_is_bounded(name: str, rule: object) -> None:
    low, high, flag = rules()[name].low, rules()[name].high, rules()[name].flag
    assert getattr(_limits(flag, str(low)), name) == low
    assert getattr(_limits(flag, str(high)), name) == high
    for wrong in (str(low - 1), str(high + 1), "-1", "", "many", "nan"):
        with pytest.raises(WorkerFailure, match=flag):
            _limits(flag, wrong)


def test_formats() -> None:
    assert _limits("--formats", "jpeg, PNG,jpeg").formats == (ImageFormat.JPEG, ImageFormat.PNG)
    for wrong in ("", "gif", "jpeg,"):
        with pytest.raises(ValueError, match="is not a valid"):
            parse_formats(wrong)


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "allowed", "raised_to"),
    [
        (65536, 65536, 2048, 2048, None),
        (1024, 524288, 2048, 2048, 2784),
        (1024, 1024, 2048, 288, 1024),
        (1024, resource.RLIM_INFINITY, 2048, 2048, 2784),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 2048, 2048, None),
        (64, 64, 2048, 1, 64),
    ],
)
def test_connections_leave_descriptors_for_the_control_port(
    soft: int, hard: int, wanted: int, allowed: int, raised_to: int | None
) -> None:
    told: list[tuple[int, int]] = []
    assert fit_descriptors(wanted, lambda: (soft, hard), told.append) == allowed
    assert told == ([] if raised_to is None else [(raised_to, hard)])


def test_a_limit_that_may_not_be_raised_stays() -> None:
    def refuse(limits: tuple[int, int]) -> None:
        raise OSError

    assert fit_descriptors(2048, lambda: (1024, 65536), refuse) == 288


def test_the_largest_body_arrives_in_time_at_the_least_rate_of_a_wired_line() -> None:
    assert DEFAULT_LIMITS.body_bytes * 8 / DEFAULT_LIMITS.body_timeout_s < 5e6
    assert math.isclose(DEFAULT_LIMITS.body_bytes, 32 * 2**20)
