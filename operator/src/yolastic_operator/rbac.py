"""What the operator may do: exactly the verbs it uses, as rules of a Role. Pure data; the chart's templates are made from it."""

from typing import Any, Final

from yolastic_contract import names

Rule = dict[str, Any]


def _rule(group: str, resource: str, *verbs: str) -> Rule:
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}


CLUSTER_RULES: Final[list[Rule]] = [
    _rule(names.GROUP, names.RUNTIME_PLURAL, "get", "list", "watch"),
]
"""For what has no namespace: a ClusterRole whatever namespaces are served."""

LEASE_RULES: Final[list[Rule]] = [
    _rule("coordination.k8s.io", "leases", "get", "create", "update"),
]
"""For the operator's own namespace: a Role there."""

NAMESPACED_RULES: Final[list[Rule]] = [
    # patch: only the finalizer; the spec is never written.
    _rule(names.GROUP, names.INFERENCE_PLURAL, "list", "watch", "patch"),
    _rule(names.GROUP, f"{names.INFERENCE_PLURAL}/status", "patch"),
    _rule("apps", "deployments", "get", "list", "watch", "create", "patch"),
    _rule("apps", "deployments/scale", "patch"),
    _rule("", "services", "get", "list", "watch", "create", "patch"),
    _rule("networking.k8s.io", "networkpolicies", "get", "list", "watch", "create", "patch"),
    _rule("policy", "poddisruptionbudgets", "get", "list", "watch", "create", "patch"),
    # The control Secrets alone are read, by name; never listed.
    _rule("", "secrets", "get", "create", "patch"),
    # patch: the deletion cost of a worker that is about to go.
    _rule("", "pods", "list", "watch", "patch"),
    _rule("events.k8s.io", "events", "create"),
]
"""For the namespaces that are served: a Role in each, or a ClusterRole for all.

Nothing is deleted: owner references do that.
"""
