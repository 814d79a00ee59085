"""The worker's metrics, as named in the contract, for Prometheus. Counted where things happen; gauges are read at scrape time."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from yolastic_contract import metrics as names
from yolastic_worker.types import Outcome

STAGES = ("receive", "decode", "queue", "inference", "postprocess", "total")


class WorkerMetrics:
    """One registry of its own; every series carries the label `model`."""

    def __init__(self, model: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._model = model
        made = {metric.name: self._make(metric) for metric in names.WORKER_METRICS}
        self._made = made
        self.images: dict[Outcome, Counter] = {o: made[names.IMAGES.name].labels(model, o.value) for o in Outcome}
        self.stages: dict[str, Histogram] = {s: made[names.STAGE_SECONDS.name].labels(model, s) for s in STAGES}
        self.batch_size: Histogram = made[names.BATCH_SIZE.name].labels(model)
        self.busy: Counter = made[names.ENGINE_BUSY.name].labels(model)
        self.out_of_memory: Counter = made[names.OUT_OF_MEMORY.name].labels(model)
        self.batch_retries: Counter = made[names.BATCH_RETRIES.name].labels(model)
        self.quarantined: Counter = made[names.QUARANTINED.name].labels(model)
        self._codes: dict[int, Counter] = {}

    def _make(self, metric: names.Metric) -> Any:
        labels = ("model", *metric.labels)
        name = metric.name.removesuffix("_total") if metric.type == "counter" else metric.name
        if metric.type == "histogram":
            return Histogram(name, metric.help, labels, registry=self.registry, buckets=metric.buckets)
        kind = Counter if metric.type == "counter" else Gauge
        return kind(name, metric.help, labels, registry=self.registry)

    def answered(self, code: int) -> None:
        """A request was answered with this status."""
        counter = self._codes.get(code)
        if counter is None:
            counter = self._codes[code] = self._made[names.REQUESTS.name].labels(self._model, str(code))
        counter.inc()

    def gauge(self, metric: names.Metric, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._made[metric.name].labels(self._model, *labels).set(value)

    def forget(self, metric: names.Metric) -> None:
        """Drop every series of a gauge: what is not set again was, and is not."""
        self._made[metric.name].clear()

    def render(self) -> bytes:
        """Prometheus text format 0.0.4."""
        return generate_latest(self.registry)
