"""A day of one's own: what the command line takes, and what it refuses in a sentence."""

import json

import pytest

from yolastic_cli.__main__ import main
from yolastic_cli.load import Phase
from yolastic_cli.simulate import own_day


def test_phases_are_rates_and_ramps():
    assert own_day.phases("5m 20, 90s 20..200.5 ,1h 8") == (
        Phase("phase 1", 300, 20, 20),
        Phase("phase 2", 90, 20, 200.5),
        Phase("phase 3", 3600, 8, 8),
    )


def test_a_day_of_ones_own_is_played_within_its_bounds(capsys):
    load = ["--load", "20s 5, 60s 300", "--device", "20ms+10ms", "--objective", "300ms", "--start", "5s", "--workers", "2"]
    main(["simulate", "own", *load, "--set", "minReplicas=2", "--set", "maxReplicas=3", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["day"]["autoscaling"] == {"minReplicas": 2, "maxReplicas": 3}
    assert found["day"]["device"] == {"fixed_s": 0.02, "per_image_s": 0.01, "pads": False}
    assert (found["day"]["objective_s"], found["day"]["start_s"], found["day"]["first"]) == (0.3, 5.0, 2)
    assert {one["most"] for one in (*found["outcomes"], found["oracle"])} == {3}
    # 80 s with two workers, and with a third from about 5 s after the rise.
    assert found["oracle"]["device_hours"] * 3600 == pytest.approx(2 * 80 + 60, abs=2)


def test_its_own_rules_are_the_operators_alone(capsys):
    main(["simulate", "own", "--load", "3m 20", "--json"])
    with_a_second = json.loads(capsys.readouterr().out)
    main(["simulate", "own", "--load", "3m 20", "--set", "secondWorkerLoadPercent=60", "--json"])
    alone = json.loads(capsys.readouterr().out)
    assert (with_a_second["outcomes"][0]["most"], alone["outcomes"][0]["changes"]) == (2, 0)
    assert with_a_second["outcomes"][1:] == alone["outcomes"][1:]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["own"], "own needs --load"),
        (["spike", "--start", "5s"], "--start is for the scenario own"),
        (["factory", "--set", "minReplicas=2"], "--set is for the scenario own"),
        (["own", "--load", "5m"], '"5m" is not a phase'),
        (["own", "--load", "5m 20, x 3"], "x is not a time"),
        (["own", "--load", "0.5s 20"], "shorter than a second"),
        (["own", "--load", "25h 20"], "longer than 24h"),
        (["own", "--load", "1m 0"], "these are 0 images"),
        (["own", "--load", "20h 900"], "these are 64,800,000 images"),
        (["own", "--load", "1m 20", "--objective", "10ms"], "an objective of 10 ms is less than one image takes, 25 ms"),
        (["own", "--load", "1m 20", "--objective", "2m"], "not a time from 1ms to 1m"),
        (["own", "--load", "1m 20", "--device", "3"], "such as 13ms+12ms"),
        (["own", "--load", "1m 20", "--device", "3ms+0ms"], "such as 13ms+12ms"),
        (["own", "--load", "1m 20", "--start", "0s"], "not a time from 1s to 30m"),
        (["own", "--load", "1m 20", "--workers", "0"], "not a number of workers"),
        (["own", "--load", "1m 20", "--set", "maxReplicas"], "maxReplicas is not NAME=VALUE"),
        (["own", "--load", "1m 20", "--set", "maxReplicas=0"], "spec.autoscaling.maxReplicas: "),
        (["own", "--load", "1m 20", "--set", "maxReplicas=500"], "at most 100 workers are simulated"),
        (["own", "--load", "1m 20", "--set", "replica=1"], "spec.autoscaling.replica: "),
        (["own", "--load", "1m 20", "--set", "minReplicas=13"], "minReplicas must not exceed maxReplicas"),
    ],
)
def test_what_is_no_day_is_refused_in_a_sentence(words, told, capsys):
    assert main(["simulate", *words]) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert "Traceback" not in said.err
    assert not said.out
