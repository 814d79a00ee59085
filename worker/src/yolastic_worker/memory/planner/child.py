"""The plan, made in a process that ends: neither the `onnx` package nor the model's second copy stays in the worker."""

import json
import subprocess
import sys
from pathlib import Path

from yolastic_worker.memory.planner.plan import content_of
from yolastic_worker.memory.planner.result import NotPlannable, Plan
from yolastic_worker.memory.planner.skeleton import skeleton


def plan_in_child(
    model: bytes | Path,
    *,
    device: str = "cpu",
    precision: str | None = None,
    input_size: tuple[int, int] | None = None,
    max_batch: int = 256,
    runtime_defaults: bool = False,
    timeout_s: float = 30.0,
) -> Plan:
    """As `plan`; a child that fails in any way is `NotPlannable`, too.

    Raises:
        NotPlannable: why there is no plan.
    """
    asked = {
        "device": device, "precision": precision, "input_size": input_size, "max_batch": max_batch,
        "runtime_defaults": runtime_defaults,
    }  # fmt: skip
    command = [sys.executable, "-m", "yolastic_worker.memory.planner", json.dumps(asked)]
    content = skeleton(content_of(model))  # the child need not hold the weights a second time
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=timeout_s, check=False)
        answer = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise NotPlannable("the plan could not be made") from error
    if "error" in answer:
        raise NotPlannable(answer["error"])
    return Plan.from_json(answer)
