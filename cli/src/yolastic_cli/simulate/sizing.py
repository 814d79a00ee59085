"""Who decides how many workers there are: a plan, a Horizontal Pod Autoscaler, or Yolastic's own operator."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, inf
from typing import Final, Literal, Protocol

from yolastic_cli.load import Phase
from yolastic_cli.simulate.fleet import Fleet
from yolastic_contract.behavior import Behavior
from yolastic_operator.policy import behavior as rules
from yolastic_operator.policy.behavior import SYNC_PERIOD_S, History
from yolastic_operator.policy.hpa import PodMetrics, replicas_for

MILLI: Final = 1000


class Sizing(Protocol):
    """Asked at `due_s`, and after every turn of the loop it is asked when it wants to be asked next."""

    name: str

    def due_s(self, now_s: float) -> float:
        """The next time after `now_s` at which it wants to decide; infinite: never."""
        ...

    def replicas(self, now_s: float, fleet: Fleet) -> int | None:
        """Its size as of now; None: the operator's own decision counts."""
        ...


class OwnDecision:
    """The operator decides: load ratio, forecast and all."""

    def __init__(self, name: str = "Yolastic") -> None:
        self.name = name

    def due_s(self, now_s: float) -> float:
        """Never: the loop's own turns suffice."""
        return inf

    def replicas(self, now_s: float, fleet: Fleet) -> int | None:
        """Whatever it says."""
        return None


@dataclass(slots=True)
class Plan:
    """Sizes that are known beforehand: (from second, workers), ascending."""

    name: str
    sizes: Sequence[tuple[float, int]]

    def due_s(self, now_s: float) -> float:
        """The next change."""
        return next((at_s for at_s, _ in self.sizes if at_s > now_s), inf)

    def replicas(self, now_s: float, fleet: Fleet) -> int | None:
        """What the plan says for now."""
        return max(((at_s, size) for at_s, size in self.sizes if at_s <= now_s), default=self.sizes[0])[1]


class Oracle:
    """Knows the rate of every phase the moment it begins, and nothing of the next one.

    It orders at once what the rate asks for when a worker ordered now is ready, within the same behavior as the others. What it
    misses is the price of starting a worker, and of keeping no reserve: nobody who only sees the load can do much better.
    """

    def __init__(self, phases: Sequence[Phase], per_worker_per_s: float, start_s: float, *, minimum: int, maximum: int) -> None:
        """`per_worker_per_s`: images/s a worker should carry; `start_s`: from an order to Ready."""
        self.name = "order at the very instant"
        self._phases, self._per_worker_per_s, self._start_s = phases, per_worker_per_s, start_s
        self._minimum, self._maximum = minimum, maximum
        self._starts_s = tuple(accumulate((phase.seconds for phase in phases), initial=0.0))
        self._history = History()
        self._decided_s = -inf
        self._desired: int | None = None

    def due_s(self, now_s: float) -> float:
        """Every second, and whenever a phase begins."""
        return next((at_s for at_s in self._starts_s if now_s < at_s < now_s + 1.0), now_s + 1.0)

    def replicas(self, now_s: float, fleet: Fleet) -> int | None:
        """The size after windows, rates and bounds."""
        current = fleet.ordered if self._desired is None else self._desired
        if now_s <= self._decided_s:
            return current
        self._decided_s = now_s
        wanted = max(ceil(self._rate_per_s(now_s) / self._per_worker_per_s), 1)
        self._history = rules.first_seen(self._history, current, now_s)
        clamped = rules.clamp(
            wanted, current=current, minimum=self._minimum, maximum=self._maximum, behavior=None, history=self._history,
            now_s=now_s,
        )  # fmt: skip
        self._history = rules.remember_recommendation(self._history, wanted, None, now_s)
        self._history = rules.remember_scale(self._history, clamped.replicas - current, None, now_s)
        self._desired = clamped.replicas
        return self._desired

    def _rate_per_s(self, now_s: float) -> float:
        """The highest of this phase from now until a worker ordered now is ready."""
        for phase, start_s in zip(self._phases, self._starts_s, strict=False):
            if start_s <= now_s < start_s + phase.seconds:
                slope = (phase.to_per_s - phase.from_per_s) / phase.seconds
                now_per_s = phase.from_per_s + slope * (now_s - start_s)
                return max(now_per_s, now_per_s + slope * min(self._start_s, start_s + phase.seconds - now_s))
        return self._phases[-1].to_per_s


Metric = Literal["busy", "queue", "total queue"]


class Hpa:
    """Kubernetes' autoscaler, every 15 s, with the numbers as fresh as they can be.

    `busy`: mean busy share of the workers. `queue`: mean of the images that wait in a worker. `total queue`: all images that
    wait over the target, as KEDA has it calculated (an External metric of type AverageValue).
    """

    def __init__(self, metric: Metric, target: float, *, minimum: int, maximum: int, behavior: Behavior | None) -> None:
        words = {
            "busy": f"HPA, busy share {target:.0%}",
            "queue": f"HPA, queue {target:g}",
            "total queue": f"KEDA, queue {target:g}",
        }
        self.name = words[metric]
        self._metric, self._target = metric, round(target * MILLI)
        self._minimum, self._maximum, self._behavior = minimum, maximum, behavior
        self._history = History()
        self._next_s = SYNC_PERIOD_S
        self._desired: int | None = None

    def due_s(self, now_s: float) -> float:
        """Every sync period."""
        return self._next_s

    def replicas(self, now_s: float, fleet: Fleet) -> int | None:
        """The size after metric, windows, rates and bounds."""
        current = fleet.ordered if self._desired is None else self._desired
        if self._desired is not None and now_s < self._next_s:
            return current
        while self._next_s <= now_s:
            self._next_s += SYNC_PERIOD_S
        self._history = rules.first_seen(self._history, current, now_s)
        recommended = self._recommended(current, now_s, fleet)
        if recommended is None:
            self._desired = current
            return current
        clamped = rules.clamp(
            recommended, current=current, minimum=self._minimum, maximum=self._maximum, behavior=self._behavior,
            history=self._history, now_s=now_s,
        )  # fmt: skip
        self._history = rules.remember_recommendation(self._history, recommended, self._behavior, now_s)
        self._history = rules.remember_scale(self._history, clamped.replicas - current, self._behavior, now_s)
        self._desired = clamped.replicas
        return self._desired

    def _recommended(self, current: int, now_s: float, fleet: Fleet) -> int | None:
        loads = [member.worker.load(now_s) for member in fleet.serving if member.worker is not None]
        tolerances = rules.tolerances(self._behavior)
        if self._metric == "total queue":
            total = sum(load.queue_images for load in loads) * MILLI
            if current and tolerances.covers(total / (self._target * current)):
                return current
            return ceil(total / self._target)
        values = tuple(round(MILLI * (load.busy_ratio if self._metric == "busy" else load.queue_images)) for load in loads)
        starting = sum(member.phase == "Starting" for member in fleet.members.values())
        found = replicas_for(current, self._target, tolerances, PodMetrics(values, unready=starting))
        return None if found is None else found.replicas
