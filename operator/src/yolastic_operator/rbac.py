"""What the operator may do in a cluster: exactly what its code asks for. The chart's roles are generated from this list."""

from dataclasses import dataclass
from typing import Final, Literal

from yolastic_contract import names

Verb = Literal["get", "list", "watch", "create", "patch"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One permission; `scope` Cluster: it is about objects outside of namespaces, so no Role of a namespace can give it."""

    scope: Literal["Cluster", "Namespace"]
    group: str
    resource: str
    verbs: tuple[Verb, ...]
    why: str


RULES: Final = (
    Rule("Cluster", names.GROUP, names.RUNTIME_PLURAL, ("get", "list", "watch"), "how workers run"),
    Rule(
        "Namespace",
        names.GROUP,
        names.INFERENCE_PLURAL,
        ("get", "list", "watch", "patch"),
        "what to serve; its finalizer and annotations are patched",
    ),
    Rule("Namespace", names.GROUP, f"{names.INFERENCE_PLURAL}/status", ("patch",), "the status is applied"),
    Rule("Namespace", "apps", "deployments", ("get", "list", "watch", "create", "patch"), "the workers"),
    Rule("Namespace", "apps", "deployments/scale", ("patch",), "how many workers"),
    Rule("Namespace", "", "pods", ("list", "watch", "patch"), "which workers there are; which go first"),
    Rule("Namespace", "", "services", ("get", "create", "patch"), "where clients send images"),
    Rule("Namespace", "", "secrets", ("get", "create", "patch"), "the token of the control ports"),
    Rule("Namespace", "networking.k8s.io", "networkpolicies", ("get", "create", "patch"), "who may reach the control ports"),
    Rule("Namespace", "events.k8s.io", "events", ("create",), "what was decided"),
)
"""Server-side apply of an object that is not there yet needs `create` besides `patch`."""
