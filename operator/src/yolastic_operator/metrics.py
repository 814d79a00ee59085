"""The operator's own metrics; their names and labels are the contract's."""

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from yolastic_contract import metrics as contract
from yolastic_contract.metrics import Metric
from yolastic_operator.model import Ref, Source

_BOUNDS: Final = ("effective", "spec", "memory", "latency", "efficiency", "lease")


class Metrics:
    """Counts API requests and receives what the loops report (`telemetry.Telemetry`)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._desired = _gauge(contract.DESIRED_REPLICAS, registry)
        self._recommended = _gauge(contract.RECOMMENDED_REPLICAS, registry)
        self._ready = _gauge(contract.READY_REPLICAS, registry)
        self._ceiling = _gauge(contract.OPERATOR_BATCH_CEILING, registry)
        self._decisions = _counter(contract.DECISIONS, registry)
        self._ages = _gauge(contract.OBSERVATION_AGE, registry)
        turns = contract.TURN_SECONDS
        self._turns = Histogram(turns.name, turns.help, turns.labels, buckets=turns.buckets, registry=registry)
        self._leader = _gauge(contract.LEADER, registry)
        self._requests = _counter(contract.API_REQUESTS, registry)

    def request(self, verb: str, code: str) -> None:
        """A request to the Kubernetes API was answered; `code` is the HTTP status, `none` without an answer."""
        self._requests.labels(verb, code).inc()

    def leader(self, holder: str, mine: bool) -> None:
        """Who holds the Lease, empty when nobody knows, and whether that is this process."""
        self._leader.clear()
        self._leader.labels(holder).set(mine)

    def turn(self, ref: Ref, seconds: float) -> None:
        """Length of a turn."""
        self._turns.labels(*_object(ref)).observe(seconds)

    def sizes(self, ref: Ref, desired: int, ready: int) -> None:
        """Workers wanted and ready."""
        self._desired.labels(*_object(ref)).set(desired)
        self._ready.labels(*_object(ref)).set(ready)

    def recommended(self, ref: Ref, replicas: int) -> None:
        """Workers the decision comes to, whether or not the mode lets it be carried out."""
        self._recommended.labels(*_object(ref)).set(replicas)

    def ceiling(self, ref: Ref, bounds: Mapping[str, int]) -> None:
        """Granted ceiling and its bounds, images; a bound that does not bind any more has no series."""
        for bound in _BOUNDS:
            if bound in bounds:
                self._ceiling.labels(*_object(ref), bound).set(bounds[bound])
            else:
                self._ceiling.remove_by_labels({"namespace": ref.namespace, "inference": ref.name, "bound": bound})

    def decision(self, ref: Ref, reason: str) -> None:
        """A change of size or ceiling was made."""
        self._decisions.labels(*_object(ref), reason).inc()

    def observation_age(self, ref: Ref, source: Source, age_s: float | None) -> None:
        """Age of the newest sample there is; without anybody who could tell there is no series."""
        if age_s is None:
            self._ages.remove_by_labels({"namespace": ref.namespace, "inference": ref.name, "source": source})
        else:
            self._ages.labels(*_object(ref), source).set(age_s)

    def forget(self, ref: Ref) -> None:
        """The inference is gone, and with it its series."""
        labels = {"namespace": ref.namespace, "inference": ref.name}
        for metric in (self._desired, self._recommended, self._ready, self._ceiling, self._decisions, self._ages, self._turns):
            metric.remove_by_labels(labels)


def _object(ref: Ref) -> tuple[str, str]:
    return ref.namespace, ref.name


def _gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    return Gauge(metric.name, metric.help, metric.labels, registry=registry)


def _counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    return Counter(metric.name.removesuffix("_total"), metric.help, metric.labels, registry=registry)
