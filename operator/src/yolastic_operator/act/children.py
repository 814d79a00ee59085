"""The children of one inference: when they are applied, and what is said while that fails."""

from dataclasses import dataclass
from typing import Final

from yolastic_operator.act.complaints import Complaints
from yolastic_operator.cluster.base import NAME_TAKEN, Cluster, ClusterError, RefusedError
from yolastic_operator.model import ConditionUpdate, Fleet, Ref, Workload

MOST_TURNS: Final = 6
"""What was refused is tried again after one turn, two, four, and then so many: 500 inferences of a broken runtime would else send
thousands of requests a second, and who corrects it outside waits half a minute at the most."""

_Key = tuple[Workload, int]


@dataclass(frozen=True, slots=True)
class _Refusal:
    key: _Key
    error: ClusterError | RefusedError
    turns: int
    until_s: float


class Children:
    """Applies them when something is due; remembers what was applied last, and for which generation."""

    def __init__(self, cluster: Cluster, ref: Ref, complaints: Complaints, *, turn_s: float, every_s: float) -> None:
        self._cluster = cluster
        self._ref = ref
        self._complaints = complaints
        self._turn_s = turn_s
        self._every_s = every_s
        self._applied: _Key | None = None
        self._applied_s = 0.0
        self._refusal: _Refusal | None = None
        self.url: str | None = None

    async def ensure(
        self, work: Workload, generation: int, fleet: Fleet, first_size: int, now_s: float
    ) -> tuple[Fleet, list[ConditionUpdate]]:
        """The fleet after it, and what went wrong.

        Where this very revision serves, it serves on, also beside a child's name that somebody else has: a fault that may be over
        in a turn is a matter for the log then, and a refusal one for the conditions.

        Raises:
            RefusedError: it cannot be made, and nothing of it serves.
        """
        key = (work, generation)
        due = fleet.edited or now_s - self._applied_s >= self._every_s
        if key == self._applied and not due and fleet.revision == work.revision and fleet.replicas is not None:
            return fleet, []
        serves = fleet.revision == work.revision and any(worker.ready for worker in fleet.workers)
        try:
            return await self._apply(key, first_size, now_s), []
        except RefusedError as error:
            if not serves or error.reason != NAME_TAKEN:
                raise
            self._complaints.add("apply", error)
            return fleet, [ConditionUpdate("Ready", "False", error.reason, str(error))]
        except ClusterError as error:
            self._complaints.add("apply", error)
            return fleet, _told(error, fleet, work) if error.in_vain or not serves else []

    async def _apply(self, key: _Key, first_size: int, now_s: float) -> Fleet:
        before = self._refusal if self._refusal is not None and self._refusal.key == key else None
        if before is not None and now_s < before.until_s:
            raise before.error
        self._applied = None
        try:
            await self._cluster.ensure(key[0], first_size)
        except (ClusterError, RefusedError) as error:
            if isinstance(error, RefusedError) or error.in_vain:
                turns = 1 if before is None else min(2 * before.turns, MOST_TURNS)
                # A turn is rarely to the moment: half of one less is the turn that is meant.
                self._refusal = _Refusal(key, error, turns, now_s + (turns - 0.5) * self._turn_s)
            raise
        self.url = await self._cluster.url(self._ref)
        self._applied, self._applied_s, self._refusal = key, now_s, None
        self._complaints.clear("apply")
        return await self._cluster.fleet(self._ref)


def _told(error: ClusterError, fleet: Fleet, work: Workload) -> list[ConditionUpdate]:
    told = [ConditionUpdate("Ready", "False", "ApplyFailed", str(error))]
    if fleet.revision not in {None, work.revision}:
        # What runs is of the spec before: it says nothing of this one.
        told.append(ConditionUpdate("Progressing", "False", "ApplyFailed", str(error)))
        told.append(ConditionUpdate("ModelLoaded", "Unknown", "ApplyFailed", "the workers there are run the spec before"))
    return told
