"""A cluster in memory with workers that follow a tiny model, on a clock that a test moves: the loop in milliseconds.

A worker becomes ready `start_s` after it was made, takes an equal share of `demand_per_s`, and empties `drain_s` after it was
told to drain. Workers are made and removed as the Deployment controller does it (`replica_sets.py`). Revisions in `bad`
never start. With a shared runtime all workers are on the device GPU-0, and each waits for its first grant before it starts.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import inf
from typing import Any, Final

from yolastic_contract.names import buckets_up_to
from yolastic_contract.runtime import RuntimeSpec
from yolastic_contract.state import CeilingGrant, CeilingState, Fit, LoadState, MemoryState, ModelState, Phase, WorkerState
from yolastic_operator.cluster import replica_sets
from yolastic_operator.cluster.base import Event, WorkerError
from yolastic_operator.model import Fleet, Ref, Worker, WorkerPhase, Workload

MIB: Final = 2**20


@dataclass(slots=True)
class FakeWorker:
    """One worker; change its fields to make it what a test needs."""

    name: str
    revision: str
    created_s: float
    starts_s: float
    """When it becomes ready; infinity: never."""
    ceiling: CeilingState
    max_batch: int = 32
    """What it was started with, images; whatever the specification says since."""
    drains_s: float | None = None
    """Since when it drains."""
    ends_s: float | None = None
    """When it is gone; None: it was not told to."""
    failure_reason: str | None = None
    failure_message: str = ""
    failures: int = 0
    unschedulable: bool = False
    waits: bool = False
    """On a shared device: nothing was granted yet."""
    backlog: bool = False
    """More than a full base batch waits."""
    held_images: int = 0
    """The largest batch whose memory was not given back."""
    gives_back: bool = True
    """A smaller grant gives memory back at once."""
    marked: bool = False
    """It was named as a victim once: the deletion cost of a pod stays, also when another was taken for it."""
    hangs: bool = False
    """Its control port never answers."""
    broken: str | None = None
    """Its control port answers with this fault."""
    state_change: Callable[[WorkerState], WorkerState] | None = None
    """Changes what it says of itself."""


@dataclass
class FakeCluster:
    """Speaks `Cluster`. Verbs listed in `faults` raise what stands there."""

    clock: Callable[[], float]
    """Seconds; also the Unix time of everything in it."""
    runtimes: dict[str, RuntimeSpec] = field(default_factory=lambda: {"cpu": RuntimeSpec(image="example/worker:1")})
    start_s: float = 10.0
    drain_s: float = 2.0
    """From a drain to nothing in flight."""
    leave_s: float = 0.0
    """From a removal to nothing being left; so long it keeps its device."""
    places: int | None = None
    """How many workers find a device; the rest stay unschedulable."""
    quota: int | None = None
    """How many workers may be there at all, those that leave among them; no more are made."""
    place_s: float = 0.0
    """From a device's being free to the scheduler's giving it to one that waits; the same for the room of a quota."""
    bad: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By sha256 of a model: reason and message with which its workers end, every `start_s`."""
    demand_per_s: float = 0.0
    """Images/s for all of them together."""
    speed: Fit = field(default_factory=lambda: Fit(fixed=0.020, per_image=0.001, samples=20))
    memory: Fit = field(default_factory=lambda: Fit(fixed=600.0 * MIB, per_image=60.0 * MIB, samples=6))
    memory_limit_bytes: int | None = 4096 * MIB

    faults: dict[str, Exception] = field(default_factory=dict)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    """(verb, what it was about) of everything that changes something, in order."""
    statuses: list[dict[str, Any]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    workers: dict[str, FakeWorker] = field(default_factory=dict)
    replicas: int | None = None
    workload: Workload | None = None
    _made: int = 0
    _sizes: dict[str, int] = field(default_factory=dict)
    """Of the ReplicaSets, the oldest first."""
    _told: dict[str, Workload] = field(default_factory=dict)
    """By revision."""
    _scaled: int | None = None
    """The size that the ReplicaSets were last given."""
    _is_full: bool = False
    """The quota kept a worker from being made."""
    _freed_s: float = -inf
    """When a device was last given up."""

    async def runtime(self, name: str) -> RuntimeSpec | None:
        """The runtime of that name."""
        self._fault("runtime")
        return self.runtimes.get(name)

    async def ensure(self, workload: Workload, replicas: int) -> None:
        """Remember what to run; the first time order `replicas`."""
        self._fault("ensure")
        if self.workload is None or self.workload.revision != workload.revision:
            self.calls.append(("ensure", workload.revision))
        self.workload = workload
        if self.replicas is None:
            self.replicas = replicas
        self._settle()

    async def fleet(self, ref: Ref) -> Fleet:
        """The workers as of now."""
        self._fault("fleet")
        self._settle()
        workers = tuple(self._worker(worker) for worker in self.workers.values())
        if self.workload is None:
            return Fleet(self.replicas, workers)
        told, refusal = self.workload, f"exceeded quota: pods={self.quota}" if self._is_full else ""
        fleet = Fleet(self.replicas, workers, told.revision, told.manner, told.record, unplaced=told.unplaced)
        return replace(fleet, refusal=refusal, is_full=self._is_full)

    async def scale(self, ref: Ref, replicas: int, victims: Sequence[str]) -> None:
        """Order a size; like a ReplicaSet, what has no place goes first, then what is not ready, then `victims`."""
        self._fault("scale")
        self.calls.append(("scale", (replicas, tuple(victims))))
        self.replicas = replicas
        for name in victims:
            if name in self.workers:
                self.workers[name].marked = True
        self._settle()

    async def url(self, ref: Ref) -> str:
        """Where clients would send images."""
        self._fault("url")
        return f"http://{ref.name}.{ref.namespace}.svc/predict"

    async def state(self, ref: Ref, worker: Worker) -> WorkerState:
        """What the worker says of itself."""
        fake = await self._reach("state", worker)
        state = self._state(fake)
        return fake.state_change(state) if fake.state_change else state

    async def grant(self, ref: Ref, worker: Worker, grant: CeilingGrant) -> None:
        """Take the tiers over at once."""
        fake = await self._reach("grant", worker)
        self.calls.append(("grant", (worker.name, grant.base, grant.ceiling)))
        fake.ceiling = CeilingState(
            base=min(grant.base, fake.max_batch),
            ceiling=min(grant.ceiling, fake.max_batch),
            effective=min(grant.base, fake.max_batch),
            burst=False,
            granted=True,
            budget_bytes=grant.budget_bytes,
            reachable=grant.reachable,
            wanted=grant.wanted,
            serial=grant.serial,
        )
        if fake.waits:
            fake.waits, fake.starts_s = False, self.clock() + self.start_s
        if fake.gives_back:
            fake.held_images = min(fake.held_images, grant.ceiling)

    async def drain(self, ref: Ref, worker: Worker) -> None:
        """Begin to drain."""
        fake = await self._reach("drain", worker)
        self.calls.append(("drain", worker.name))
        fake.drains_s = self.clock() if fake.drains_s is None else fake.drains_s

    async def rebalance(self, ref: Ref, worker: Worker) -> None:
        """Nothing but a record."""
        await self._reach("rebalance", worker)
        self.calls.append(("rebalance", worker.name))

    async def write_status(self, ref: Ref, status: dict[str, Any]) -> None:
        """Keep it."""
        self._fault("write_status")
        self.statuses.append(status)

    async def post_event(self, ref: Ref, event: Event) -> None:
        """Keep it."""
        self._fault("post_event")
        self.events.append(event)

    def told(self, verb: str) -> list[Any]:
        """What a verb was called with, in order."""
        return [about for name, about in self.calls if name == verb]

    def _fault(self, verb: str) -> None:
        if verb in self.faults:
            raise self.faults[verb]

    async def _reach(self, verb: str, worker: Worker) -> FakeWorker:
        self._fault(verb)
        fake = self.workers.get(worker.name)
        if fake is None:
            raise WorkerError(f"{worker.name}: connection refused")
        if fake.hangs:
            await asyncio.Event().wait()
        if fake.broken is not None:
            raise WorkerError(f"{worker.name}: {fake.broken}")
        return fake

    def _settle(self) -> None:
        """Bring the workers to the ordered size and revision, as far as that goes now."""
        if self.workload is None or self.replicas is None:
            return
        self._end(name for name, fake in self.workers.items() if fake.ends_s is not None and self.clock() >= fake.ends_s)
        revision, surges = self.workload.revision, self.workload.manner == "Surge"
        self._told[revision] = self.workload
        order = replica_sets.Order(revision, self.replicas, int(surges), 0 if surges else 1 + self.workload.unplaced)
        # A revision that comes again is the newest once more.
        sizes = {name: size for name, size in self._sizes.items() if size and name != revision}
        sizes[revision] = self._sizes.get(revision, 0)
        if self._scaled != self.replicas:
            self._scaled, sizes = self.replicas, replica_sets.scaled(sizes, order)
        while True:
            self._fill(sizes)
            before, sizes = sizes, replica_sets.rolled(sizes, self._available(), order)
            if sizes == before:
                break
        self._sizes = sizes
        for fake in self.workers.values():
            if fake.failure_reason is not None:
                fake.failures = int((self.clock() - fake.created_s) / self.start_s)

    def _fill(self, sizes: Mapping[str, int]) -> None:
        """Each ReplicaSet removes what it has too many, and makes what is missing."""
        self._is_full = False
        for revision, size in sizes.items():
            live = [fake for fake in self.workers.values() if fake.revision == revision and fake.ends_s is None]
            live.sort(key=self._leaves_first)
            for fake in live[: max(len(live) - size, 0)]:
                fake.ends_s = self.clock() + (0.0 if fake.unschedulable else self.leave_s)
            for _ in range(size - len(live)):
                if self.quota is not None and (len(self.workers) >= self.quota or not self._tries_again()):
                    self._is_full = True
                    break
                self._make(revision)
        self._end(name for name, fake in self.workers.items() if fake.ends_s is not None and self.clock() >= fake.ends_s)
        self._place()

    def _end(self, names: Iterable[str]) -> None:
        for name in list(names):
            if not self.workers.pop(name).unschedulable:
                self._freed_s = self.clock()

    def _place(self) -> None:
        """Whoever has a device keeps it; what is free goes to those who wait longest."""
        places = len(self.workers) if self.places is None else self.places
        placed = [fake for fake in self.workers.values() if not fake.unschedulable]
        for fake in placed[places:]:
            fake.unschedulable = True
        if not self._tries_again():
            return
        waiting = (fake for fake in self.workers.values() if fake.unschedulable and fake.ends_s is None)
        for fake in list(islice(waiting, max(places - len(placed), 0))):
            fake.unschedulable = False
            if fake.starts_s < inf:
                fake.starts_s = self.clock() + self.start_s

    def _tries_again(self) -> bool:
        return self.clock() >= self._freed_s + self.place_s

    def _available(self) -> dict[str, int]:
        ready = [fake.revision for fake in self.workers.values() if self._ready(fake)]
        return {revision: ready.count(revision) for revision in ready}

    def _leaves_first(self, fake: FakeWorker) -> tuple[bool, bool, bool, float]:
        return (not fake.unschedulable, self._ready(fake), not fake.marked, -fake.created_s)

    def _make(self, revision: str) -> None:
        self._made += 1
        now_s, told = self.clock(), self._told[revision]
        max_batch = told.spec.batching.max_size
        own = CeilingState(base=max_batch, ceiling=max_batch, effective=max_batch, burst=False, granted=False)
        fake = FakeWorker(f"worker-{self._made}", revision, now_s, now_s + self.start_s, own, max_batch)
        fake.unschedulable = self.places is not None
        if told.runtime.shared:
            fake.waits, fake.starts_s = True, inf
        failure = self.bad.get(told.spec.model.sha256)
        if failure is not None:
            fake.starts_s, (fake.failure_reason, fake.failure_message) = inf, failure
        self.workers[fake.name] = fake

    def _ready(self, fake: FakeWorker) -> bool:
        started = self.clock() >= fake.starts_s and not fake.unschedulable
        return started and fake.drains_s is None and fake.ends_s is None and fake.failure_reason is None

    def _phase(self, fake: FakeWorker) -> WorkerPhase:
        if fake.ends_s is not None:
            return "Terminating"
        if fake.failure_reason is not None:
            return "Failed"
        if fake.unschedulable:
            return "Pending"
        if fake.drains_s is not None:
            return "Draining"
        return "Ready" if self._ready(fake) else "Starting"

    def _worker(self, fake: FakeWorker) -> Worker:
        worker = Worker(fake.name, fake.revision, self._phase(fake), fake.created_s, ready=self._ready(fake))
        return replace(
            worker,
            address=None if fake.unschedulable else "127.0.0.1",
            unschedulable=fake.unschedulable,
            failure_reason=fake.failure_reason,
            failure_message=fake.failure_message,
            failures=fake.failures,
        )

    def _state(self, fake: FakeWorker) -> WorkerState:
        phases: dict[WorkerPhase, Phase] = {"Ready": "Ready", "Draining": "Draining", "Failed": "Failed"}
        phase = phases.get(self._phase(fake), "Starting")
        ready = max(sum(self._ready(item) for item in self.workers.values()), 1)
        share_per_s = self.demand_per_s / ready if phase == "Ready" else 0.0
        capacity_per_s = fake.ceiling.ceiling / self.speed.at(fake.ceiling.ceiling)
        drained = fake.drains_s is not None and self.clock() - fake.drains_s >= self.drain_s
        busy = share_per_s > 0 or fake.drains_s is not None
        model = self.workload.spec.model if self.workload else None
        return WorkerState(
            worker_id=fake.name,
            version="0",
            phase=phase,
            backend="Simulated",
            device="cpu",
            device_id="GPU-0" if self.workload and self.workload.runtime.shared else f"GPU-{fake.name}",
            waits_for_memory=fake.waits,
            simulated="a worker in memory",
            started_s=fake.created_s,
            ready_after_s=self.start_s if phase == "Ready" else None,
            max_batch=fake.max_batch,
            buckets=list(buckets_up_to(fake.max_batch)) if phase == "Ready" else [],
            model=ModelState(
                sha256=model.sha256 if model else "", task="Detect", names=["circle"], input_width=64, input_height=64,
                precision="FP32",
            ) if phase == "Ready" else None,
            memory=MemoryState(
                limit_bytes=self.memory_limit_bytes,
                limit_source="Device" if self.memory_limit_bytes else None,
                fit=self.memory if phase == "Ready" else None,
                observed_peak_bytes=round(self.memory.at(fake.max_batch)) if phase == "Ready" else None,
                plan=self.memory,
                held_images=fake.held_images,
                device_bytes=self.memory_limit_bytes,
            ),
            speed=self.speed if phase == "Ready" else None,
            ceiling=fake.ceiling.model_copy(update={"backlog": fake.backlog}),
            load=LoadState(
                ratio=share_per_s / capacity_per_s,
                arrived_per_s=share_per_s,
                refused_per_s=0.0,
                capacity_per_s=capacity_per_s,
                queue_images=0,
                queue_oldest_age_s=0.0,
                inflight_images=3 if busy and not drained else 0,
                busy_ratio=min(share_per_s / capacity_per_s, 1.0),
            ),
        )  # fmt: skip
