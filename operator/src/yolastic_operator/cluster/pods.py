"""A pod as the API server shows it, read as a worker. Pure."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from yolastic_contract import names
from yolastic_contract.failure import parse_failure
from yolastic_operator.act.pod import API_KEYS_VOLUME
from yolastic_operator.model import Worker, WorkerPhase

Pod = Mapping[str, Any]
Failure = tuple[str, str]

_IMAGE_REASONS: Final = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_WAITING_IS_NORMAL: Final = {"ContainerCreating", "PodInitializing", ""}
_NO_SECRET: Final = re.compile(r'secrets? "([^"]+)" not found')
_NO_CLAIM: Final = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
_REASON: Final = re.compile(r"[A-Za-z]([A-Za-z0-9_]{,62}[A-Za-z0-9])?")
_MESSAGE_LENGTH: Final = 512


def worker_from_pod(pod: Pod) -> Worker:
    """The worker a pod is, with what keeps it from being ready as far as the cluster knows."""
    metadata, status = pod.get("metadata", {}), pod.get("status", {})
    ready = _condition(pod, "Ready").get("status") == "True"
    failure = None if ready else _failure(pod)
    homeless = _unschedulable(pod) and (failure is None or failure[0] != "VolumeNotFound")
    told = shorten(_condition(pod, "PodScheduled").get("message", "")) if homeless else ""
    return Worker(
        name=metadata.get("name", ""),
        revision=metadata.get("labels", {}).get(names.LABEL_REVISION, ""),
        phase=_phase(pod, ready, failure),
        created_s=_seconds(metadata.get("creationTimestamp")),
        address=status.get("podIP") or None,
        node=pod.get("spec", {}).get("nodeName") or None,
        control_port=names.CONTROL_PORT,
        ready=ready and "deletionTimestamp" not in metadata,
        unschedulable=homeless,
        failure_reason=None if failure is None else failure[0],
        failure_message=told if failure is None else failure[1],
        failures=max((_failures(one) for one in _container_statuses(pod)), default=0),
    )


def is_over(pod: Pod) -> bool:
    """It will never run again (evicted, refused by its node): its ReplicaSet has made another, it is nobody's supply."""
    return pod.get("status", {}).get("phase") in {"Failed", "Succeeded"}


def _phase(pod: Pod, ready: bool, failure: Failure | None) -> WorkerPhase:
    if "deletionTimestamp" in pod.get("metadata", {}):
        return "Terminating"
    if ready:
        return "Ready"
    if is_over(pod):
        return "Failed"
    if failure is not None and not _serving_container_runs(pod):
        return "Failed"
    return "Starting" if _serving_container_runs(pod) else "Pending"


def _serving_container_runs(pod: Pod) -> bool:
    return any("running" in status.get("state", {}) for status in pod.get("status", {}).get("containerStatuses", []))


def _failure(pod: Pod) -> Failure | None:
    """Why it is not ready; None while it is merely on its way.

    A container that runs again after it failed still tells its last failure, so that a condition does not flap between restarts.
    """
    for status in _container_statuses(pod):
        failure = _container_failure(status)
        if failure is not None:
            if failure[0] == "CredentialsMissing":
                return "SecretNotFound", failure[1]
            return _missing_keys(pod) if failure[0] == "ApiKeysMissing" else failure
    scheduled = _condition(pod, "PodScheduled")
    missing = _NO_CLAIM.search(scheduled.get("message", ""))
    if missing is not None:
        return "VolumeNotFound", f"PersistentVolumeClaim {missing[1]} is not in this namespace"
    status = pod.get("status", {})
    if status.get("phase") == "Failed":
        return _named(status.get("reason") or "PodFailed", status.get("message", ""))
    return None


def _missing_keys(pod: Pod) -> Failure:
    """A worker found no file where the Secret with API keys is mounted: which Secret that is, the pod says."""
    volumes = {volume.get("name"): volume for volume in pod.get("spec", {}).get("volumes", [])}
    secret = volumes.get(API_KEYS_VOLUME, {}).get("secret", {}).get("secretName", "with API keys")
    return "SecretNotFound", f"Secret {secret} is not in this namespace, or has no key {names.API_KEYS_KEY}"


def _container_statuses(pod: Pod) -> Iterator[Mapping[str, Any]]:
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses", [])
    yield from status.get("containerStatuses", [])


def _container_failure(status: Mapping[str, Any]) -> Failure | None:
    waiting = status.get("state", {}).get("waiting", {})
    ended = status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _IMAGE_REASONS:
        return "ImagePullFailed", shorten(f"{status.get('image', 'the image')}: {message or reason}")
    missing = _NO_SECRET.search(message)
    if reason == "CreateContainerConfigError" and missing is not None:
        return "SecretNotFound", f"Secret {missing[1]} is not in this namespace"
    if status.get("state", {}).get("terminated", {}).get("exitCode") == 0:
        return None  # an init container that did its work, perhaps not at the first attempt
    if ended and ended.get("exitCode", 0) != 0:
        return _ending(status, ended)
    if reason not in _WAITING_IS_NORMAL:
        return _named(reason, message)
    return None


def _named(reason: str, message: str) -> Failure:
    """The cluster's own reason, where a condition can bear it: a node may refuse a pod with `OutOfnvidia.com/gpu`."""
    if _REASON.fullmatch(reason):
        return reason, shorten(message)
    return "PodFailed", shorten(f"{reason}: {message}" if message else reason)


def _failures(status: Mapping[str, Any]) -> int:
    """How often a container has ended and was to run again; the last end counts before the restart does."""
    state = status.get("state", {})
    waits = "waiting" in state and "terminated" in status.get("lastState", {})
    ended = state.get("terminated", {}).get("exitCode", 0) != 0
    return int(status.get("restartCount", 0)) + int(waits or ended)


def _ending(status: Mapping[str, Any], ended: Mapping[str, Any]) -> Failure:
    message = ended.get("message", "")
    told = parse_failure(message)
    if told is not None:
        return told[0], shorten(told[1])
    name, code = status.get("name", "container"), ended.get("exitCode")
    if ended.get("reason") == "OOMKilled":
        return "OutOfMemory", f"{name} was killed because it needed more memory than its limit"
    lines = [line for line in message.splitlines() if line.strip()]
    last_words = f": {lines[-1].strip()}" if lines else ""
    return "WorkerExited", shorten(f"{name} ended with exit code {code}{last_words}")


def _unschedulable(pod: Pod) -> bool:
    scheduled = _condition(pod, "PodScheduled")
    return scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"


def _condition(pod: Pod, kind: str) -> Mapping[str, Any]:
    conditions = pod.get("status", {}).get("conditions", [])
    return next((item for item in conditions if item.get("type") == kind), {})


def _seconds(timestamp: str | None) -> float:
    return 0.0 if timestamp is None else datetime.fromisoformat(timestamp).timestamp()


def shorten(text: str) -> str:
    """One line of at most so many characters as a condition has room for."""
    flat = " ".join(text.split())
    return flat if len(flat) <= _MESSAGE_LENGTH else flat[: _MESSAGE_LENGTH - 1] + "…"
