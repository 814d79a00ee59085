"""Names that do not change: the group, labels, annotations, ports and children's names."""

from typing import Final

GROUP: Final = "yolastic.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

INFERENCE_KIND: Final = "YoloInference"
INFERENCE_PLURAL: Final = "yoloinferences"
RUNTIME_KIND: Final = "YoloRuntime"
RUNTIME_PLURAL: Final = "yoloruntimes"

OPERATOR_NAME: Final = "yolastic-operator"
"""Field manager of every write and component of every event."""

LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_INFERENCE: Final = f"{GROUP}/inference"
LABEL_REVISION: Final = f"{GROUP}/revision"
"""On each worker: the revision of the workload it was made from; tells new workers from old ones."""

WORKER_APP_NAME: Final = "yolastic-worker"
MANAGED_BY: Final = "yolastic"

FINALIZER: Final = f"{GROUP}/finalizer"
ROTATE: Final = f"{GROUP}/rotate"
"""Annotation by which somebody asks for a new token in a control Secret, whatever its value; the operator takes it off."""
TOKEN_SINCE: Final = f"{GROUP}/token-since"
"""Annotation on a control Secret: when its tokens became what they are."""
ROLLOUT: Final = f"{GROUP}/rollout"
"""Annotation on a Deployment: what it runs, what served before, and what was given up; the operator's own memory."""
POD_DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"

DATA_PORT: Final = 8000
CONTROL_PORT: Final = 9000
METRICS_PORT: Final = 9001
"""Of a worker in a pod: a network policy knows ports and no paths, so what scrapes gets a port with nothing but `/metrics`."""
SERVICE_PORT: Final = 80
DATA_PORT_NAME: Final = "http"
CONTROL_PORT_NAME: Final = "control"
METRICS_PORT_NAME: Final = "metrics"

CONTROL_TOKEN_KEY: Final = "token"
"""The key in the control Secret that holds the bearer tokens, one a line."""

CONTROL_SECRET_SUFFIX: Final = "-control"
"""Of the names of control Secrets; no other Secret that a spec names ends so."""

API_KEYS_KEY: Final = "keys"
"""The key in the Secret of `apiKeysSecretName` that holds the lines of API keys."""

WORKER_ENV_PREFIX: Final = "YOLASTIC_WORKER_"
TERMINATION_LOG: Final = "/dev/termination-log"

MAX_INFERENCE_NAME_LENGTH: Final = 52
INFERENCE_NAME_PATTERN: Final = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""It names a Service, which must be a DNS label that starts with a letter."""
BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Batch sizes that are warmed up and that a ceiling is one of, images."""


def control_secret_name(inference: str) -> str:
    """Name of the Secret with the control tokens of an inference."""
    return f"{inference}{CONTROL_SECRET_SUFFIX}"


def worker_labels(inference: str) -> dict[str, str]:
    """Labels that every child of an inference carries; they are also its workers' selector."""
    return {LABEL_NAME: WORKER_APP_NAME, LABEL_MANAGED_BY: MANAGED_BY, LABEL_INFERENCE: inference}


def buckets_up_to(max_batch: int) -> tuple[int, ...]:
    """Buckets below `max_batch` and `max_batch` itself, ascending: what a worker warms up."""
    return (*(bucket for bucket in BUCKETS if bucket < max_batch), max_batch)
