"""One day: images arrive, the operator's own loop turns every 5 s on the simulated fleet, somebody decides its size."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt

from yolastic_cli.load import Phase
from yolastic_cli.simulate.arrivals import arrivals, seconds_of
from yolastic_cli.simulate.cluster import EPOCH_S, SimulatedCluster
from yolastic_cli.simulate.fleet import Fleet, FleetRules
from yolastic_cli.simulate.sizing import Plan, Sizing
from yolastic_contract.inference import InferenceSpec
from yolastic_operator.loop import Loop, LoopSettings
from yolastic_operator.model import Ref

_REF = Ref("simulated", "day")
_MODEL = {"uri": "https://nowhere/model.onnx", "sha256": "0" * 64}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is made of, beside who decides."""

    phases: tuple[Phase, ...]
    fleet: FleetRules
    first: int = 1
    """Workers that are ready at the start."""
    autoscaling: dict[str, Any] | None = None
    """`spec.autoscaling` for the operator's own decision."""
    fixed_batches: bool = False
    """The ceiling is the largest batch whatever the objective says: `spec.batching.policy: Fixed`."""
    seed: int = 7
    turn_s: float = 5.0


class Run:
    """Plays a day with one way of sizing."""

    def __init__(self, settings: Settings, sizing: Sizing) -> None:
        self._settings, self._sizing = settings, sizing
        generator = np.random.default_rng(settings.seed)
        times_s = arrivals(settings.phases, generator)
        self.fleet = Fleet(settings.fleet, times_s.tolist(), generator.random(len(times_s)).tolist(), settings.first)
        self.cluster = SimulatedCluster(self.fleet)
        self.seconds = seconds_of(settings.phases)
        self.checkpoints: list[tuple[float, float]] = []
        """(time, engine time of all devices so far) at the times asked for."""
        worker = settings.fleet.worker
        batching = {"maxSize": worker.max_batch, "policy": "Fixed" if settings.fixed_batches else "Computed"}
        self._base: dict[str, Any] = {"model": _MODEL, "batching": batching}
        if worker.objective_s is not None:
            self._base["objective"] = {"latencyMilliseconds": round(worker.objective_s * 1000)}

    def play(self, marks_s: Sequence[float] = ()) -> "Run":
        """Let the whole day pass; `marks_s`: when to note the engine time."""
        asyncio.run(self._play(sorted({*marks_s, self.seconds})))
        return self

    def latencies_s(self, from_s: float = 0.0, to_s: float = inf) -> npt.NDArray[np.float64]:
        """Of the images that arrived in between; infinite for those that got no answer."""
        arrived_s = np.frombuffer(self.fleet.tally.arrived_s)
        latencies_s = np.frombuffer(self.fleet.tally.latency_s)
        chosen: npt.NDArray[np.float64] = latencies_s[(arrived_s >= from_s) & (arrived_s < to_s)]
        return chosen

    def busy_s(self, from_s: float, to_s: float) -> float:
        """Engine time of all devices between two of the times that were marked."""
        noted = {0.0: 0.0, **dict(self.checkpoints)}
        return noted[to_s] - noted[from_s]

    async def _play(self, marks_s: list[float]) -> None:
        fleet, sizing = self.fleet, self._sizing
        loop = Loop(
            self.cluster,
            _REF,
            LoopSettings(turn_s=self._settings.turn_s),
            monotonic=lambda: fleet.now_s,
            wall=lambda: EPOCH_S + fleet.now_s,
        )
        spec, generation, size = self._spec(sizing.replicas(0.0, fleet)), 1, sizing.replicas(0.0, fleet)
        turn_s = 0.0
        while fleet.now_s < self.seconds:
            now_s = min(turn_s, sizing.due_s(fleet.now_s), marks_s[0])
            fleet.run_until(now_s)
            if now_s == marks_s[0]:
                self.checkpoints.append((marks_s.pop(0), fleet.busy_s()))
            wanted = sizing.replicas(now_s, fleet)
            if wanted != size:
                spec, generation, size, turn_s = self._spec(wanted), generation + 1, wanted, now_s
                if isinstance(sizing, Plan) and wanted is not None:
                    fleet.order(wanted)  # a plan needs nobody to carry it out
            if now_s >= turn_s:
                turn_s = now_s + await loop.turn(spec, generation, {})
        fleet.run_until(self.seconds)

    def _spec(self, replicas: int | None) -> InferenceSpec:
        own = {"autoscaling": self._settings.autoscaling} if replicas is None else {"replicas": replicas}
        return InferenceSpec.model_validate({**self._base, **own})
