"""The Pod Security Standard `restricted`, rule by rule (kubernetes.io/docs/concepts/security/pod-security-standards)."""

from collections.abc import Iterator
from typing import Any

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SECCOMP = {"RuntimeDefault", "Localhost"}


def violations(pod: dict[str, Any]) -> list[str]:
    """What a pod's spec does that `restricted` forbids; `pod` is the spec."""
    return [*_of_pod(pod), *(fault for container in containers(pod) for fault in _of_container(container, pod))]


def containers(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from pod.get(kind, [])


def _of_pod(pod: dict[str, Any]) -> Iterator[str]:
    for setting in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(setting):
            yield f"{setting} is set"
    for volume in pod.get("volumes", []):
        kind = set(volume) - {"name"}
        if not kind <= VOLUMES:
            yield f"volume {volume['name']} is a {', '.join(sorted(kind))}"
    context = pod.get("securityContext", {})
    if context.get("sysctls"):
        yield "sysctls are set"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess is set"


def _of_container(container: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    name, own, shared = container["name"], container.get("securityContext", {}), pod.get("securityContext", {})
    if own.get("privileged"):
        yield f"{name} is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name} may escalate privileges"
    if "ALL" not in own.get("capabilities", {}).get("drop", []):
        yield f"{name} keeps capabilities"
    if set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{name} adds capabilities"
    if own.get("runAsNonRoot", shared.get("runAsNonRoot")) is not True:
        yield f"{name} may run as root"
    if own.get("runAsUser", shared.get("runAsUser")) == 0:
        yield f"{name} runs as root"
    if own.get("seccompProfile", shared.get("seccompProfile", {})).get("type") not in SECCOMP:
        yield f"{name} has no seccomp profile"
    if own.get("procMount", "Default") != "Default":
        yield f"{name} sees an unmasked /proc"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield f"{name} takes a port of the host"
