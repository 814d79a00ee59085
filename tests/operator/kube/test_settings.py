"""Settings from an environment."""

from dataclasses import fields
from pathlib import Path

import pytest

from yolastic_operator.settings import _PARSERS, PREFIX, Settings, SettingsError, load

NOWHERE = Path("/nonexistent/namespace")


def test_an_empty_environment_gives_the_defaults() -> None:
    assert load({"PATH": "/bin", "YOLASTIC_OPERATOR_METRICS_PORT": ""}, NOWHERE) == Settings()


def test_every_setting_can_be_set() -> None:
    assert {item.name for item in fields(Settings)} == set(_PARSERS)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("PROMETHEUS_URL", "http://prometheus.monitoring:9090/", "http://prometheus.monitoring:9090"),
        ("PROMETHEUS_URL", "https://example/prom", "https://example/prom"),
        ("NAMESPACES", "plant, lab,plant", ("plant", "lab")),
        ("TURN_SECONDS", "2.5", 2.5),
        ("STALE_AFTER_SECONDS", "90", 90.0),
        ("PROPAGATION_DELAY_SECONDS", "15", 15),
        ("OWN_NAMESPACE", "operators", "operators"),
        ("MONITORING_NAMESPACE_LABELS", "team=ops,kubernetes.io/metadata.name=monitoring", None),
        ("INSTANCE", "pod-1", "pod-1"),
        ("METRICS_PORT", "0", 0),
        ("HEALTH_PORT", "8081", 8081),
        ("LOG_FORMAT", "json", "json"),
        ("LOG_LEVEL", "DEBUG", "DEBUG"),
    ],
)
def test_good_values(name: str, text: str, value: object) -> None:
    settings = load({PREFIX + name: text}, NOWHERE)
    expected = {"team": "ops", "kubernetes.io/metadata.name": "monitoring"} if value is None else value
    assert getattr(settings, name.lower()) == expected


@pytest.mark.parametrize("key", ["team", "Team_1", "a" * 63, "kubernetes.io/metadata.name", f"{'a' * 253}/{'b' * 63}"])
@pytest.mark.parametrize("value", ["", "1", "a_B-1.c", "a" * 63])
def test_labels_are_what_kubernetes_takes(key: str, value: str) -> None:
    text = f"{key}={value}"
    assert load({f"{PREFIX}MONITORING_NAMESPACE_LABELS": text}, NOWHERE).monitoring_namespace_labels == {key: value}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PROMETHEUS_URL", "prometheus:9090"),
        ("PROMETHEUS_URL", "http://host?x=1"),
        ("PROMETHEUS_URL", "http://host/path?x=1"),
        ("PROMETHEUS_URL", "http://host#x"),
        ("NAMESPACES", "Plant"),
        ("NAMESPACES", "plant;lab"),
        ("TURN_SECONDS", "soon"),
        ("TURN_SECONDS", "0"),
        ("TURN_SECONDS", "nan"),
        ("STALE_AFTER_SECONDS", "-1"),
        ("PROPAGATION_DELAY_SECONDS", "2.5"),
        ("MONITORING_NAMESPACE_LABELS", "monitoring"),
        ("MONITORING_NAMESPACE_LABELS", "a=b c"),
        ("MONITORING_NAMESPACE_LABELS", "=b"),
        ("MONITORING_NAMESPACE_LABELS", "a b=c"),
        ("MONITORING_NAMESPACE_LABELS", "a/b/c=d"),
        ("MONITORING_NAMESPACE_LABELS", "Example.com/a=b"),
        ("MONITORING_NAMESPACE_LABELS", f"{'a' * 254}/b=c"),
        ("MONITORING_NAMESPACE_LABELS", f"{'a' * 64}=b"),
        ("MONITORING_NAMESPACE_LABELS", "team=a/b"),
        ("MONITORING_NAMESPACE_LABELS", "team=-a"),
        ("MONITORING_NAMESPACE_LABELS", "team=a="),
        ("MONITORING_NAMESPACE_LABELS", f"team={'a' * 64}"),
        ("METRICS_PORT", "65536"),
        ("HEALTH_PORT", "0"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "debug"),
        ("TURN_SECOND", "5"),
    ],
)
def test_bad_values_name_the_variable(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=PREFIX + name):
        load({PREFIX + name: text}, NOWHERE)


def test_variables_kubernetes_makes_for_a_service_are_not_ours() -> None:
    links = {
        "YOLASTIC_OPERATOR_METRICS_PORT": "tcp://10.96.0.7:8080",
        "YOLASTIC_OPERATOR_METRICS_PORT_8080_TCP_ADDR": "10.96.0.7",
        "YOLASTIC_OPERATOR_METRICS_SERVICE_HOST": "10.96.0.7",
        "YOLASTIC_OPERATOR_METRICS_SERVICE_PORT_METRICS": "8080",
    }
    assert load(links, NOWHERE) == Settings()


def test_the_namespace_is_that_of_the_service_account(tmp_path: Path) -> None:
    file = tmp_path / "namespace"
    file.write_text("operators\n")
    assert load({}, file).own_namespace == "operators"
    assert load({PREFIX + "OWN_NAMESPACE": "other"}, file).own_namespace == "other"
