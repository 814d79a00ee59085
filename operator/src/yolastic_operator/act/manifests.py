"""The children of an inference as plain dicts: Deployment, Service, policies, control Secret. Pure."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from yolastic_contract import names
from yolastic_operator.act.control_token import ControlTokens, timestamp
from yolastic_operator.act.pod import pod_template
from yolastic_operator.model import Workload

Manifest = dict[str, Any]

GRACE_MARGIN_S: Final = 10
"""Between the end of a drain and the kill: writing the last answers and closing the device."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the manifests need to know of the cluster and of the operator's own settings."""

    propagation_delay_s: int = 5
    """How long clients may go on sending to a worker that was told to leave, seconds."""
    operator_namespace: str = "yolastic-system"
    """Where the operator runs; its pods may reach the control ports."""
    monitoring_namespaces: Mapping[str, str] = field(default_factory=dict)
    """Labels of the namespaces whose pods may reach the metrics ports; empty: nobody may."""


def render(workload: Workload, surroundings: Surroundings) -> list[Manifest]:
    """All children but the Secret, in the order to apply them.

    Raises:
        ValueError: the model's URI is none that a worker of Kubernetes can read; the message says why.
    """
    return [
        network_policy(workload, surroundings),
        disruption_budget(workload),
        service(workload),
        deployment(workload, surroundings),
    ]


def deployment(workload: Workload, surroundings: Surroundings) -> Manifest:
    """The workers. It has no `spec.replicas`: the size goes through the scale subresource, and applying never resets it."""
    template = pod_template(
        workload,
        propagation_delay_s=surroundings.propagation_delay_s,
        grace_period_s=surroundings.propagation_delay_s + workload.spec.drain.timeout_seconds + GRACE_MARGIN_S,
    )
    child = _child("apps/v1", "Deployment", workload, workload.ref.name)
    if workload.record:
        child["metadata"]["annotations"] = {names.ROLLOUT: workload.record}
    surge = 1 if workload.manner == "Surge" else 0
    away = 0 if surge else 1 + workload.unplaced
    return child | {
        "spec": {
            # As by default, and said all the same: who pauses it by hand stops every rollout, and nothing would tell why.
            "paused": False,
            "minReadySeconds": 0,
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": dict(workload.labels)},
            # Surge: a new worker is Ready before an old one goes, so an update never lowers what is served; else one goes first,
            # beside those that serve nothing because they have no place: they would use up what may be away.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": away}},
            "template": template,
        },
    }


def service(workload: Workload) -> Manifest:
    """Where clients send images; the control port is not behind it."""
    port = {"name": names.DATA_PORT_NAME, "port": names.SERVICE_PORT, "protocol": "TCP", "targetPort": names.DATA_PORT_NAME}
    return _child("v1", "Service", workload, workload.ref.name) | {
        "spec": {"type": "ClusterIP", "selector": dict(workload.labels), "ports": [port]},
    }


def network_policy(workload: Workload, surroundings: Surroundings) -> Manifest:
    """Images from anywhere; the control port for the operator alone; the metrics port for those who scrape, if they are named.

    Probes need no rule: they come from the pod's own node, which a network policy never shuts out.
    """
    operator: Manifest = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": surroundings.operator_namespace}},
        "podSelector": {"matchLabels": {names.LABEL_NAME: names.OPERATOR_NAME}},
    }
    ingress: list[Manifest] = [
        {"ports": [{"port": names.DATA_PORT, "protocol": "TCP"}]},
        {"from": [operator], "ports": [{"port": names.CONTROL_PORT, "protocol": "TCP"}]},
    ]
    if surroundings.monitoring_namespaces:
        monitoring = {"namespaceSelector": {"matchLabels": dict(surroundings.monitoring_namespaces)}}
        ingress.append({"from": [monitoring], "ports": [{"port": names.METRICS_PORT, "protocol": "TCP"}]})
    return _child("networking.k8s.io/v1", "NetworkPolicy", workload, workload.ref.name) | {
        "spec": {
            "podSelector": {"matchLabels": dict(workload.labels)},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    }


def disruption_budget(workload: Workload) -> Manifest:
    """One worker at a time may be evicted, so a node is drained without losing more than one worker's capacity.

    `maxUnavailable` and not `minAvailable`: with one worker the latter would hold up every drain of its node for ever, and who
    drains a node would delete the pod instead. Workers that do not serve may always be evicted: nothing is lost with them.
    """
    return _child("policy/v1", "PodDisruptionBudget", workload, workload.ref.name) | {
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": dict(workload.labels)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def control_secret(workload: Workload, held: ControlTokens) -> Manifest:
    """The bearer tokens of the control ports, a line each. The only manifest that holds a secret: never log it."""
    manifest = _child("v1", "Secret", workload, names.control_secret_name(workload.ref.name))
    if held.since_s is not None:
        manifest["metadata"]["annotations"] = {names.TOKEN_SINCE: timestamp(held.since_s)}
    encoded = base64.b64encode("\n".join(held.tokens).encode()).decode()
    return manifest | {"type": "Opaque", "data": {names.CONTROL_TOKEN_KEY: encoded}}


def with_replicas(manifest: Manifest, replicas: int) -> Manifest:
    """A Deployment that says its size: for the moment it is made, so that it never starts with another."""
    return manifest | {"spec": manifest["spec"] | {"replicas": replicas}}


def only_replicas(manifest: Manifest, replicas: int) -> Manifest:
    """The part of a Deployment that is its size: applied by a second field manager, it keeps the size when the first lets go."""
    identity = {key: manifest["metadata"][key] for key in ("name", "namespace")}
    return {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": identity, "spec": {"replicas": replicas}}


def exactly(wanted: Manifest, live: Manifest) -> Manifest:
    """A merge patch after which a child's spec says what is wanted and nothing else; the size of a Deployment stays.

    The server refuses it with 409 when `live` is not how the child is any more.
    """
    kept = {"replicas": live["spec"]["replicas"]} if wanted["kind"] == "Deployment" else {}
    version = {"resourceVersion": live["metadata"]["resourceVersion"]}
    return {"metadata": version, "spec": _replacing(wanted["spec"] | kept, live["spec"])}


def _replacing(wanted: Manifest, live: Manifest) -> Manifest:
    patch: Manifest = dict.fromkeys(live)
    for name, value in wanted.items():
        before = live.get(name)
        patch[name] = _replacing(value, before) if isinstance(value, dict) and isinstance(before, dict) else value
    return patch


def _child(api_version: str, kind: str, workload: Workload, name: str) -> Manifest:
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": names.INFERENCE_KIND,
        "name": workload.ref.name,
        "uid": workload.ref.uid,
        "controller": True,
    }
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": workload.ref.namespace,
            "labels": dict(workload.labels),
            "ownerReferences": [owner],
        },
    }
