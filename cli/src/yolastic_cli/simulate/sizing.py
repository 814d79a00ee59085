"""Who decides how many workers there are: a plan, a Horizontal Pod Autoscaler, or Yolastic's own operator."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Final, Literal, Protocol

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
