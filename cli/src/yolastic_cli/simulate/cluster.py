"""A simulated fleet as the operator's loop sees it: the `Cluster` verbs, answered from the fleet's own clock."""

from collections.abc import Sequence
from typing import Any, Final

from yolastic_cli.simulate.fleet import Fleet, Member
from yolastic_contract.runtime import RuntimeSpec
from yolastic_contract.state import CeilingGrant, MemoryState, ModelState, WorkerState
from yolastic_operator.cluster.base import Event, WorkerError
from yolastic_operator.model import Fleet as Seen
from yolastic_operator.model import Ref, Worker, Workload

EPOCH_S: Final = 1_700_000_000.0
"""Unix time of second 0 of a simulation."""
RUNTIME: Final = RuntimeSpec(image="none", backend="Simulated", simulate="device=simulated")
_MODEL: Final = ModelState(sha256="0" * 64, task="Detect", names=["object"], input_width=640, input_height=640, precision="FP16")


class SimulatedCluster:
    """Speaks `Cluster` for one inference whose workers are simulated."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._revision: str | None = None
        self.events: list[tuple[float, Event]] = []

    async def runtime(self, name: str) -> RuntimeSpec | None:
        """The one there is."""
        return RUNTIME

    async def ensure(self, workload: Workload, replicas: int) -> None:
        """The workers are of this revision, whichever it is: nothing here rolls out."""
        self._revision = workload.revision

    async def fleet(self, ref: Ref) -> Seen:
        """The workers as of now."""
        workers = tuple(self._worker(member) for member in self._fleet.members.values())
        return Seen(self._fleet.ordered, workers, self._revision)

    async def scale(self, ref: Ref, replicas: int, victims: Sequence[str]) -> None:
        """Order a size."""
        self._fleet.order(replicas, victims)

    async def url(self, ref: Ref) -> str:
        """Nobody calls it."""
        return f"http://{ref.name}.{ref.namespace}.svc/predict"

    async def state(self, ref: Ref, worker: Worker) -> WorkerState:
        """What the worker says of itself."""
        member = self._fleet.members[worker.name]
        told = member.worker
        if told is None:
            raise WorkerError("the control port does not answer yet")
        ready_after_s = member.ready_s - member.created_s
        return WorkerState(
            worker_id=member.name, version="simulated", phase="Ready" if member.phase == "Ready" else "Draining",
            backend="Simulated", device="simulated", device_id=member.name, simulated="a simulation without HTTP",
            started_s=EPOCH_S + member.created_s, ready_after_s=ready_after_s, max_batch=max(told.buckets),
            buckets=list(told.buckets), model=_MODEL, memory=MemoryState(), speed=told.fit, ceiling=told.tiers(self._fleet.now_s),
            load=told.load(self._fleet.now_s),
        )  # fmt: skip

    async def grant(self, ref: Ref, worker: Worker, grant: CeilingGrant) -> None:
        """The tiers hold from the next batch on."""
        told = self._fleet.members[worker.name].worker
        if told is None:
            raise WorkerError("the control port does not answer yet")
        told.grant(grant)

    async def drain(self, ref: Ref, worker: Worker) -> None:
        """It takes no more."""
        self._fleet.drain(worker.name)

    async def rebalance(self, ref: Ref, worker: Worker) -> None:
        """Images are spread evenly as it is."""

    async def write_status(self, ref: Ref, status: dict[str, Any]) -> None:
        """Nobody reads it."""

    async def post_event(self, ref: Ref, event: Event) -> None:
        """Keep it, with the time."""
        self.events.append((self._fleet.now_s, event))

    def _worker(self, member: Member) -> Worker:
        return Worker(
            name=member.name, revision=self._revision or "", phase=member.phase, created_s=EPOCH_S + member.created_s,
            address="127.0.0.1", ready=member.phase == "Ready",
        )  # fmt: skip
