"""One model, one way of running it, in a process of its own: the device's memory is this case's alone. JSON in and out."""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from yolastic_contract.names import buckets_up_to
from yolastic_worker.engine.agreement import observe, probe_images
from yolastic_worker.engine.onnxruntime import OnnxOptions, OnnxRuntimeEngine
from yolastic_worker.memory.fit import fit_line
from yolastic_worker.memory.planner import NotPlannable, plan_in_child
from yolastic_worker.types import OutOfDeviceMemory, WorkerFailure


def measure(engine: OnnxRuntimeEngine, largest: int, repeats: int) -> dict[str, Any]:
    """Time and memory of every bucket: two runs that are not counted, then the median of `repeats`."""
    image = probe_images(engine.info.height, engine.info.width)[0]
    times_ms, peaks = {}, {}
    engine.memory()
    for images in buckets_up_to(largest):
        batch = [image] * images
        try:
            for _ in range(3):
                engine.run(batch)
        except OutOfDeviceMemory:
            break
        peaks[images] = engine.memory().peak_bytes
        taken = []
        for _ in range(repeats):
            start_s = time.perf_counter()
            engine.run(batch)
            taken.append(time.perf_counter() - start_s)
        times_ms[images] = 1e3 * statistics.median(taken)
    fit = fit_line((images, peak) for images, peak in peaks.items() if peak is not None)
    speed = fit_line(times_ms.items())
    return {
        "times_ms": times_ms, "peaks": peaks, "fit": None if fit is None else fit.model_dump(),
        "speed": None if speed is None else speed.model_dump(),
    }  # fmt: skip


def survive(engine: OnnxRuntimeEngine, largest: int) -> dict[str, Any]:
    """Batches that are too large for the arena's limit, and a small one after each: is it still right?"""
    image = probe_images(engine.info.height, engine.info.width)[0]
    canary = observe(image, engine.run([image])[0], engine.info.head)
    failed, right = [], True
    for images in (*buckets_up_to(largest), largest, largest):
        try:
            engine.run([image] * images)
        except OutOfDeviceMemory:
            failed.append(images)
        right = right and canary.differs(engine.run([image])[0], engine.info.head) is None
    return {"out_of_memory": failed, "right_afterwards": right}


def planned(case: dict[str, Any]) -> dict[str, int] | str:
    """Bytes for each bucket by the file, or why there is no plan."""
    try:
        plan = plan_in_child(Path(case["model"]), device=case["device"], max_batch=case["largest"])
    except NotPlannable as reason:
        return str(reason)
    return {str(images): plan.bytes_at(images) for images in buckets_up_to(case["largest"])}


def main() -> int:
    case = json.loads(sys.argv[1])
    options = OnnxOptions(model=Path(case["model"]), device=case["device"], max_batch=case["largest"], **case["options"])
    try:
        engine = OnnxRuntimeEngine(options)
    except WorkerFailure as failure:
        print(json.dumps({"failure": f"{failure.reason}: {failure}"}))
        return 0
    if case["kind"] == "survive":
        answer = survive(engine, case["largest"])
    else:
        answer = measure(engine, case["largest"], case["repeats"])
        answer["planned"] = planned(case) if case["kind"] == "memory" else None
    print(json.dumps(answer | {"device_id": engine.info.device_id, "runtime": engine.info.runtime_version}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
