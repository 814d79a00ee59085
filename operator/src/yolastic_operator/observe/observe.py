"""Gathers what one turn knows: fleet, states of all workers, load ratios; every number Fresh, Stale or Missing."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from yolastic_contract.state import WorkerState
from yolastic_operator.cluster.base import Cluster, ClusterError, WorkerError
from yolastic_operator.model import Fleet, Fresh, Missing, Observation, Reading, Ref, Source, Stale, Worker, WorkerView
from yolastic_operator.observe.plausible import implausible
from yolastic_operator.observe.prometheus import Advance, LoadRatios, Prometheus


@dataclass(frozen=True, slots=True)
class _Seen:
    """The last good state. As JSON it takes a tenth of the memory, and it is read again only when its worker does not answer."""

    json: bytes
    at_s: float


class Observer:
    """Observes one inference turn after turn; remembers the last good state of each worker to call it Stale, not Missing."""

    def __init__(
        self,
        cluster: Cluster,
        ref: Ref,
        *,
        monotonic: Callable[[], float],
        timeout_s: float,
        stale_after_s: float,
        prometheus: Prometheus | None,
        ask_every_s: float = 0.0,
    ) -> None:
        """`ask_every_s`: Prometheus is asked at most this often, for its figures do not change with every quick turn, seconds."""
        self._cluster = cluster
        self._ref = ref
        self._monotonic = monotonic
        self._timeout_s = timeout_s
        self._stale_after_s = stale_after_s
        self._prometheus = prometheus
        self._ask_every_s = ask_every_s
        self._advance = Advance(stale_after_s)
        self._seen: dict[str, _Seen] = {}
        self._ratios: LoadRatios | None = None
        self._ratios_s = 0.0
        """When they were asked for."""

    async def observe(self, fleet: Fleet) -> Observation:
        """Ask every worker and Prometheus at once; one that hangs takes its own time-out and nobody else's."""
        readings, ratios = await asyncio.gather(
            asyncio.gather(*(self._state(worker) for worker in fleet.workers)), self._load_ratios()
        )
        names = {worker.name for worker in fleet.workers}
        self._seen = {name: seen for name, seen in self._seen.items() if name in names}
        views = tuple(
            view_of(worker, state, ratios.pods.get(worker.name) if ratios else None)
            for worker, state in zip(fleet.workers, readings, strict=True)
        )
        return Observation(fleet, views, ratios.newest_of(names) if ratios else None)

    async def _load_ratios(self) -> LoadRatios | None:
        if self._prometheus is None:
            return None
        now_s = self._monotonic()
        if self._ratios is not None and now_s - self._ratios_s < self._ask_every_s:
            return self._ratios.later(now_s - self._ratios_s, self._stale_after_s)
        self._ratios, self._ratios_s = self._advance.aged(await self._prometheus.load_ratios(self._ref), now_s), now_s
        return self._ratios

    async def _state(self, worker: Worker) -> Reading[WorkerState]:
        if worker.address is None or worker.phase not in {"Starting", "Ready", "Draining"}:
            return Missing(f"the worker is {worker.phase}")
        try:
            async with asyncio.timeout(self._timeout_s):
                state = await self._cluster.state(self._ref, worker)
            why = implausible(state)
        except TimeoutError:
            why = f"no answer within {self._timeout_s:g} s"
        except (WorkerError, ClusterError) as error:
            why = str(error)
        if why is None:
            self._seen[worker.name] = _Seen(state.model_dump_json().encode(), self._monotonic())
            return Fresh(state)
        seen = self._seen.get(worker.name)
        age_s = self._monotonic() - seen.at_s if seen else 0.0
        return Stale(WorkerState.model_validate_json(seen.json), age_s) if seen and age_s <= self._stale_after_s else Missing(why)


def view_of(worker: Worker, state: Reading[WorkerState], scraped: Reading[float] | None) -> WorkerView:
    """A worker with its readings. Prometheus first; the worker's own word where Prometheus has nothing fresh."""
    own = _own_ratio(state)
    ratio, source = own, _WORKERS
    if isinstance(scraped, Fresh) or (scraped is not None and isinstance(own, Missing)):
        ratio, source = scraped, _PROMETHEUS
    if not isinstance(state, Missing) and state.value.phase == "Ready" and state.value.load.capacity_per_s <= 0:
        # It says 0 then, here and to Prometheus, whatever comes to it.
        ratio = Missing("it does not know its speed yet")
    if worker.phase != "Ready":
        # A worker that is starting or draining has a load of 0 that means nothing.
        ratio = Missing(f"the worker is {worker.phase}")
    return WorkerView(worker, state, ratio, source)


def _own_ratio(state: Reading[WorkerState]) -> Reading[float]:
    match state:
        case Fresh(value=value, age_s=age_s) if value.phase == "Ready":
            return Fresh(value.load.ratio, age_s)
        case Fresh(value=value):
            return Missing(f"the worker is {value.phase}")
        case Stale(value=value, age_s=age_s):
            return Stale(value.load.ratio, age_s)
        case Missing(reason=reason):
            return Missing(reason)


_WORKERS: Source = "Workers"
_PROMETHEUS: Source = "Prometheus"
