"""Bytes of every batch size from the ONNX file alone, before anything runs.

`plan` does it here and loads the `onnx` package (15 MB that stay); `plan_in_child` does it in a process that ends.
"""

from yolastic_worker.memory.planner.child import plan_in_child
from yolastic_worker.memory.planner.plan import plan
from yolastic_worker.memory.planner.result import BatchBytes, NotPlannable, Plan

__all__ = ["BatchBytes", "NotPlannable", "Plan", "plan", "plan_in_child"]
