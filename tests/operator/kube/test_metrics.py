"""The operator's metrics have the contract's names and labels, and go with their object."""

import math

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from yolastic_contract.metrics import OPERATOR_METRICS
from yolastic_operator.metrics import Metrics
from yolastic_operator.model import Ref

REF = Ref("plant", "weld", "uid")


def filled() -> tuple[Metrics, CollectorRegistry]:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.request("apply", "200")
    metrics.leader("another", mine=False)
    metrics.leader("yolastic-operator-1", mine=True)
    metrics.turn(REF, 0.02)
    metrics.sizes(REF, desired=3, ready=2)
    metrics.recommended(REF, 4)
    metrics.ceiling(REF, {"effective": 8, "spec": 32, "latency": 16, "lease": 8})
    metrics.decision(REF, "LoadAboveTarget")
    metrics.observation_age(REF, "Workers", 0.5)
    return metrics, registry


def test_names_types_and_labels_are_the_contracts() -> None:
    _, registry = filled()
    families = {family.name: family for family in text_string_to_metric_families(generate_latest(registry).decode())}
    for metric in OPERATOR_METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert family.type == metric.type
        labels = set(family.samples[0].labels) - {"le"}
        assert labels == set(metric.labels)


def test_a_bound_that_binds_no_more_has_no_series() -> None:
    metrics, registry = filled()
    labels = {"namespace": "plant", "inference": "weld"}
    assert registry.get_sample_value("yolastic_operator_batch_ceiling", labels | {"bound": "lease"}) == 8
    metrics.ceiling(REF, {"effective": 32, "spec": 32})
    assert registry.get_sample_value("yolastic_operator_batch_ceiling", labels | {"bound": "effective"}) == 32
    assert registry.get_sample_value("yolastic_operator_batch_ceiling", labels | {"bound": "latency"}) is None


def test_an_age_of_nothing_has_no_series() -> None:
    metrics, registry = filled()
    labels = {"namespace": "plant", "inference": "weld", "source": "Workers"}
    metrics.observation_age(REF, "Workers", math.inf)
    assert registry.get_sample_value("yolastic_operator_observation_age_seconds", labels) == math.inf
    metrics.observation_age(REF, "Workers", None)
    metrics.observation_age(REF, "Prometheus", None)
    assert registry.get_sample_value("yolastic_operator_observation_age_seconds", labels) is None


def test_an_object_that_is_gone_leaves_no_series() -> None:
    metrics, registry = filled()
    metrics.forget(REF)
    assert b'inference="weld"' not in generate_latest(registry)
    assert registry.get_sample_value("yolastic_operator_api_requests_total", {"verb": "apply", "code": "200"}) == 1
