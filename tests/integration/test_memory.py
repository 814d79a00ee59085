"""Memory as a worker knows it: planned from the file, fitted to what batches took, and gone when somebody else takes it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.alone

ROOT = Path(__file__).resolve().parents[2]
Start = Callable[..., Any]


def test_the_plan_is_told_beside_the_fit(start_worker: Start) -> None:
    """The plan is made before anything runs; the fit's residual says how well the line holds."""
    memory = start_worker("--model", ROOT / "examples/models/shapes.onnx", "--max-batch", "4").state()["memory"]
    plan, fit = memory["plan"], memory["fit"]
    assert plan["samples"] == 0
    assert plan["per_image"] > 0
    assert fit["samples"] == 3
    assert 0 <= fit["residual"] < 0.1 * fit["fixed"]
    assert memory["observed_peak_bytes"] < memory["limit_bytes"]
    planned, measured = (line["fixed"] + 4 * line["per_image"] for line in (plan, fit))
    assert abs(planned - measured) < 0.5 * measured, "of the same order: how near is the planner's own test"


def test_a_budget_too_small_for_one_image(start_worker: Start) -> None:
    """Refused by the plan, before anything runs, with both numbers."""
    worker = start_worker("--model", ROOT / "examples/models/shapes.onnx", "--memory-limit", "40Mi", wait=False)
    assert worker.wait(60) == 2
    assert "DoesNotFit: a batch of one image takes " in worker.log()
    assert "and the limit is 40Mi" in worker.log()


def test_memory_that_is_taken_away_while_serving(start_worker: Start, jpeg: bytes, tmp_path: Path) -> None:
    """The simulated device fails in ONNX Runtime's words; the answers stay right, and alone without memory it is a 507."""
    limit = tmp_path / "limit"
    told = "fixed_ms=5,per_image_ms=1,memory_fixed_mib=100,memory_per_image_mib=10,memory_limit_mib=1000"
    worker = start_worker(
        "--backend", "simulated", "--simulate", f"{told},memory_limit_file={limit}", "--input-size", "64x64", "--max-batch", "8"
    )  # fmt: skip
    assert worker.predict(jpeg).status == 200
    limit.write_text("105")
    answer = worker.predict(jpeg)
    assert (answer.status, answer.code) == (507, "out_of_memory")
    assert worker.metric("yolastic_out_of_memory_total") >= 1
    limit.unlink()
    assert worker.predict(jpeg).status == 200
