"""The pod of a worker as a plain dict; it meets the Pod Security Standard `restricted`. Pure."""

import posixpath
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from yolastic_contract import names
from yolastic_contract.runtime import Toleration
from yolastic_operator.act.arguments import worker_arguments
from yolastic_operator.model import Workload

Manifest = dict[str, Any]

USER_ID: Final = 65532
MODEL_FOLDER: Final = "/models"
MODEL_FILE: Final = f"{MODEL_FOLDER}/model.onnx"
TOKEN_FOLDER: Final = "/etc/yolastic/control"
API_KEYS_FOLDER: Final = "/etc/yolastic/api-keys"
API_KEYS_VOLUME: Final = "api-keys"
MODEL_ENV_PREFIX: Final = "YOLASTIC_MODEL_"
CREDENTIAL_KEYS: Final = ("token", "username", "password")
MODEL_SIZE_LIMIT: Final = "4Gi"
SCRATCH_SIZE_LIMIT: Final = "1Gi"
STARTUP_LIMIT_S: Final = 1800
"""The longest a worker may take from its start to Ready: a download is before it, loading and warm-up are in it."""
LOST_NODE_S: Final = 30
"""How long a node may be lost, once Kubernetes has noticed (40 to 50 s), before its workers are replaced."""


def pod_template(workload: Workload, propagation_delay_s: int, grace_period_s: int) -> Manifest:
    """`spec.template` of the Deployment.

    Raises:
        ValueError: the model's URI is none that a worker of Kubernetes can read; the message says why.
    """
    return {
        "metadata": {
            "labels": {**workload.labels, names.LABEL_REVISION: workload.revision},
            "annotations": {
                "kubectl.kubernetes.io/default-container": "worker",
                "prometheus.io/scrape": "true",
                "prometheus.io/port": str(names.METRICS_PORT),
                "prometheus.io/path": "/metrics",
            },
        },
        "spec": _pod_spec(workload, propagation_delay_s, grace_period_s),
    }


def model_claim(uri: str) -> tuple[str, str] | None:
    """(claim, path in it) of a `pvc://CLAIM/path`; None for http(s), whose file is fetched first.

    Raises:
        ValueError: another scheme, or a path that leaves the claim.
    """
    parts = urlsplit(uri)
    if parts.scheme in {"http", "https"}:
        return None
    if parts.scheme != "pvc":
        raise ValueError(f"a model in Kubernetes comes from https://, http:// or pvc://, not {parts.scheme}://")
    claim, _, path = uri.removeprefix("pvc://").partition("/")
    if not path or posixpath.normpath(path) != path or path.startswith("/") or path.split("/")[0] in {".", ".."}:
        raise ValueError(f"{uri}: the path in the claim must be plain, without . or .. or empty parts")
    return claim, path


def _pod_spec(workload: Workload, propagation_delay_s: int, grace_period_s: int) -> Manifest:
    runtime = workload.runtime
    claim = model_claim(workload.spec.model.uri)
    spec: Manifest = {
        # A worker talks to nobody's API, and a service's address in an environment variable is of no use to it.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_period_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_worker(workload, claim, propagation_delay_s)],
        "volumes": [_model_volume(claim), *_own_volumes(workload)],
        "nodeSelector": dict(runtime.node_selector),
        "tolerations": [*(_plain(item) for item in runtime.tolerations), *_lost_node(runtime.tolerations)],
        "affinity": dict(runtime.affinity),
        "runtimeClassName": runtime.runtime_class_name,
        "priorityClassName": runtime.priority_class_name,
    }
    if claim is None:
        spec["initContainers"] = [_fetch(workload)]
    return {key: value for key, value in spec.items() if value not in (None, {}, [])}


def _lost_node(given: Sequence[Toleration]) -> list[Manifest]:
    """How long a worker's place is kept on a node that is lost, unless the runtime says it of that taint itself.

    Kubernetes keeps it for 300 s, for pods that hold something. A worker holds nothing, and a new one serves within a start.
    """
    return [
        {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": LOST_NODE_S}
        for taint in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
        if not any((item.key or taint) == taint and item.effect in {None, "NoExecute"} for item in given)
    ]


def _plain(toleration: Toleration) -> Manifest:
    return toleration.model_dump(mode="json", by_alias=True, exclude_none=True)


def _worker(workload: Workload, claim: tuple[str, str] | None, propagation_delay_s: int) -> Manifest:
    model_path = MODEL_FILE if claim is None else f"{MODEL_FOLDER}/{claim[1]}"
    keys = workload.spec.api_keys_secret_name is not None
    arguments = [
        *worker_arguments(workload.ref.name, workload.spec, workload.runtime, model_path),
        # A container that was started again may still be in the Service: who is refused at once tries another worker.
        "--open-when-ready",
        *("--metrics-port", str(names.METRICS_PORT)),
        *("--control-token-file", f"{TOKEN_FOLDER}/{names.CONTROL_TOKEN_KEY}"),
        *(("--api-keys-file", f"{API_KEYS_FOLDER}/{names.API_KEYS_KEY}") if keys else ()),
        *("--propagation-delay-s", str(propagation_delay_s), "--termination-log", names.TERMINATION_LOG),
    ]
    keys_mount = [{"name": API_KEYS_VOLUME, "mountPath": API_KEYS_FOLDER, "readOnly": True}] if keys else []
    return _container(workload, "worker", arguments, accelerator=True) | {
        "ports": [
            {"name": names.DATA_PORT_NAME, "containerPort": names.DATA_PORT, "protocol": "TCP"},
            {"name": names.CONTROL_PORT_NAME, "containerPort": names.CONTROL_PORT, "protocol": "TCP"},
            {"name": names.METRICS_PORT_NAME, "containerPort": names.METRICS_PORT, "protocol": "TCP"},
        ],
        # Liveness and readiness begin when the first /readyz succeeds, so a slow load is never taken for a hang.
        "startupProbe": _probe("/readyz", period_s=1, failures=STARTUP_LIMIT_S),
        # One failure is enough: a drain must be seen well within the propagation delay.
        "readinessProbe": _probe("/readyz", period_s=2, failures=1),
        "livenessProbe": _probe("/livez", period_s=10, failures=3),
        "volumeMounts": [
            {"name": "model", "mountPath": MODEL_FOLDER, "readOnly": True},
            {"name": "scratch", "mountPath": "/tmp"},
            {"name": "control", "mountPath": TOKEN_FOLDER, "readOnly": True},
            *keys_mount,
        ],
    }


def _fetch(workload: Workload) -> Manifest:
    model = workload.spec.model
    arguments = ["fetch", "--uri", model.uri, "--sha256", model.sha256, "--output", MODEL_FILE]
    container = _container(workload, "fetch", [*arguments, "--termination-log", names.TERMINATION_LOG], accelerator=False)
    container["volumeMounts"] = [
        {"name": "model", "mountPath": MODEL_FOLDER},
        {"name": "scratch", "mountPath": "/tmp"},
    ]
    if model.credentials_secret_name is not None:
        # Only here: the process that answers the world never sees the credentials.
        container["env"] += _credentials(model.credentials_secret_name)
    return container


def _credentials(secret: str) -> list[Manifest]:
    """Those keys and nothing else of the Secret; each may be absent, and then the kubelet does not miss the Secret either.

    So the fetcher is told its name: it does not go without credentials where some were meant, and says what is missing.
    """
    keys = [
        {
            "name": f"{MODEL_ENV_PREFIX}{key}",
            "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": True}},
        }
        for key in CREDENTIAL_KEYS
    ]
    return [{"name": f"{MODEL_ENV_PREFIX}SECRET", "value": secret}, *keys]


def _container(workload: Workload, name: str, arguments: list[str], accelerator: bool) -> Manifest:
    runtime = workload.runtime
    return {
        "name": name,
        "image": runtime.image,
        "imagePullPolicy": runtime.image_pull_policy,
        # Kubernetes reads $(NAME) in arguments as a variable, and $$ as a dollar.
        "args": [argument.replace("$", "$$") for argument in arguments],
        # The root file system is read-only; libraries that look for a home find the scratch volume.
        "env": [{"name": "HOME", "value": "/tmp"}],
        "resources": _resources(workload, accelerator),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
        "terminationMessagePath": names.TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _resources(workload: Workload, accelerator: bool) -> Manifest:
    runtime = workload.runtime
    requests: Manifest = dict(runtime.resources.requests)
    limits: Manifest = dict(runtime.resources.limits)
    if runtime.accelerator_resource is not None:
        # Extended resources: the request equals the limit, and the container that fetches needs no device.
        requests.pop(runtime.accelerator_resource, None)
        limits.pop(runtime.accelerator_resource, None)
        if accelerator:
            limits[runtime.accelerator_resource] = "1"
    return {key: value for key, value in {"requests": requests, "limits": limits}.items() if value}


def _probe(path: str, period_s: int, failures: int) -> Manifest:
    # The control port has its own thread; 5 s is for a node that is short of CPU, not for a busy queue.
    return {
        "httpGet": {"path": path, "port": names.CONTROL_PORT_NAME, "scheme": "HTTP"},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _model_volume(claim: tuple[str, str] | None) -> Manifest:
    if claim is None:
        return {"name": "model", "emptyDir": {"sizeLimit": MODEL_SIZE_LIMIT}}
    return {"name": "model", "persistentVolumeClaim": {"claimName": claim[0], "readOnly": True}}


def _own_volumes(workload: Workload) -> list[Manifest]:
    secret = {"secretName": names.control_secret_name(workload.ref.name), "defaultMode": 0o440}
    volumes: list[Manifest] = [
        {"name": "scratch", "emptyDir": {"sizeLimit": SCRATCH_SIZE_LIMIT}},
        {"name": "control", "secret": secret},
    ]
    if workload.spec.api_keys_secret_name is not None:
        # That one key and nothing else of the Secret. Optional for the kubelet alone, which would wait for a missing one without
        # a word in the pod's status; the worker does not start without it, and says so.
        keys = {
            "secretName": workload.spec.api_keys_secret_name,
            "items": [{"key": names.API_KEYS_KEY, "path": names.API_KEYS_KEY}],
            "defaultMode": 0o440,
            "optional": True,
        }
        volumes.append({"name": API_KEYS_VOLUME, "secret": keys})
    return volumes
