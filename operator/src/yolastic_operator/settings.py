"""The operator's settings, from the environment: `YOLASTIC_OPERATOR_<FIELD>`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

PREFIX: Final = "YOLASTIC_OPERATOR_"
_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_SUBDOMAIN: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_WORD: Final = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_KEY: Final = re.compile(rf"((?=[^/]{{1,253}}/){_SUBDOMAIN}/)?{_WORD}")
"""Of a label, as the API server has it; the chart's values.schema.json says the same, as it does of the URL."""
_LABEL_VALUE: Final = re.compile(rf"({_WORD})?")
_SERVICE_LINK: Final = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT(_\d+_(TCP|UDP)(_\w+)?)?$")
"""Variables Kubernetes makes for every Service: one named yolastic-operator-… has our prefix."""
_NAMESPACE: Final = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")


class SettingsError(ValueError):
    """A variable of the environment is not what it must be; the message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting; the environment's name of a field is the prefix and the field in capitals."""

    prometheus_url: str | None = None
    """Base URL of a Prometheus that scrapes the workers; None: load ratios come from the workers themselves."""

    namespaces: tuple[str, ...] = ()
    """Namespaces whose inferences are served, separated by commas; empty: all of them, which needs a ClusterRole."""

    turn_seconds: float = 5.0
    """From one turn of an inference to the next, seconds. Load is averaged over 15 s, so much shorter turns see nothing new."""

    stale_after_seconds: float = 60.0
    """A number older than this is not acted on, seconds. Two scrape intervals of 30 s, the longest in common use."""

    propagation_delay_seconds: int = 5
    """How long clients may still send to a worker that is leaving, seconds: what a cluster takes to tell all its nodes that an
    endpoint is gone. Longer on large clusters or behind slow gateways; every scale-down and rollout waits for it."""

    control_token_days: int = 30
    """A token of the workers' control ports is replaced after so many days; 0: only when somebody asks. Nothing restarts."""

    own_namespace: str = "yolastic-system"
    """Where the operator runs; its pods may reach the workers' control ports. Default: the namespace of its service account."""

    lease_name: str | None = None
    """Lease in `own_namespace` that keeps a second operator of the same name from acting; None: nothing keeps it from that."""

    monitoring_namespace_labels: Mapping[str, str] = field(default_factory=dict)
    """Labels (`key=value`, separated by commas) of the namespaces whose pods may reach the metrics ports; empty: none."""

    instance: str = "yolastic-operator"
    """Names this process in events and as holder of the Lease, so no two may have the same; the chart gives the pod's name."""

    metrics_port: int = 9090
    """Port of the operator's own metrics; 0: none are served."""

    health_port: int = 8080
    """Port of `/healthz` for the liveness probe."""

    log_format: str = "text"
    """text for people, json for log collectors: one object a line."""

    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""


def load(environ: Mapping[str, str], namespace_file: Path = _NAMESPACE_FILE) -> Settings:
    """Settings of an environment.

    Raises:
        SettingsError: a value is not what it must be, or a variable with the prefix is no setting.
    """
    known = {PREFIX + item.name.upper(): item.name for item in fields(Settings)}
    own = {name: text.strip() for name, text in environ.items() if name.startswith(PREFIX) and not text.startswith("tcp://")}
    unknown = sorted(name for name in own if name not in known and _SERVICE_LINK.search(name) is None)
    if unknown:
        raise SettingsError(f"{unknown[0]} is no setting; known are {', '.join(sorted(known))}")
    values: dict[str, Any] = {}
    for variable, name in known.items():
        text = own.get(variable, "")
        if not text:
            continue
        try:
            values[name] = _PARSERS[name](text)
        except ValueError as error:
            raise SettingsError(f"{variable}={text}: {error}") from error
    if "own_namespace" not in values and namespace_file.is_file():
        values["own_namespace"] = namespace_file.read_text("utf-8").strip()
    return Settings(**values)


def _url(text: str) -> str:
    if re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", text) is None:
        raise ValueError("must be a URL such as http://prometheus.monitoring:9090")
    return text.rstrip("/")


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError("must be a number") from None
        if not low <= value <= high:
            raise ValueError(f"must be from {low:g} to {high:g}")
        return value

    return parse


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return text

    return parse


def _namespace(text: str) -> str:
    if _NAMESPACE.fullmatch(text) is None:
        raise ValueError(f"{text} is no name of a namespace")
    return text


def _object_name(text: str) -> str:
    if _NAMESPACE.fullmatch(text) is None:
        raise ValueError("must be the name of a Lease: lower case letters, digits and hyphens")
    return text


def _namespaces(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_namespace(part.strip()) for part in text.split(",") if part.strip()))


def _labels(text: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, sign, value = part.partition("=")
        if not sign or _LABEL_KEY.fullmatch(key) is None or _LABEL_VALUE.fullmatch(value) is None:
            raise ValueError("must be labels such as kubernetes.io/metadata.name=monitoring, separated by commas")
        labels[key] = value
    return labels


_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "prometheus_url": _url,
    "namespaces": _namespaces,
    "turn_seconds": _number(0.5, 300),
    "stale_after_seconds": _number(1, 3600),
    "propagation_delay_seconds": _whole(0, 300),
    "control_token_days": _whole(0, 3650),
    "own_namespace": _namespace,
    "lease_name": _object_name,
    "monitoring_namespace_labels": _labels,
    "instance": str,
    "metrics_port": _whole(0, 65535),
    "health_port": _whole(1, 65535),
    "log_format": _choice("text", "json"),
    "log_level": _choice("DEBUG", "INFO", "WARNING", "ERROR"),
}
