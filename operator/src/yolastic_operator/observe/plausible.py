"""Refuses states whose numbers cannot be: a broken worker must not steer the fleet. Pure."""

import math
from collections.abc import Iterator
from typing import Final

from yolastic_contract.inference_status import SHA256_LENGTH, TASK_LENGTH
from yolastic_contract.names import BUCKETS
from yolastic_contract.state import Fit, WorkerState

MAX_RATIO: Final = 1e6
"""A load ratio beyond this is a fault of the worker, not a load."""
MAX_IMAGES_PER_S: Final = 1e9
LEAST_IMAGES_PER_S: Final = 1e-6
"""The least capacity that is one; 0: it is not known. The slowest batch gives hundreds of times as much."""
MAX_SERIAL: Final = 2.0**53
"""Grants are numbered by milliseconds of Unix time, thousands of times fewer; beyond this JSON's numbers are not exact."""
MAX_DIGITS: Final = 300
"""An integer of more is no float."""
_NO_FLOAT: Final = 10**MAX_DIGITS
MAX_BYTES: Final = 2.0**63
"""The largest quantity Kubernetes knows: a limit may be declared as that. Sums and products of such are still finite."""
MAX_BATCH_S: Final = 1800.0
"""A batch that takes longer is none; microseconds of it still fit into an int32."""

MAX_BATCH: Final = BUCKETS[-1]


def implausible(state: WorkerState) -> str | None:
    """Which number of the state cannot be, in words; None when all can."""
    for name, value, upper in _numbers(state):
        if isinstance(value, int) and abs(value) >= _NO_FLOAT:
            return f"{name} is impossible (more than {MAX_DIGITS} digits)"
        if not math.isfinite(value):
            return f"{name} is not a finite number"
        if value < 0:
            return f"{name} is negative ({value:g})"
        if value > upper:
            return f"{name} is impossible ({value:g})"
    if 0 < state.load.capacity_per_s < LEAST_IMAGES_PER_S:
        return f"load.capacity_per_s is impossible ({state.load.capacity_per_s:g})"
    return _impossible_batch(state) or _impossible_ceiling(state) or _impossible_model(state)


def implausible_ratio(ratio: float) -> str | None:
    """Why a load ratio cannot be, in words; None when it can."""
    if not math.isfinite(ratio):
        return f"load ratio is {ratio}"
    if not 0 <= ratio <= MAX_RATIO:
        return f"load ratio is impossible ({ratio:g})"
    return None


def _impossible_batch(state: WorkerState) -> str | None:
    if not 1 <= state.max_batch <= MAX_BATCH:
        return f"max_batch is {state.max_batch}"
    for size in state.buckets:
        if not 1 <= size <= state.max_batch:
            return f"buckets holds {size}, which is not from 1 to its own max_batch {state.max_batch}"
    return None


def _impossible_model(state: WorkerState) -> str | None:
    model = state.model
    # Longer ones do not fit into the status, which is one for all workers.
    if model is not None and len(model.task) > TASK_LENGTH:
        return f"model.task has {len(model.task)} letters"
    if model is not None and len(model.sha256) > SHA256_LENGTH:
        return f"model.sha256 has {len(model.sha256)} letters"
    return None


def _impossible_ceiling(state: WorkerState) -> str | None:
    ceiling = state.ceiling
    if not 1 <= ceiling.base <= ceiling.ceiling:
        return f"ceiling.base {ceiling.base} and ceiling.ceiling {ceiling.ceiling} do not go together"
    # Before it is Ready, a worker on a shared device may have been granted more than it started with.
    if state.phase == "Ready" and ceiling.ceiling > state.max_batch:
        return f"ceiling.ceiling {ceiling.ceiling} is above its own max_batch {state.max_batch}"
    for name, images in (("ceiling", ceiling.ceiling), ("wanted", ceiling.wanted), ("reachable", ceiling.reachable)):
        if images is not None and not 1 <= images <= MAX_BATCH:
            return f"ceiling.{name} is {images}"
    return None


def _numbers(state: WorkerState) -> Iterator[tuple[str, float, float]]:
    load, memory = state.load, state.memory
    yield "ready_after_s", state.ready_after_s or 0, math.inf
    yield "load.ratio", load.ratio, MAX_RATIO
    yield "load.arrived_per_s", load.arrived_per_s, MAX_IMAGES_PER_S
    yield "load.refused_per_s", load.refused_per_s, MAX_IMAGES_PER_S
    yield "load.capacity_per_s", load.capacity_per_s, MAX_IMAGES_PER_S
    yield "load.queue_images", load.queue_images, MAX_IMAGES_PER_S
    yield "load.queue_oldest_age_s", load.queue_oldest_age_s, math.inf
    yield "load.inflight_images", load.inflight_images, MAX_IMAGES_PER_S
    yield "load.busy_ratio", load.busy_ratio, math.inf
    yield "load.demand_images", load.demand_images or 0, MAX_SERIAL
    yield "memory.limit_bytes", memory.limit_bytes or 0, MAX_BYTES
    yield "memory.device_bytes", memory.device_bytes or 0, MAX_BYTES
    yield "memory.held_images", memory.held_images or 0, MAX_IMAGES_PER_S
    yield "ceiling.budget_bytes", state.ceiling.budget_bytes or 0, MAX_BYTES
    yield "ceiling.calm_s", state.ceiling.calm_s, math.inf
    yield "ceiling.serial", state.ceiling.serial or 0, MAX_SERIAL
    yield "memory.observed_peak_bytes", memory.observed_peak_bytes or 0, MAX_BYTES
    yield from _fit("memory.plan", memory.plan, MAX_BYTES)
    yield from _fit("memory.fit", memory.fit, MAX_BYTES)
    yield from _fit("speed", state.speed, MAX_BATCH_S)


def _fit(name: str, fit: Fit | None, upper: float) -> Iterator[tuple[str, float, float]]:
    if fit is not None:
        yield f"{name}.fixed", fit.fixed, upper
        yield f"{name}.per_image", fit.per_image, upper
        yield f"{name}.residual", fit.residual, upper
