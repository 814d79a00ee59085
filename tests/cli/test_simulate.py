"""The simulator: arrivals, one device against queueing theory, a fleet's bookkeeping, and the plant's day in small."""

import itertools
import json
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolastic_cli.__main__ import main
from yolastic_cli.load import Phase
from yolastic_cli.simulate import factory
from yolastic_cli.simulate.arrivals import arrivals, seconds_of, steps_s
from yolastic_cli.simulate.closed_loop import Run, Settings
from yolastic_cli.simulate.device import T4, Device
from yolastic_cli.simulate.fleet import Fleet, FleetRules
from yolastic_cli.simulate.sizing import OwnDecision, Plan
from yolastic_cli.simulate.worker import SimulatedWorker, Tally, WorkerRules
from yolastic_contract.state import CeilingGrant
from yolastic_worker.batcher import Window

CLASSIC = {"objective_s": None, "patience_s": 1e6, "queue_length": 10**9}


def one_device(rate_per_s, rules, seconds=60.0, grant=None, seed=3):
    times_s = arrivals((Phase("steady", seconds, rate_per_s, rate_per_s),), np.random.default_rng(seed))
    tally = Tally()
    worker = SimulatedWorker(rules, tally, 0.0)
    if grant is not None:
        worker.grant(CeilingGrant(base=grant[0], ceiling=grant[1]))
    for now_s in times_s.tolist():
        while worker.wake_s <= now_s:
            worker.wake(worker.wake_s)
        worker.arrive(now_s)
    while worker.wake_s < inf:
        worker.wake(worker.wake_s)
    assert worker.inflight == 0
    assert len(tally.latency_s) == len(times_s)
    return worker, tally, np.frombuffer(tally.latency_s)


def test_arrivals_follow_the_rate_and_the_seed():
    phases = (Phase("up", 100, 0, 200), Phase("steady", 50, 300, 300), Phase("silence", 30, 0, 0), Phase("down", 20, 100, 0))
    times_s = arrivals(phases, np.random.default_rng(1))
    assert np.array_equal(times_s, arrivals(phases, np.random.default_rng(1)))
    assert not np.array_equal(times_s[:50], arrivals(phases, np.random.default_rng(2))[:50])
    assert (np.diff(times_s) >= 0).all()
    counts = np.histogram(times_s, (0, 50, 100, 150, 179.9, 200))[0]
    for count, mean in zip(counts, (2500, 7500, 15000, 0, 1000), strict=True):
        assert abs(count - mean) <= 5 * mean**0.5 + 1
    gaps_s = np.diff(times_s[(times_s > 100) & (times_s < 150)])
    assert gaps_s.std() == pytest.approx(gaps_s.mean(), rel=0.05)  # exponential
    assert seconds_of(phases) == 200
    assert steps_s(phases) == (100, 180)


@pytest.mark.parametrize(("rate_per_s", "mean_ms", "busy"), [(8, 5.1, 0.04), (250, 14, 0.91), (300, 20, 0.97)])
def test_an_elastic_device_is_where_queueing_theory_has_it(rate_per_s, mean_ms, busy):
    worker, tally, latencies_s = one_device(rate_per_s, WorkerRules(T4), grant=(4, 16))
    assert latencies_s.mean() * 1e3 == pytest.approx(mean_ms, rel=0.07)
    assert worker.busy_s / 60 == pytest.approx(busy, abs=0.02)
    assert (tally.refused, tally.expired) == (0, 0)


def test_batches_of_one_are_an_m_d_1_queue():
    _, _, latencies_s = one_device(150, WorkerRules(T4, max_batch=1, **CLASSIC), seconds=240)
    load = 150 * 0.005
    assert latencies_s.mean() == pytest.approx(0.005 + 0.005 * load / (2 * (1 - load)), rel=0.06)


def test_full_batches_alone_wait_for_company():
    rules = WorkerRules(T4, window=Window.FIXED, eager_size=32, max_delay_s=1e6, **CLASSIC)
    times_s = np.linspace(0, 9.9, 320)
    tally = Tally()
    worker = SimulatedWorker(rules, tally, 0.0)
    for now_s in times_s.tolist():
        while worker.wake_s <= now_s:
            worker.wake(worker.wake_s)
        worker.arrive(now_s)
    worker.wake(worker.wake_s)
    assert (worker.batches, worker.images) == (10, 320)
    assert max(tally.latency_s) == pytest.approx(31 * 9.9 / 319 + T4.seconds(32), abs=1e-6)


def test_an_overloaded_device_goes_on_answering_in_time():
    worker, tally, latencies_s = one_device(1000, WorkerRules(T4, patience_s=0.1), seconds=20, grant=(4, 16))
    in_time = np.count_nonzero(latencies_s <= 0.1)
    assert in_time / 20 >= 0.85 * 16 / T4.seconds(16)
    assert tally.refused > 0
    assert worker.images == np.count_nonzero(np.isfinite(latencies_s))


def test_padding_costs_what_the_larger_size_costs():
    worker, _, _ = one_device(350, WorkerRules(Device(pads=True)), seconds=20, grant=(4, 16))
    assert worker.busy_s > worker.batches * T4.fixed_s + worker.images * T4.per_image_s


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.5, 20), st.integers(0, 4)), min_size=1, max_size=8),
    st.floats(1, 600),
    st.sampled_from([0.0, 1.0, 7.0]),
    st.integers(0, 99),
)
def test_every_image_ends_once_whatever_sizes_are_ordered(orders, rate_per_s, start_s, seed):
    times_s = arrivals((Phase("steady", 40, rate_per_s, rate_per_s),), np.random.default_rng(seed))
    fleet = Fleet(FleetRules(WorkerRules(T4), start_s=start_s), times_s.tolist(), [0.5] * len(times_s), 1)
    now_s = 0.0
    for after_s, size in orders:
        now_s += after_s
        fleet.run_until(now_s)
        fleet.order(size)
        assert sum(member.phase != "Terminating" for member in fleet.members.values()) == size
    fleet.run_until(now_s + 100)
    assert len(fleet.tally.arrived_s) == np.count_nonzero(times_s <= now_s + 100)
    assert sorted(fleet.tally.arrived_s) == times_s[times_s <= now_s + 100].tolist()
    assert len(fleet.members) == fleet.ordered == len(fleet.serving)
    assert fleet.busy_s() <= fleet.device_s(0, fleet.now_s) + 1e-9


def test_a_worker_starts_serves_and_leaves_after_its_last_answer():
    fleet = Fleet(FleetRules(WorkerRules(T4), start_s=10, leave_s=5), [], [], 1)
    fleet.order(2)
    fleet.run_until(9.9)
    assert len(fleet.serving) == 1
    fleet.run_until(10.1)
    assert len(fleet.serving) == 2
    fleet.order(1, ("worker-1",))
    assert [member.name for member in fleet.serving] == ["worker-2"]
    fleet.run_until(20)
    assert fleet.changes == [(0.0, 2), (10.1, 1)]
    assert fleet.device_s(0, 20) == pytest.approx(20 + 15.1)
    fleet.order(3)
    fleet.order(1)  # what is not ready goes first
    assert [member.name for member in fleet.members.values()] == ["worker-2"]


def test_the_operators_loop_turns_on_the_simulated_fleet():
    phases = (Phase("quiet", 30, 20, 20), Phase("rush", 120, 700, 700))
    fleet = FleetRules(WorkerRules(T4, patience_s=0.1), start_s=20)
    run = Run(Settings(phases, fleet, autoscaling={"maxReplicas": 4}), OwnDecision()).play((30.0,))
    assert run.fleet.ordered == 3  # 700/s over 390/s a device at 80 %
    assert run.fleet.changes[0][0] <= 45
    member = run.fleet.serving[0].worker
    assert member is not None
    assert member.tiers(0.0).granted
    assert member.tiers(0.0).ceiling == 16  # twice 2.6 + 2.4*16 ms within 100 ms
    late = run.latencies_s(110)
    assert np.count_nonzero(late <= 0.1) / len(late) > 0.99
    assert run.busy_s(30.0, 150.0) > run.busy_s(0.0, 30.0)


def test_the_same_seed_gives_the_same_day():
    phases = (Phase("rush", 20, 100, 500),)
    runs = [
        Run(Settings(phases, FleetRules(WorkerRules(T4)), seed=5), Plan("two", ((0.0, 1), (5.0, 2)))).play() for _ in range(2)
    ]
    assert runs[0].fleet.tally == runs[1].fleet.tally
    assert len(runs[0].fleet.tally.latency_s) > 4000


def test_the_plants_day_in_small_reaches_what_the_design_promises():
    found = factory.play(hour_s=4, trial_s=20)
    assert [claim.text for claim in found.claims if not claim.held] == []
    ones, full, elastic = found.columns
    assert (ones.needed, full.needed, elastic.needed) == (7, None, 4)
    assert (ones.devices_at_peak, elastic.devices_at_peak) == (7, 5)
    assert ones.device_hours == pytest.approx(7 * 24)
    assert elastic.night_s < 0.0055 < elastic.mean_s < 0.015


def test_planned_sizes_follow_the_rate():
    sizes = factory.elastic_sizes(factory.day(20))
    assert sizes[0] == (0.0, 1)
    assert max(size for _, size in sizes) == 5
    assert sizes[-1][1] == 1
    assert all(before[1] != after[1] for before, after in itertools.pairwise(sizes))


def test_the_command_prints_the_table_or_json(capsys):
    assert main(["simulate", "factory", "--hour", "2s", "--json"]) in (0, 1)
    told = json.loads(capsys.readouterr().out)
    assert [column["name"] for column in told["columns"]] == ["fixed batch 1", "fixed batch 32", "elastic 1..32"]
    assert told["columns"][1]["needed"] is None
    assert main(["simulate", "nowhere"]) == 2
    assert main(["simulate", "factory", "--hour", "2h"]) == 2
    assert "from 2s to 1h" in capsys.readouterr().err
    assert main(["simulate", "spike", "--hour", "5s"]) == 2
    assert "--hour is for the scenario factory" in capsys.readouterr().err
    assert main(["simulate", "spike", "--seed", "-1"]) == 2
    assert "-1 is not a seed from 0 to 4294967295" in capsys.readouterr().err
