"""The peers' data and the end of their processes."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from benchmarks import peer_processes, side_by_side
from benchmarks.client import ROOT
from benchmarks.peer_settings import PEERS, Peer
from benchmarks.side_by_side import FIGURES, Comparison

_STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
_FAMILY = f"""
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleep = [sys.executable, "-c", {_STUBBORN!r}]
one = subprocess.Popen(sleep, stdout=subprocess.PIPE)
two = subprocess.Popen(sleep, stdout=subprocess.PIPE, start_new_session=True)
one.stdout.readline(), two.stdout.readline()
print(one.pid, two.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.key)
def test_a_peer_is_pinned_and_its_settings_are_told_apart(peer: Peer) -> None:
    assert peer_processes.versions(peer)
    assert len({setting.name for setting in peer.settings}) == len(peer.settings) > 1
    assert peer.settings[0].name == "default"
    body = peer.target("http://127.0.0.1:1", b"image").bodies[0]
    assert body == b"image" or json.loads(body)
    lines = Path(ROOT, f"benchmarks/peers/requirements/{peer.key}.txt").read_text().splitlines()
    assert all("==" in line for line in lines)


def test_a_peer_ends_with_all_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_processes, "_END_S", 0.5)
    process = subprocess.Popen([sys.executable, "-c", _FAMILY], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    pids = [process.pid, *map(int, process.stdout.readline().split())]
    peer_processes._end(process)
    process.stdout.close()
    assert not [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def test_a_row_holds_only_above_every_peer_at_its_best() -> None:
    comparison = Comparison(4.0, 3)
    for value in (0.98, 0.99, 0.995):
        comparison.add("Yolastic", "default", {"share": value, "p50": 22.0})
        comparison.add("Mosec", "default", {"share": 0.95, "p50": 30.0})
        comparison.add("Mosec", "wait 1 ms", {"share": value - 0.02, "p50": 21.9})
    share, p50 = side_by_side.rows(comparison)
    assert share.held
    assert "0.990; best peer 0.970 (Mosec, wait 1 ms)" in share.measured
    assert not p50.held, "a peer is faster"
    lines = side_by_side.table(comparison)
    assert all(line.count("|") == lines[0].count("|") == len(FIGURES) + 3 for line in lines)
