"""A worker on a shared device takes no memory before it is granted some, none beyond it, and shows what it has given back."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.alone

Start = Callable[..., Any]
MIB = 2**20
ROOT = Path(__file__).resolve().parents[2]
SIMULATE = "fixed_ms=30,per_image_ms=1,memory_fixed_mib=100,memory_per_image_mib=10,memory_limit_mib=1000,device=GPU-7"
SHARED = ("--backend", "simulated", "--simulate", SIMULATE, "--input-size", "64x64", "--max-batch", "8", "--shared")


def grant(base: int, ceiling: int, serial: int, **more: Any) -> dict[str, Any]:
    return {"base": base, "ceiling": ceiling, "budget_bytes": (100 + 10 * ceiling) * MIB, "serial": serial, **more}


def test_it_waits_and_tells_what_it_needs(start_worker: Start, until: Callable[..., None]) -> None:
    worker = start_worker(*SHARED, wait=False)
    until(lambda: "waiting for memory of the shared device GPU-7" in worker.log(), 30, worker.log)
    state = worker.state()
    assert (state["phase"], state["phase_message"]) == ("Starting", "waiting for memory of the shared device")
    assert (state["waits_for_memory"], state["device"], state["device_id"]) == (True, "simulated", "GPU-7")
    assert (state["memory"]["device_bytes"], state["memory"]["fit"]) == (1000 * MIB, None)
    assert (state["memory"]["plan"]["fixed"], state["memory"]["plan"]["per_image"]) == (100 * MIB, 10 * MIB)
    assert worker.control("GET", "/readyz").status == 503
    assert worker.control("GET", "/livez").status == 200

    told = worker.control("PUT", "/ceiling", grant(2, 4, 5, reachable=4, wanted=8)).json()
    assert (told["granted"], told["budget_bytes"], told["serial"]) == (True, 140 * MIB, 5)
    worker.wait_ready()
    state = worker.state()
    assert state["waits_for_memory"] is False
    assert state["buckets"] == [1, 2, 4], "nothing larger was tried"
    assert state["memory"]["observed_peak_bytes"] == 140 * MIB
    assert (state["memory"]["limit_bytes"], state["memory"]["limit_source"]) == (1000 * MIB, "Device")
    assert state["memory"]["held_images"] == 0
    tiers = state["ceiling"]
    assert (tiers["base"], tiers["ceiling"], tiers["effective"], tiers["reachable"], tiers["wanted"]) == (2, 4, 2, 4, 8)


def test_what_it_gives_back_shows_only_when_it_is_given_back(
    start_worker: Start, until: Callable[..., None], jpeg: bytes
) -> None:
    worker = start_worker(*SHARED, wait=False)
    until(lambda: worker.state()["waits_for_memory"], 30, worker.log)
    worker.control("PUT", "/ceiling", grant(2, 8, 1))
    worker.wait_ready()
    with ThreadPoolExecutor(24) as clients:
        answers = [clients.submit(worker.predict, jpeg) for _ in range(96)]
        until(lambda: worker.state()["memory"]["held_images"] == 8)
        assert worker.state()["ceiling"]["backlog"]
        worker.control("PUT", "/ceiling", grant(2, 2, 3))
        until(lambda: worker.state()["memory"]["held_images"] <= 2)
        late = worker.control("PUT", "/ceiling", grant(2, 8, 2)).json()
        assert (late["ceiling"], late["serial"]) == (2, 3), "it was overtaken"
        assert {answer.result().status for answer in answers} == {200}
        assert worker.state()["memory"]["held_images"] <= 2
    assert worker.state()["memory"]["observed_bytes"] <= 120 * MIB


def test_too_little_to_start_with(start_worker: Start, until: Callable[..., None]) -> None:
    worker = start_worker(*SHARED, wait=False)
    until(lambda: "waiting for memory" in worker.log(), 30, worker.log)
    worker.control("PUT", "/ceiling", {"base": 1, "ceiling": 1, "budget_bytes": 50 * MIB})
    assert worker.wait(30) == 2
    assert "DoesNotFit: a batch of one image takes 110Mi, and the limit is 50Mi" in worker.log()


@pytest.mark.parametrize(
    ("flags", "with_token"),
    [(SHARED, False), (("--model", ROOT / "tests/worker/data/dynamic.onnx", "--max-batch", "2", "--shared"), True)],
    ids=["nobody could grant", "the host's memory is no device"],
)
def test_without_a_device_to_share_it_starts_at_once(start_worker: Start, flags: Any, with_token: bool) -> None:
    worker = start_worker(*flags, with_token=with_token)
    assert worker.state()["phase"] == "Ready"
