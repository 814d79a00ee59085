"""The peers: what they are sent, how they are started, and the settings that were tried for each. Data alone."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.client import Target


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run a peer."""

    name: str
    values: Mapping[str, Any]
    """As its server file in benchmarks/peers/ reads them; the batch limit is always 32."""
    words: str


@dataclass(frozen=True, slots=True)
class Peer:
    """A server to compare with."""

    name: str
    """As shown; requirements and server file are named after its lower case."""
    settings: tuple[Setting, ...]
    """The first is its default."""
    body: str
    """`raw`, or the JSON in which `%s` stands for the image as base64."""
    path: str = "/predict"
    content_type: str = "application/json"
    headers: tuple[str, ...] = ()
    pythons: tuple[str, ...] = ("3.11", "3.12")
    program: tuple[str, ...] = ()
    """Arguments after the environment's bin folder; default: its server file with port and settings."""
    note: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Name of its files."""
        return self.name.lower()

    def target(self, url: str, image: bytes) -> Target:
        """The request with this image, in the form that costs the peer least."""
        body = image if self.body == "raw" else (self.body % base64.b64encode(image).decode()).encode()
        return Target(url, (body,), self.path, self.content_type, self.headers)


_LITSERVE = Peer(
    "LitServe",
    (
        Setting("default", {}, "as shipped: batch_timeout 0, timeout 30 s, one API server"),
        Setting("wait 5 ms", {"batch_timeout": 0.005}, "batch_timeout 5 ms"),
        Setting("wait 20 ms", {"batch_timeout": 0.020}, "batch_timeout 20 ms"),
        Setting("fast queue", {"fast_queue": True}, "fast_queue"),
        Setting("fast queue, wait 5 ms", {"fast_queue": True, "batch_timeout": 0.005}, "fast_queue, batch_timeout 5 ms"),
        Setting("two API servers", {"num_api_servers": 2, "batch_timeout": 0.005}, "num_api_servers 2, batch_timeout 5 ms"),
        Setting("timeout 0.4 s", {"timeout": 0.4, "batch_timeout": 0.005}, "timeout 0.4 s, batch_timeout 5 ms"),
        Setting("timeout 0.4 s, fast queue", {"timeout": 0.4, "fast_queue": True}, "timeout 0.4 s, fast_queue"),
        Setting("timeout 50 ms, fast queue", {"timeout": 0.05, "fast_queue": True}, "timeout 50 ms, fast_queue"),
    ),
    '{"image": "%s"}',
    note="the image as base64 in JSON: its handlers get JSON or forms",
)
_MOSEC = Peer(
    "Mosec",
    (
        Setting("default", {}, "as shipped: wait 10 ms, capacity 1024, timeout 3 s"),
        Setting("wait 1 ms", {"max_wait_time": 1}, "max_wait_time 1 ms, its least"),
        Setting("wait 5 ms", {"max_wait_time": 5}, "max_wait_time 5 ms"),
        Setting("wait 20 ms", {"max_wait_time": 20}, "max_wait_time 20 ms"),
        Setting("capacity 192", {"max_wait_time": 5, "capacity": 192, "timeout": 500}, "wait 5 ms, capacity 192, timeout 0.5 s"),
        Setting("capacity 24", {"max_wait_time": 1, "capacity": 24, "timeout": 500}, "wait 1 ms, capacity 24, timeout 0.5 s"),
        Setting("capacity 64", {"max_wait_time": 1, "capacity": 64, "timeout": 500}, "wait 1 ms, capacity 64, timeout 0.5 s"),
    ),
    "raw",
    path="/inference",
    content_type="image/jpeg",
    note="the raw bytes of the image",
)
_BENTOML = Peer(
    "BentoML",
    (
        Setting("default", {}, "as shipped: max_latency_ms 60000, no bound on the queue"),
        Setting("latency 2 s", {"max_latency_ms": 2000}, "max_latency_ms 2000"),
        Setting("latency 450 ms", {"max_latency_ms": 450, "traffic": {"timeout": 1}}, "max_latency_ms 450, traffic.timeout 1 s"),
        Setting(
            "concurrency 192",
            {"max_latency_ms": 2000, "traffic": {"max_concurrency": 192, "timeout": 1}},
            "max_latency_ms 2000, traffic.max_concurrency 192, traffic.timeout 1 s",
        ),
        Setting(
            "concurrency 48",
            {"max_latency_ms": 2000, "traffic": {"max_concurrency": 48, "timeout": 1}},
            "max_latency_ms 2000, traffic.max_concurrency 48, traffic.timeout 1 s",
        ),
        Setting(
            "latency 100 ms",
            {"max_latency_ms": 100, "traffic": {"max_concurrency": 64, "timeout": 1}},
            "max_latency_ms 100, traffic.max_concurrency 64, traffic.timeout 1 s",
        ),
    ),
    '{"images": ["%s"]}',
    program=("bentoml", "serve", "serve_bentoml:Service", "--host", "127.0.0.1", "--port", "{port}"),
    environment={"BENTOML_DO_NOT_TRACK": "True"},
    note="the image as base64 in JSON, which its batched endpoints read",
)
_PYTRITON = Peer(
    "PyTriton",
    (
        Setting("default", {}, "as shipped: dynamic batcher, no queue delay, no bound on the queue"),
        Setting("delay 5 ms", {"delay_us": 5000}, "max_queue_delay 5 ms"),
        Setting(
            "delay 1 ms, preferred 32", {"delay_us": 1000, "preferred": [32]}, "max_queue_delay 1 ms, preferred_batch_size 32"
        ),
        Setting(
            "delay 20 ms, preferred 32", {"delay_us": 20000, "preferred": [32]}, "max_queue_delay 20 ms, preferred_batch_size 32"
        ),
        Setting("two HTTP threads", {"http_thread_count": 2}, "http_thread_count 2"),
        Setting(
            "queue 192",
            {"queue": {"default_timeout_microseconds": 400_000, "max_queue_size": 192}},
            "queue policy: reject after 400 ms, max_queue_size 192",
        ),
        Setting(
            "queue 64",
            {"queue": {"default_timeout_microseconds": 200_000, "max_queue_size": 64}, "http_thread_count": 2},
            "queue policy: reject after 200 ms, max_queue_size 64, http_thread_count 2",
        ),
        Setting(
            "queue 24",
            {"queue": {"default_timeout_microseconds": 45_000, "max_queue_size": 24}},
            "queue policy: reject after 45 ms, max_queue_size 24",
        ),
    ),
    "raw",
    path="/v2/models/yolo/infer",
    content_type="application/octet-stream",
    headers=("Inference-Header-Content-Length: 0",),
    pythons=("3.11", "3.12", "3.10"),
    note="the raw bytes of the image as a binary tensor",
)
_MLSERVER = Peer(
    "MLServer",
    (
        Setting("default", {}, "max_batch_time 5 ms (0, as shipped, turns batching off), one parallel worker"),
        Setting("wait 1 ms", {"max_batch_time": 0.001}, "max_batch_time 1 ms"),
        Setting("wait 20 ms", {"max_batch_time": 0.020}, "max_batch_time 20 ms"),
        Setting(
            "in process, wait 1 ms", {"parallel_workers": 0, "max_batch_time": 0.001}, "no parallel worker, max_batch_time 1 ms"
        ),
        Setting("in process, wait 5 ms", {"parallel_workers": 0}, "no parallel worker, max_batch_time 5 ms"),
        Setting(
            "in process, wait 20 ms", {"parallel_workers": 0, "max_batch_time": 0.020}, "no parallel worker, max_batch_time 20 ms"
        ),
    ),
    json.dumps({"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["%s"]}]}),
    path="/v2/models/yolo/infer",
    note="the image as base64 in the v2 protocol's JSON. No setting bounds what it takes on",
)
PEERS = (_LITSERVE, _MOSEC, _BENTOML, _PYTRITON, _MLSERVER)
