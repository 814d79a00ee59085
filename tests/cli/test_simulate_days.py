"""Closed loops: the autoscalers beside the operator, and what a day comes to."""

import json
from dataclasses import replace

import pytest

from yolastic_cli.load import Phase
from yolastic_cli.simulate import days, report
from yolastic_cli.simulate.arrivals import seconds_of, steps_s
from yolastic_cli.simulate.closed_loop import Run, Settings
from yolastic_cli.simulate.days import Day
from yolastic_cli.simulate.device import LARGE
from yolastic_cli.simulate.fleet import FleetRules
from yolastic_cli.simulate.sizing import Hpa, OwnDecision, Plan
from yolastic_cli.simulate.worker import WorkerRules

RAMP = Day("ramp", "a ramp", (Phase("calm", 60, 5, 5), Phase("up", 120, 5, 180), Phase("work", 120, 180, 180)), LARGE, 0.5)


def test_the_forecast_orders_workers_before_they_are_missing():
    found = days.play(RAMP, others=(Hpa("busy", 0.8, minimum=1, maximum=12, behavior=None),))
    own, other = found.outcomes
    assert own.misses < other.misses / 5
    assert found.best is other
    assert own.most <= 5


def test_without_the_forecast_the_ramp_is_missed():
    misses = {}
    for forecast in ("Trend", "None"):
        worker = WorkerRules(LARGE, objective_s=0.5, patience_s=0.5)
        autoscaling = {"maxReplicas": 12, "forecast": forecast}
        run = Run(Settings(RAMP.phases, FleetRules(worker), autoscaling=autoscaling), OwnDecision()).play()
        misses[forecast] = days._outcome(forecast, run, RAMP).misses
    assert misses["Trend"] < misses["None"] / 5


@pytest.mark.parametrize(
    ("metric", "target", "name"), [("busy", 0.8, "HPA, busy share 80%"), ("total queue", 4, "KEDA, queue 4")]
)
def test_an_autoscaler_decides_every_fifteen_seconds_within_its_bounds(metric, target, name):
    sizing = Hpa(metric, target, minimum=1, maximum=3, behavior=None)
    worker = WorkerRules(LARGE, objective_s=0.5, patience_s=0.5)
    run = Run(Settings((Phase("flood", 100, 500, 500),), FleetRules(worker, start_s=10)), sizing).play()
    assert sizing.name == name
    assert run.fleet.ordered == 3
    assert all(at_s % 15 == 0 for at_s, _ in run.fleet.changes)


@pytest.mark.parametrize(
    ("forecast", "orders"),
    [
        ("None", [(1, 360)]),  # 300 s of stabilisation after the last high recommendation
        ("Trend", [(3, 360), (1, 650)]),  # what had been needed stays for that time again, because it may come back at once
    ],
)
def test_after_a_step_down_the_window_counts_and_then_once_more(forecast, orders):
    phases = (Phase("work", 60, 180, 180), Phase("calm", 640, 5, 5))
    worker = WorkerRules(LARGE, objective_s=0.5, patience_s=0.5)
    autoscaling = {"maxReplicas": 12, "forecast": forecast}
    run = Run(Settings(phases, FleetRules(worker), 4, autoscaling=autoscaling), OwnDecision()).play()
    assert [size for _, size in run.fleet.changes] == [size for size, _ in orders]
    assert [at_s for at_s, _ in run.fleet.changes] == pytest.approx([at_s for _, at_s in orders], abs=40)


def test_what_fell_at_once_and_comes_back_is_met_by_its_workers():
    phases = (Phase("work", 60, 180, 180), Phase("outage", 480, 12, 12), Phase("work", 60, 180, 180))
    worker = WorkerRules(LARGE, objective_s=0.5, patience_s=0.5)
    run = Run(Settings(phases, FleetRules(worker), 3, autoscaling={"maxReplicas": 12}), OwnDecision()).play()
    assert (~(run.latencies_s() <= 0.5)).sum() == 0


def test_constant_load_never_flaps():
    phases = (Phase("steady", 200, 150, 150),)
    worker = WorkerRules(LARGE, objective_s=0.5, patience_s=0.5)
    run = Run(Settings(phases, FleetRules(worker), 3, autoscaling={"maxReplicas": 12}), OwnDecision()).play()
    assert len(run.fleet.changes) <= 1


def test_a_plan_is_followed_at_once():
    phases = (Phase("steady", 30, 20, 20),)
    worker = WorkerRules(LARGE, objective_s=0.5)
    run = Run(Settings(phases, FleetRules(worker, start_s=0.0, leave_s=0.0)), Plan("x", ((0.0, 1), (10.0, 3), (11.0, 2)))).play()
    assert run.fleet.changes == [(10.0, 3), (11.0, 2)]
    assert run.fleet.device_s(0, 30) == pytest.approx(10 + 3 + 2 * 19, abs=0.5)


def test_an_order_at_the_very_instant_pays_for_the_start_alone():
    calm_s, rate = 60, 220
    day = Day("step", "a step", (Phase("calm", calm_s, 10, 10), Phase("work", 200, rate, rate)), LARGE, 0.5)
    run = Run(days._settings(day, 7), days.oracle(day)).play()
    assert run.fleet.changes == [(calm_s, 4)]  # 220/s over 62/s a worker
    ready_s = calm_s + day.start_s
    late = run.latencies_s(calm_s, ready_s)
    assert (late > 0.5).mean() > 0.5, "one worker carries a third of it"
    assert (run.latencies_s(ready_s + 5) > 0.5).mean() < 0.01
    assert (run.latencies_s(0, calm_s - 1) > 0.5).sum() == 0


def test_the_oracle_sees_along_a_ramp_and_not_beyond_it():
    oracle = days.oracle(RAMP)
    run = Run(days._settings(RAMP, 7), oracle).play()
    ordered_s = {size: at_s for at_s, size in run.fleet.changes}
    # 5 to 180/s in 120 s passes 62.4/s a worker at 99 s and 124.9/s at 142 s; each is ordered 40 s ahead.
    assert ordered_s[2] == pytest.approx(60, abs=1.5)
    assert ordered_s[3] == pytest.approx(102, abs=1.5)


def test_every_day_is_whole():
    for day in days.DAYS.values():
        assert 1000 <= seconds_of(day.phases) <= 3600
        assert day.about
    assert steps_s(days.DAYS["spike"].phases) == (300, 920)


def test_a_comparison_as_a_table_and_as_json(capsys):
    from rich.console import Console

    short = replace(RAMP, phases=(Phase("calm", 20, 5, 5),), fixed_devices=7)
    found = days.play(short, others=days.baselines(short)[:1])
    report.show_day(found, Console(width=120))
    shown = capsys.readouterr().out
    assert "Yolastic" in shown
    assert "order at the very instant" in shown
    assert "HPA, busy share 60% (best other)" in shown
    assert len(found.claims) == 6
    assert json.loads(json.dumps(report.as_json(found)))["outcomes"][0]["name"] == "Yolastic"
