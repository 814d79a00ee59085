"""Simulated workers on one clock: images are spread over those that serve, sizes are ordered, workers start and leave."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import Literal

from yolastic_cli.simulate.worker import SimulatedWorker, Tally, WorkerRules


@dataclass(frozen=True, slots=True)
class FleetRules:
    """What workers of a fleet are, and how long they take to come and go."""

    worker: WorkerRules
    start_s: float = 40.0
    """From the order to Ready."""
    leave_s: float = 5.0
    """How long a worker that was ordered away still has its device: others may still send to it."""


@dataclass(slots=True, eq=False)
class Member:
    """One worker from its order to its end."""

    name: str
    created_s: float
    ready_s: float
    phase: Literal["Starting", "Ready", "Draining", "Terminating"] = "Starting"
    worker: SimulatedWorker | None = None
    """None until it is ready."""
    gone_s: float = inf
    """When its device is free."""


class Fleet:
    """All workers, and the images on their way to them.

    An image goes to any of the workers that serve with the same probability, as behind a Service; so with Poisson arrivals
    each worker sees Poisson arrivals.
    """

    def __init__(self, rules: FleetRules, arrivals_s: Sequence[float], picks: Sequence[float], first: int) -> None:
        """`arrivals_s`: ascending; `picks`: a number in [0, 1) each, to choose the worker by; `first`: ready from the start."""
        self._rules, self._arrivals_s, self._picks = rules, arrivals_s, picks
        self.now_s = 0.0
        self.tally = Tally()
        self.ordered = 0
        self.changes: list[tuple[float, int]] = []
        """(time, size) of every order that changed the size."""
        self.members: dict[str, Member] = {}
        self._past: list[Member] = []
        self._serving: list[Member] = []
        self._wakes: list[tuple[float, int, Member]] = []
        self._pushed = 0
        self._next = 0
        self._born = 0
        for _ in range(first):
            member = self._order(ready_after_s=0.0)
            member.created_s -= rules.start_s  # they took as long as any other
            self._become_ready(member)
        self.ordered = first

    def order(self, replicas: int, victims: Sequence[str] = ()) -> None:
        """Another size; the `victims` go first when it is smaller, then those that are not ready, then the newest."""
        if replicas != self.ordered:
            self.changes.append((self.now_s, replicas))
        self.ordered = replicas
        there = [member for member in self.members.values() if member.phase != "Terminating"]
        there.sort(key=lambda member: (member.name not in victims, member.phase == "Ready", -member.created_s))
        for member in there[: max(len(there) - replicas, 0)]:
            self._leave(member)
        for _ in range(replicas - len(there)):
            member = self._order(self._rules.start_s)
            self._push(member.ready_s, member)

    def drain(self, name: str) -> None:
        """Nothing is sent to it any more."""
        member = self.members[name]
        if member.phase == "Ready":
            member.phase = "Draining"
            self._serving.remove(member)

    def run_until(self, end_s: float) -> None:
        """Let the time pass."""
        arrivals_s, picks = self._arrivals_s, self._picks
        at, count = self._next, len(arrivals_s)
        while at < count and arrivals_s[at] <= end_s:
            now_s = arrivals_s[at]
            while self._wakes and self._wakes[0][0] <= now_s:
                self._wake()
            self.now_s = now_s
            self._arrive(now_s, picks[at])
            at += 1
        self._next = at
        while self._wakes and self._wakes[0][0] <= end_s:
            self._wake()
        self.now_s = end_s

    @property
    def serving(self) -> Sequence[Member]:
        """Those that images are sent to."""
        return self._serving

    @property
    def everyone(self) -> Sequence[Member]:
        """Every worker that ever was."""
        return (*self._past, *self.members.values())

    def busy_s(self) -> float:
        """Time all devices ran so far."""
        return sum(member.worker.busy_s for member in self.everyone if member.worker is not None)

    def device_s(self, from_s: float, to_s: float) -> float:
        """Time for which workers held devices between two times, starting and leaving included."""
        return sum(max(0.0, min(member.gone_s, to_s) - max(member.created_s, from_s)) for member in self.everyone)

    def _arrive(self, now_s: float, pick: float) -> None:
        if not self._serving:
            self.tally.turned_away(now_s)
            return
        member = self._serving[int(pick * len(self._serving))]
        worker = member.worker
        assert worker is not None
        before_s = worker.wake_s
        worker.arrive(now_s)
        if worker.wake_s != before_s:
            self._push(worker.wake_s, member)

    def _wake(self) -> None:
        at_s, _, member = heappop(self._wakes)
        self.now_s = at_s
        worker = member.worker
        if worker is None:
            if member.name in self.members:
                self._become_ready(member)
        elif worker.wake_s == at_s:
            worker.wake(at_s)
            self._push(worker.wake_s, member)
        if worker is not None and member.phase == "Terminating" and not worker.inflight and at_s >= member.gone_s:
            self._remove(member)

    def _order(self, ready_after_s: float) -> Member:
        self._born += 1
        member = Member(f"worker-{self._born}", self.now_s, self.now_s + ready_after_s)
        self.members[member.name] = member
        return member

    def _become_ready(self, member: Member) -> None:
        member.worker = SimulatedWorker(self._rules.worker, self.tally, member.ready_s)
        member.phase = "Ready"
        self._serving.append(member)

    def _leave(self, member: Member) -> None:
        if member.worker is None:
            member.gone_s = self.now_s
            self._remove(member)
            return
        self.drain(member.name)
        member.phase, member.gone_s = "Terminating", self.now_s + self._rules.leave_s
        self._push(member.gone_s, member)

    def _remove(self, member: Member) -> None:
        if self.members.pop(member.name, None) is not None:
            member.gone_s = max(member.gone_s, self.now_s)
            self._past.append(member)

    def _push(self, at_s: float, member: Member) -> None:
        if at_s < inf:
            self._pushed += 1
            heappush(self._wakes, (at_s, self._pushed, member))
