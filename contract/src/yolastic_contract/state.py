"""What a worker says of itself on `GET /state`, and what the operator tells it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from yolastic_contract.base import Message

Phase = Literal["Starting", "Ready", "Draining", "Failed"]
Bound = Literal["spec", "memory", "latency", "efficiency"]


class Fit(Message):
    """A line `fixed + per_image * batch`, fitted to measurements."""

    fixed: float
    """Seconds or bytes that do not depend on the batch."""
    per_image: float
    """Seconds or bytes for each image."""
    residual: float = 0.0
    """Largest distance of a measurement from the line, in the same unit."""
    samples: int = 0
    """Measurements behind it."""

    def at(self, images: float) -> float:
        """The line's value for a batch of `images`."""
        return self.fixed + self.per_image * images


class ModelState(Message):
    """The model that is loaded."""

    sha256: str
    task: str
    names: list[str]
    input_width: int
    input_height: int
    precision: str


class MemoryState(Message):
    """Memory of the device as the worker measured it, bytes."""

    limit_bytes: int | None = None
    """What the worker may use at most: --memory-limit, else the device's memory."""
    limit_source: Literal["Declared", "Device"] | None = None
    plan: Fit | None = None
    """Bytes at the peak of a batch, from the model's file alone; what is known until it was measured. `samples` is 0."""
    fit: Fit | None = None
    """Bytes at the peak of a batch, measured; None until warm-up is over."""
    observed_peak_bytes: int | None = None
    """The most that was ever in use."""
    observed_bytes: int | None = None
    """In use at the last look: the most since the look before, seconds ago; right after memory was given back, what is left."""
    held_images: int | None = None
    """The largest batch since memory was last given back to the device, the one that runs included: so much may still be held."""
    device_bytes: int | None = None
    """Memory of the physical device, whatever this worker may use of it; None when the device does not tell."""


class CeilingGrant(Message):
    """`PUT /ceiling`: the tiers the operator grants, images."""

    base: Annotated[int, Field(ge=1, le=256)]
    ceiling: Annotated[int, Field(ge=1, le=256)]
    bounds: dict[Bound, int] = {}
    """Why, for the worker's metrics: the bounds the ceiling is the smallest of."""

    budget_bytes: Annotated[int, Field(ge=0)] | None = None
    """Memory limit less headroom; on a shared device what this worker may take of it. A smaller one than before gives memory back
    to the device before the next batch."""
    reachable: Annotated[int, Field(ge=1, le=256)] | None = None
    """On a shared device: the ceiling that would be lent if it were needed now, images. The load ratio is measured against it."""
    wanted: Annotated[int, Field(ge=1, le=256)] | None = None
    """On a shared device: the ceiling that the other bounds allow, images. The worker keeps it for an operator that restarts."""
    serial: Annotated[int, Field(ge=0)] | None = None
    """Grows from grant to grant: one that arrives after a later one is not taken."""

    @model_validator(mode="after")
    def _ordered(self) -> "CeilingGrant":
        if self.base > self.ceiling:
            raise ValueError("base must not exceed ceiling")
        return self


class CeilingState(Message):
    """The tiers a worker works with, images."""

    base: int
    ceiling: int
    effective: int
    """The limit of the next batch: base, or ceiling while in the burst tier."""
    burst: bool
    granted: bool
    """An operator has granted these; else they are the worker's own start values."""
    budget_bytes: int | None = None
    """The memory budget that came with the grant."""
    reachable: int | None = None
    """As it came with the grant."""
    wanted: int | None = None
    """As it came with the grant."""
    serial: int | None = None
    """Of the grant."""
    backlog: bool = False
    """More than a full base batch waited, and it has not been calm for 30 s since: the burst tier is wanted, granted or not."""
    calm_s: float = 0.0
    """For how long the backlog has stayed small, seconds; 0 while it is not."""


class LoadState(Message):
    """Demand and what becomes of it."""

    ratio: float
    """(arrived + refused images/s over 15 s + queue/15 s) over the capacity at the ceiling; may exceed 1."""
    arrived_per_s: float
    """Accepted images/s over 15 s."""
    refused_per_s: float
    """Images/s turned away over 15 s."""
    capacity_per_s: float
    """Images/s at the ceiling: b/(a + c*b)."""
    queue_images: int
    queue_oldest_age_s: float
    inflight_images: int
    """Accepted and not yet answered, the queued ones included."""
    busy_ratio: float
    """Share of the last 15 s in which the engine ran; shown, not acted on."""
    demand_images: int | None = None
    """Images since the start, accepted or refused: how many more at the next look is demand without a window's delay."""


class HealthState(Message):
    """What went wrong lately, and since when all is known to be well."""

    out_of_memory_cap: int | None = None
    """Largest batch since memory ran out, images; it is in `buckets` and the ceiling too. None: memory suffices."""
    next_trial_s: float | None = None
    """Seconds until the next larger batch is tried, at the first quiet moment after, or half a minute later."""
    quarantined_images: int = 0
    """Images that alone made a batch fail and are refused for a while."""
    canary_age_s: float | None = None
    """Seconds since the engine last answered a known image rightly; None: it has none to be asked."""


class WorkerState(Message):
    """`GET /state`."""

    worker_id: str
    """Differs for every start of a worker."""
    version: str
    phase: Phase
    phase_message: str = ""
    waits_for_memory: bool = False
    """Starting on a shared device: it takes none of its memory before the first grant, which says how much it may take."""
    backend: str
    device: str
    device_id: str
    """UUID of the physical device."""
    simulated: str | None = None
    """What is simulated, in words; None on a real device."""
    started_s: float
    """Unix time of the start, seconds."""
    ready_after_s: float | None = None
    """Seconds from start to Ready."""
    max_batch: int
    """The worker's own upper limit (--max-batch), images."""
    buckets: list[int]
    """Batch sizes that are warm."""
    model: ModelState | None = None
    memory: MemoryState
    speed: Fit | None = None
    """Seconds a batch takes; learned online."""
    ceiling: CeilingState
    load: LoadState
    health: HealthState = HealthState()


class DrainState(Message):
    """Answer of `POST /drain`."""

    phase: Phase
    inflight_images: int
