"""Pods as an API server shows them, read as workers."""

from typing import Any

import pytest

from yolastic_operator.cluster.pods import is_over, worker_from_pod

RUNNING = {"running": {"startedAt": "2026-11-22T10:00:05Z"}}
DONE = {"terminated": {"exitCode": 0, "reason": "Completed"}}
CREATING = {"waiting": {"reason": "ContainerCreating"}}
INITIALIZING = {"waiting": {"reason": "PodInitializing"}}
BACK_OFF = {
    "waiting": {
        "reason": "CrashLoopBackOff",
        "message": "back-off 40s restarting failed container=worker pod=weld-7d9c-x_plant(1f0a)",
    }
}


def ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, "containerID": "containerd://9b"}}


def container(
    name: str, state: dict[str, Any], last: dict[str, Any] | None = None, ready: bool = False, restarts: int | None = None
) -> dict[str, Any]:
    restarts = (0 if last is None else 3) if restarts is None else restarts
    return {
        "name": name,
        "state": state,
        "lastState": last or {},
        "ready": ready,
        "restartCount": restarts,
        "image": "registry.example/worker:1",
        "imageID": "",
    }


def pod(
    *containers: dict[str, Any],
    init: dict[str, Any] | None = None,
    ready: bool = False,
    scheduled: dict[str, Any] | None = None,
    phase: str = "Pending",
    deleted: bool = False,
    **status: Any,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": "weld-7d9c-x",
        "namespace": "plant",
        "creationTimestamp": "2026-11-22T10:00:00Z",
        "labels": {"yolastic.dev/inference": "weld", "yolastic.dev/revision": "0123456789"},
    }
    if deleted:
        metadata["deletionTimestamp"] = "2026-11-22T11:00:00Z"
    conditions = [
        {"type": "PodScheduled", "status": "True"} | (scheduled or {}),
        {"type": "Ready", "status": "True" if ready else "False"},
    ]
    body: dict[str, Any] = {"phase": phase, "conditions": conditions, **status}
    if containers:
        body["containerStatuses"] = list(containers)
    if init is not None:
        body["initContainerStatuses"] = [init]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}, "status": body}


def unscheduled(message: str) -> dict[str, Any]:
    return {"status": "False", "reason": "Unschedulable", "message": message}


NO_GPU = (
    "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: 3 No preemption victims found."
)
NO_CLAIM = '0/3 nodes are available: persistentvolumeclaim "models" not found. not found'
NO_IMAGE = 'Back-off pulling image "registry.example/worker:1": ErrImagePull: not found'

PHASES = {
    "just made": (pod(), "Pending", None, ""),
    "placed, images are fetched": (pod(container("worker", CREATING)), "Pending", None, ""),
    "model is fetched": (pod(container("worker", INITIALIZING), init=container("fetch", RUNNING)), "Pending", None, ""),
    "loads its model": (pod(container("worker", RUNNING), init=container("fetch", DONE), phase="Running"), "Starting", None, ""),
    "serves": (pod(container("worker", RUNNING, ready=True), ready=True, phase="Running"), "Ready", None, ""),
    "serves after a crash": (
        pod(container("worker", RUNNING, ended(1, "boom"), ready=True), ready=True, phase="Running"),
        "Ready",
        None,
        "",
    ),
    "fetched at the second attempt": (
        pod(container("worker", RUNNING), init=container("fetch", DONE, ended(2, "DownloadFailed: no route")), phase="Running"),
        "Starting",
        None,
        "",
    ),
    "leaves": (pod(container("worker", RUNNING, ready=True), ready=True, phase="Running", deleted=True), "Terminating", None, ""),
    "no room": (pod(scheduled=unscheduled(NO_GPU)), "Pending", None, NO_GPU),
    "no claim": (
        pod(scheduled=unscheduled(NO_CLAIM)),
        "Failed",
        "VolumeNotFound",
        "PersistentVolumeClaim models is not in this namespace",
    ),
    "wrong file": (
        pod(
            container("worker", INITIALIZING),
            init=container("fetch", BACK_OFF, ended(2, "ChecksumMismatch: the file is 1f…, the spec says 2a…\n")),
        ),
        "Failed",
        "ChecksumMismatch",
        "the file is 1f…, the spec says 2a…",
    ),
    "wrong file, just seen": (
        pod(container("worker", INITIALIZING), init=container("fetch", ended(2, "ChecksumMismatch: not that one"))),
        "Failed",
        "ChecksumMismatch",
        "not that one",
    ),
    "wrong file, tries again": (
        pod(container("worker", INITIALIZING), init=container("fetch", RUNNING, ended(2, "ChecksumMismatch: not that one"))),
        "Failed",
        "ChecksumMismatch",
        "not that one",
    ),
    "no such file in the claim": (
        pod(
            container("worker", BACK_OFF, ended(2, "ModelNotFound: there is no model /models/2026/weld.onnx\n")), phase="Running"
        ),
        "Failed",
        "ModelNotFound",
        "there is no model /models/2026/weld.onnx",
    ),
    "fixed batch": (
        pod(container("worker", BACK_OFF, ended(2, "FixedBatch: export with dynamic=True")), phase="Running"),
        "Failed",
        "FixedBatch",
        "export with dynamic=True",
    ),
    "fixed batch, tries again": (
        pod(container("worker", RUNNING, ended(2, "FixedBatch: export with dynamic=True")), phase="Running"),
        "Starting",
        "FixedBatch",
        "export with dynamic=True",
    ),
    "a reason among other lines of the log": (
        pod(container("worker", ended(2, "INFO loading\nDoesNotFit: 5 GiB of 4 GiB\nINFO bye"))),
        "Failed",
        "DoesNotFit",
        "5 GiB of 4 GiB",
    ),
    "device lost": (
        pod(container("worker", ended(3, "INFO serving\nERROR CUDA error 79\n")), phase="Running"),
        "Failed",
        "WorkerExited",
        "worker ended with exit code 3: ERROR CUDA error 79",
    ),
    "no last words": (pod(container("worker", ended(1))), "Failed", "WorkerExited", "worker ended with exit code 1"),
    "killed for memory": (
        pod(container("worker", BACK_OFF, ended(137, "", "OOMKilled")), phase="Running"),
        "Failed",
        "OutOfMemory",
        "worker was killed because it needed more memory than its limit",
    ),
    "no image": (
        pod(container("worker", {"waiting": {"reason": "ImagePullBackOff", "message": NO_IMAGE}})),
        "Failed",
        "ImagePullFailed",
        f"registry.example/worker:1: {NO_IMAGE}",
    ),
    "no image yet": (
        pod(container("worker", INITIALIZING), init=container("fetch", {"waiting": {"reason": "ErrImagePull"}})),
        "Failed",
        "ImagePullFailed",
        "registry.example/worker:1: ErrImagePull",
    ),
    "no credentials": (
        pod(
            container("worker", INITIALIZING),
            init=container("fetch", {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "store" not found'}}),
        ),
        "Failed",
        "SecretNotFound",
        "Secret store is not in this namespace",
    ),
    "no credentials in it": (
        pod(
            container("worker", INITIALIZING),
            init=container(
                "fetch", BACK_OFF, ended(2, "CredentialsMissing: Secret store is not in this namespace, or has neither")
            ),
        ),
        "Failed",
        "SecretNotFound",
        "Secret store is not in this namespace, or has neither",
    ),
    "no API keys": (
        pod(container("worker", BACK_OFF, ended(2, "ApiKeysMissing: there is no API keys file /etc/yolastic/api-keys/keys")))
        | {"spec": {"volumes": [{"name": "control"}, {"name": "api-keys", "secret": {"secretName": "weld-clients"}}]}},
        "Failed",
        "SecretNotFound",
        "Secret weld-clients is not in this namespace, or has no key keys",
    ),
    "bad API keys": (
        pod(
            container("worker", BACK_OFF, ended(2, "BadConfiguration: the API keys file /etc/k cannot be used: line 2: is none"))
        ),
        "Failed",
        "BadConfiguration",
        "the API keys file /etc/k cannot be used: line 2: is none",
    ),
    "cannot be created": (
        pod(container("worker", {"waiting": {"reason": "CreateContainerError", "message": "no such runtime"}})),
        "Failed",
        "CreateContainerError",
        "no such runtime",
    ),
    "back-off without a cause": (
        pod(container("worker", {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}})),
        "Failed",
        "CrashLoopBackOff",
        "back-off",
    ),
    "evicted": (
        pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."),
        "Failed",
        "Evicted",
        "The node was low on resource: memory.",
    ),
    "refused by its node": (
        pod(phase="Failed", reason="UnexpectedAdmissionError", message="Allocate failed: no healthy devices"),
        "Failed",
        "UnexpectedAdmissionError",
        "Allocate failed: no healthy devices",
    ),
    "refused for want of a device": (
        pod(phase="Failed", reason="OutOfnvidia.com/gpu", message="Pod was rejected"),
        "Failed",
        "PodFailed",
        "OutOfnvidia.com/gpu: Pod was rejected",
    ),
    "waiting for a word no condition can bear": (
        pod(container("worker", {"waiting": {"reason": "odd-reason"}})),
        "Failed",
        "PodFailed",
        "odd-reason",
    ),
}


@pytest.mark.parametrize("case", PHASES)
def test_phase_and_failure(case: str) -> None:
    body, phase, reason, message = PHASES[case]
    worker = worker_from_pod(body)
    assert (worker.phase, worker.failure_reason, worker.failure_message) == (phase, reason, message)


@pytest.mark.parametrize(
    ("containers", "failures"),
    [
        ([], 0),
        ([container("worker", RUNNING)], 0),
        ([container("worker", ended(2, "FixedBatch: no"))], 1),
        ([container("worker", RUNNING, ended(2, "FixedBatch: no"), restarts=1)], 1),
        ([container("worker", BACK_OFF, ended(2, "FixedBatch: no"), restarts=1)], 2),
        ([container("worker", INITIALIZING), container("fetch", BACK_OFF, ended(2, "DownloadFailed: no"), restarts=4)], 5),
        ([container("worker", CREATING), container("fetch", ended(0, ""))], 0),
    ],
)
def test_how_often_it_has_ended(containers: list[dict[str, Any]], failures: int) -> None:
    assert worker_from_pod(pod(*containers)).failures == failures


def test_what_identifies_a_worker() -> None:
    body = pod(container("worker", RUNNING, ready=True), ready=True, phase="Running", podIP="10.244.0.7")
    worker = worker_from_pod(body | {"spec": {"nodeName": "left"}})
    assert (worker.name, worker.revision, worker.created_s) == ("weld-7d9c-x", "0123456789", 1795341600.0)
    assert (worker.address, worker.control_port, worker.ready) == ("10.244.0.7", 9000, True)
    assert (worker.node, worker_from_pod(body).node) == ("left", None), "one without a node has not been placed yet"


def test_a_worker_that_leaves_is_not_ready() -> None:
    assert not worker_from_pod(pod(container("worker", RUNNING, ready=True), ready=True, deleted=True)).ready


@pytest.mark.parametrize(
    ("scheduled", "expected"),
    [(None, False), (unscheduled(NO_GPU), True), ({"status": "False", "reason": "SchedulingGated"}, False)],
)
def test_no_room_is_told_apart_from_not_yet(scheduled: dict[str, Any] | None, expected: bool) -> None:
    assert worker_from_pod(pod(scheduled=scheduled)).unschedulable is expected


def test_a_missing_claim_is_no_lack_of_room() -> None:
    assert not worker_from_pod(pod(scheduled=unscheduled(NO_CLAIM))).unschedulable


@pytest.mark.parametrize(("phase", "over"), [("Pending", False), ("Running", False), ("Failed", True), ("Succeeded", True)])
def test_a_pod_that_is_over(phase: str, over: bool) -> None:
    assert is_over(pod(phase=phase)) is over


def test_a_pod_of_which_nothing_is_known_yet() -> None:
    worker = worker_from_pod({"metadata": {"name": "x"}})
    assert (worker.phase, worker.revision, worker.created_s) == ("Pending", "", 0.0)


def test_long_messages_are_cut() -> None:
    worker = worker_from_pod(pod(container("worker", ended(1, "x" * 4096))))
    assert len(worker.failure_message) == 512
