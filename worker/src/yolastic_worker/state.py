"""What the worker says of itself: the contract's WorkerState, and the gauges read at scrape time."""

from typing import TYPE_CHECKING

from yolastic_contract import metrics as names
from yolastic_contract.state import CeilingState, LoadState, MemoryState, ModelState, WorkerState
from yolastic_worker import __version__
from yolastic_worker.lifecycle import Lifecycle
from yolastic_worker.metrics import WorkerMetrics
from yolastic_worker.reservation import Reservation
from yolastic_worker.settings import ServeSettings

if TYPE_CHECKING:
    from yolastic_worker.pipeline import Pipeline

_NO_LOAD = LoadState(
    ratio=0, arrived_per_s=0, refused_per_s=0, capacity_per_s=0, queue_images=0, queue_oldest_age_s=0, inflight_images=0,
    busy_ratio=0,
)  # fmt: skip


def worker_state(
    settings: ServeSettings, lifecycle: Lifecycle, pipeline: "Pipeline | None", reservation: Reservation | None = None
) -> WorkerState:
    """`GET /state`; before the model is loaded there is little to tell."""
    common = {
        "worker_id": lifecycle.worker_id, "version": __version__, "phase": lifecycle.phase, "phase_message": lifecycle.message,
        "started_s": lifecycle.started_unix_s, "ready_after_s": lifecycle.ready_after_s, "max_batch": settings.max_batch,
    }  # fmt: skip
    if pipeline is None:
        simulated, needs = settings.backend == "simulated", None if reservation is None else reservation.needs
        own = settings.max_batch
        return WorkerState(
            **common, backend="Simulated" if simulated else "OnnxRuntime", buckets=[],
            waits_for_memory=reservation is not None and reservation.waits,
            device=settings.device if needs is None else needs.device, device_id="" if needs is None else needs.device_id,
            simulated="simulated accelerator" if simulated else None,
            memory=MemoryState(
                limit_bytes=settings.memory_limit_bytes, plan=None if needs is None else needs.plan,
                device_bytes=None if needs is None else needs.device_bytes,
            ),
            ceiling=CeilingState(base=own, ceiling=own, effective=own, burst=False, granted=False)
            if reservation is None else reservation.ceiling(own),
            load=_NO_LOAD,
        )  # fmt: skip
    info, warmth = pipeline.engine.info, pipeline.warmth
    ceiling, _, own_bound = pipeline.ceiling()
    used_bytes, peak_bytes = pipeline.memory_in_use()
    return WorkerState(
        **common, backend=info.backend, device=info.device, device_id=info.device_id, simulated=info.simulated,
        # What ran out of memory since it was warm is no bucket any more: a grant above it could never be confirmed.
        buckets=[bucket for bucket in warmth.buckets if bucket <= own_bound] or [own_bound],
        model=ModelState(
            sha256=info.sha256, task=info.task, names=list(info.names), input_width=info.width, input_height=info.height,
            precision=info.precision,
        ),
        memory=MemoryState(
            limit_bytes=warmth.limit_bytes, limit_source=warmth.limit_source, fit=warmth.memory, plan=warmth.plan,
            observed_peak_bytes=peak_bytes, observed_bytes=used_bytes, held_images=pipeline.held_images,
            device_bytes=warmth.device_bytes,
        ),
        speed=pipeline.fit, ceiling=ceiling, load=pipeline.load(), health=pipeline.health(),
    )  # fmt: skip


def refresh_gauges(metrics: WorkerMetrics, pipeline: "Pipeline | None", max_batch: int) -> None:
    """Bring the gauges up to date; without a pipeline only what counts by itself is there."""
    if pipeline is None:
        return
    info, warmth, load = pipeline.engine.info, pipeline.warmth, pipeline.load()
    metrics.gauge(names.MODEL_INFO, 1, info.sha256, info.task, info.precision, info.backend, info.device)
    metrics.gauge(names.QUEUE_IMAGES, load.queue_images)
    metrics.gauge(names.QUEUE_OLDEST_AGE, load.queue_oldest_age_s)
    metrics.gauge(names.INFLIGHT_IMAGES, load.inflight_images)
    metrics.gauge(names.LOAD_RATIO, load.ratio)
    fit = pipeline.fit
    if fit is not None:
        metrics.gauge(names.ENGINE_FIXED, fit.fixed)
        metrics.gauge(names.ENGINE_PER_IMAGE, fit.per_image)
    ceiling, grant, own_bound = pipeline.ceiling()
    bounds: dict[str, int] = {"effective": ceiling.effective, "memory": own_bound, "spec": max_batch}
    if grant is not None:
        bounds |= {"operator": grant.ceiling, **{str(bound): images for bound, images in grant.bounds.items()}}
    metrics.forget(names.BATCH_CEILING)
    for bound, images in bounds.items():
        metrics.gauge(names.BATCH_CEILING, images, bound)
    memory = warmth.memory
    kinds: dict[str, float | None] = {"limit": warmth.limit_bytes, "observed_peak": pipeline.memory_in_use()[1]}
    if grant is not None:
        kinds["budget"] = grant.budget_bytes
    if memory is not None:
        kinds.update(fixed=memory.fixed, per_image=memory.per_image, predicted_peak=memory.at(ceiling.ceiling))
    metrics.forget(names.MEMORY_BYTES)
    for kind, value in kinds.items():
        if value is not None:
            metrics.gauge(names.MEMORY_BYTES, value, kind)
