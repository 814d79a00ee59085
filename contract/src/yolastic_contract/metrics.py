"""Names, types and labels of every metric: their one source."""

from dataclasses import dataclass
from typing import Final, Literal

MetricType = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: the name is as scraped, so a counter ends in `_total`."""

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_BATCHES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
_STAGES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

REQUESTS: Final = Metric("yolastic_requests_total", "counter", "Requests answered, by status code.", ("code",))
IMAGES: Final = Metric(
    "yolastic_images_total", "counter", "Images by outcome: ok rejected expired cancelled failed.", ("outcome",)
)
QUEUE_IMAGES: Final = Metric("yolastic_queue_images", "gauge", "Images waiting for a batch.")
QUEUE_OLDEST_AGE: Final = Metric(
    "yolastic_queue_oldest_age_seconds", "gauge", "Age of the oldest waiting image; 0 when none waits."
)
INFLIGHT_IMAGES: Final = Metric("yolastic_inflight_images", "gauge", "Images accepted and not yet answered.")
BATCH_SIZE: Final = Metric("yolastic_batch_size", "histogram", "Images a batch.", (), _BATCHES)
BATCH_CEILING: Final = Metric(
    "yolastic_batch_ceiling", "gauge", "Largest batch, by bound: effective spec memory latency efficiency operator.", ("bound",)
)
STAGE_SECONDS: Final = Metric(
    "yolastic_stage_seconds",
    "histogram",
    "Time in a stage: receive decode queue inference postprocess total.",
    ("stage",),
    _STAGES,
)
ENGINE_BUSY: Final = Metric("yolastic_engine_busy_seconds_total", "counter", "Time the engine ran; its rate is the busy share.")
LOAD_RATIO: Final = Metric("yolastic_load_ratio", "gauge", "Demand over capacity at the batch ceiling: what to scale on.")
ENGINE_FIXED: Final = Metric(
    "yolastic_engine_fixed_seconds", "gauge", "Learned time of a batch that does not depend on its size."
)
ENGINE_PER_IMAGE: Final = Metric("yolastic_engine_per_image_seconds", "gauge", "Learned time of a batch for each image in it.")
MEMORY_BYTES: Final = Metric(
    "yolastic_memory_bytes", "gauge", "Device memory: limit budget fixed per_image predicted_peak observed_peak.", ("kind",)
)
OUT_OF_MEMORY: Final = Metric("yolastic_out_of_memory_total", "counter", "Batches that ran out of memory.")
BATCH_RETRIES: Final = Metric("yolastic_batch_retries_total", "counter", "Runs of what was left of a batch that had failed.")
QUARANTINED: Final = Metric(
    "yolastic_quarantined_images_total",
    "counter",
    "Images answered 422 since they alone make a batch fail: when found, and when sent again.",
)
MODEL_INFO: Final = Metric(
    "yolastic_model_info", "gauge", "Always 1; the model and where it runs.", ("sha256", "task", "precision", "backend", "device")
)

WORKER_METRICS: Final = (
    REQUESTS, IMAGES, QUEUE_IMAGES, QUEUE_OLDEST_AGE, INFLIGHT_IMAGES, BATCH_SIZE, BATCH_CEILING, STAGE_SECONDS, ENGINE_BUSY,
    LOAD_RATIO, ENGINE_FIXED, ENGINE_PER_IMAGE, MEMORY_BYTES, OUT_OF_MEMORY, BATCH_RETRIES, QUARANTINED, MODEL_INFO,
)  # fmt: skip
"""Every one of these also carries the label `model`."""

_TURNS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_OBJECT: Final = ("namespace", "inference")

DESIRED_REPLICAS: Final = Metric("yolastic_operator_desired_replicas", "gauge", "Workers wanted.", _OBJECT)
RECOMMENDED_REPLICAS: Final = Metric(
    "yolastic_operator_recommended_replicas",
    "gauge",
    "Workers the decision comes to, after windows, rates and bounds (the status's advisedReplicas or desiredReplicas).",
    _OBJECT,
)
READY_REPLICAS: Final = Metric("yolastic_operator_ready_replicas", "gauge", "Workers ready.", _OBJECT)
OPERATOR_BATCH_CEILING: Final = Metric(
    "yolastic_operator_batch_ceiling",
    "gauge",
    "Batch ceiling (effective; in mode Advisory the one Active would grant) and its bounds.",
    (*_OBJECT, "bound"),
)
DECISIONS: Final = Metric(
    "yolastic_operator_decisions_total",
    "counter",
    "Changes decided, by reason; in mode Advisory with Advice before it.",
    (*_OBJECT, "reason"),
)
OBSERVATION_AGE: Final = Metric(
    "yolastic_operator_observation_age_seconds",
    "gauge",
    "Age of the newest sample a decision used; +Inf: there is none.",
    (*_OBJECT, "source"),
)
TURN_SECONDS: Final = Metric("yolastic_operator_turn_seconds", "histogram", "Length of a turn.", _OBJECT, _TURNS)
LEADER: Final = Metric(
    "yolastic_operator_leader", "gauge", "1: this process holds the Lease and acts; 0: the holder does.", ("holder",)
)
API_REQUESTS: Final = Metric(
    "yolastic_operator_api_requests_total", "counter", "Requests to the Kubernetes API.", ("verb", "code")
)

OPERATOR_METRICS: Final = (
    DESIRED_REPLICAS, RECOMMENDED_REPLICAS, READY_REPLICAS, OPERATOR_BATCH_CEILING, DECISIONS, OBSERVATION_AGE, TURN_SECONDS,
    LEADER, API_REQUESTS,
)  # fmt: skip
