"""Workers, observations and specs for policy tests, with every number that a test does not name left harmless."""

from dataclasses import replace
from typing import Any

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_contract.state import CeilingState, Fit, LoadState, MemoryState, ModelState, WorkerState
from yolastic_operator.model import Fleet, Fresh, Missing, Observation, Reading, Stale, Tiers, Worker, WorkerView

SHA = "ab" * 32
MIB = 2**20
RUNTIME = RuntimeSpec(image="worker:test")


def spec(**fields: Any) -> InferenceSpec:
    return InferenceSpec.model_validate({"model": {"uri": "https://models/m.onnx", "sha256": SHA}, **fields})


def autoscaled(minimum: int = 1, maximum: int = 100, **fields: Any) -> InferenceSpec:
    return spec(autoscaling={"minReplicas": minimum, "maxReplicas": maximum, **fields})


def state(
    *,
    speed: tuple[float, float] | None = (0.02, 0.001),
    memory: tuple[float, float] | None = None,
    limit_bytes: int | None = None,
    max_batch: int = 32,
    buckets: list[int] | None = None,
    granted: Tiers | None = None,
    phase: str = "Ready",
    arrived_per_s: float = 0.0,
    inflight: int = 0,
    sha256: str = SHA,
) -> WorkerState:
    warm = buckets or [b for b in (1, 2, 4, 8, 16, 32, 64, 128, 256) if b < max_batch] + [max_batch]
    tiers = granted or Tiers(max_batch, max_batch)
    return WorkerState(
        worker_id="w",
        version="0",
        phase=phase,  # type: ignore[arg-type]
        backend="simulated",
        device="simulated",
        device_id="GPU-0",
        started_s=0.0,
        max_batch=max_batch,
        buckets=warm,
        model=ModelState(sha256=sha256, task="Detect", names=["a"], input_width=640, input_height=640, precision="FP32"),
        memory=MemoryState(
            limit_bytes=limit_bytes,
            limit_source="Device" if limit_bytes is not None else None,
            fit=Fit(fixed=memory[0], per_image=memory[1]) if memory else None,
        ),
        speed=Fit(fixed=speed[0], per_image=speed[1]) if speed else None,
        ceiling=CeilingState(
            base=tiers.base, ceiling=tiers.ceiling, effective=tiers.base, burst=False, granted=granted is not None
        ),
        load=LoadState(
            ratio=0.0,
            arrived_per_s=arrived_per_s,
            refused_per_s=0.0,
            capacity_per_s=500.0,
            queue_images=0,
            queue_oldest_age_s=0.0,
            inflight_images=inflight,
            busy_ratio=0.0,
        ),
    )


def worker(name: str, *, revision: str = "r1", phase: str = "Ready", ready: bool | None = None, **fields: Any) -> Worker:
    serves = phase == "Ready" if ready is None else ready
    fields = {"created_s": 0.0, **fields}
    return Worker(name=name, revision=revision, phase=phase, ready=serves, **fields)  # type: ignore[arg-type]


def view(
    name: str, ratio: float | Reading[float] = 0.5, told: WorkerState | Reading[WorkerState] | None = None, **fields: Any
) -> WorkerView:
    one = worker(name, **fields)
    load: Reading[float] = ratio if isinstance(ratio, Fresh | Stale | Missing) else Fresh(ratio)
    if one.phase != "Ready":
        load = Missing(f"the worker is {one.phase}")
    reading: Reading[WorkerState]
    if isinstance(told, Fresh | Stale | Missing):
        reading = told
    elif told is None and one.phase != "Ready":
        reading = Missing(f"the worker is {one.phase}")
    else:
        reading = Fresh(told or state())
    return WorkerView(one, reading, load)


def seen(*views: WorkerView, replicas: int | None = -1, revision: str | None = "r1", **fields: Any) -> Observation:
    ordered = len(views) if replicas == -1 else replicas
    return Observation(Fleet(ordered, tuple(v.worker for v in views), revision), tuple(views), **fields)


def fleet(ratios: list[float], *, starting: int = 0, told: WorkerState | None = None, replicas: int | None = None) -> Observation:
    views = [view(f"w-{i}", ratio, told) for i, ratio in enumerate(ratios)]
    views += [view(f"s-{i}", phase="Starting") for i in range(starting)]
    return seen(*views, replicas=len(views) if replicas is None else replicas)


def with_phase(one: WorkerView, phase: str) -> WorkerView:
    return replace(one, worker=replace(one.worker, phase=phase, ready=phase == "Ready"))  # type: ignore[arg-type]
