"""What the operator tells a worker, the worker understands: every field arrives as the setting it is."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.quantity import parse_bytes
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.act.arguments import worker_arguments
from yolastic_operator.act.pod import pod_template
from yolastic_operator.act.workload import build
from yolastic_operator.model import Ref
from yolastic_worker.api.url_rules import parse_hosts
from yolastic_worker.settings import FetchSettings, ServeSettings, parse_arguments

SIDES = st.integers(1, 128).map(lambda count: 32 * count)
SPECS = st.fixed_dictionaries(
    {
        "model": st.fixed_dictionaries(
            {"uri": st.sampled_from(["https://models/a.onnx?x=$(HOME)", "pvc://models/m.onnx"]), "sha256": st.just("0a" * 32)},
            optional={"task": st.just("Detect"), "inputSize": st.fixed_dictionaries({"width": SIDES, "height": SIDES})},
        ),
        "batching": st.fixed_dictionaries(
            {
                "maxSize": st.integers(1, 256),
                "window": st.sampled_from(["Adaptive", "Fixed"]),
                "maxDelayMilliseconds": st.integers(0, 1000),
                "eagerSize": st.integers(1, 256),
            }
        ),
        "queue": st.fixed_dictionaries(
            {"maxLength": st.integers(1, 65536)}, optional={"overflow": st.sampled_from(["Reject", "DropOldest"])}
        ),
        "drain": st.fixed_dictionaries({"timeoutSeconds": st.integers(1, 3600)}),
    },
    optional={
        "objective": st.fixed_dictionaries({"latencyMilliseconds": st.integers(1, 600_000)}),
        "memory": st.fixed_dictionaries({"limit": st.sampled_from(["8Gi", "1500M", "0.5Gi", "123456789", 4096])}),
        "apiKeysSecretName": st.just("clients"),
    },
)
LABELS = st.from_regex(r"[a-z]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
URL_HOSTS = st.lists(
    st.builds(
        lambda star, labels, port: star + ".".join(labels) + port,
        st.sampled_from(["", "*."]),
        st.lists(LABELS, min_size=2, max_size=4),
        st.just("") | st.integers(1, 65535).map(lambda number: f":{number}"),
    ),
    max_size=5,
)
RUNTIMES = st.fixed_dictionaries(
    {"image": st.just("worker"), "shared": st.booleans()},
    optional={"acceleratorMemory": st.just("24Gi"), "urlHosts": URL_HOSTS},
).flatmap(
    lambda base: st.sampled_from(
        [{**base, "device": "cpu"}, {**base, "device": "cuda"}, {**base, "backend": "Simulated", "simulate": "fixed_ms=20"}]
    )
)


@given(SPECS, RUNTIMES)
def test_every_field_arrives(written: dict[str, Any], run_on: dict[str, Any]) -> None:
    spec, runtime = InferenceSpec.model_validate(written), RuntimeSpec.model_validate(run_on)
    told = parse_arguments(worker_arguments("weld", spec, runtime, "/models/model.onnx"))
    assert isinstance(told, ServeSettings)
    size, limit = spec.model.input_size, spec.memory.limit or runtime.accelerator_memory
    assert (told.name, told.model, told.model_sha256) == ("weld", Path("/models/model.onnx"), spec.model.sha256)
    assert (told.task, told.input_size) == (spec.model.task, None if size is None else (size.height, size.width))
    assert (told.backend, told.device, told.shared) == (runtime.backend.lower(), runtime.device, runtime.shared)
    assert (told.max_batch, told.eager_size) == (spec.batching.max_size, spec.batching.eager_size)
    assert (told.window, told.max_delay_s * 1000) == (spec.batching.window.lower(), spec.batching.max_delay_milliseconds)
    assert (told.queue_length, told.drain_timeout_s) == (spec.queue.max_length, spec.drain.timeout_seconds)
    assert told.overflow == {"Reject": "reject", "DropOldest": "drop-oldest"}[spec.queue.overflow]
    assert told.memory_limit_bytes == (None if limit is None else parse_bytes(limit))
    assert told.url_hosts == (parse_hosts(",".join(runtime.url_hosts)) if runtime.url_hosts else None)
    assert told.objective_s == (None if spec.objective is None else spec.objective.latency_milliseconds / 1000)


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "10.0.0.1", "*.org", "*", "a.example.org:0", "a.example.org:65536", "A.example.org", "https://a.example.org",
        "a.example.org/", "-a.example.org", "a..example.org", "a.example.org.", "a.example.org,b.example.org", "a.1", "a_b.org",
        "a.example.org\n", "",
    ],
)  # fmt: skip
def test_a_host_that_no_worker_takes_is_refused_in_the_resource(host: str) -> None:
    with pytest.raises(ValidationError, match="urlHosts"):
        RuntimeSpec.model_validate({"image": "worker", "urlHosts": [host]})


@given(SPECS, RUNTIMES)
def test_every_container_starts(written: dict[str, Any], run_on: dict[str, Any]) -> None:
    spec, runtime = InferenceSpec.model_validate(written), RuntimeSpec.model_validate(run_on)
    pod = pod_template(build(Ref("plant", "weld"), spec, "cpu", runtime), propagation_delay_s=5, grace_period_s=75)["spec"]
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        # As the kubelet reads them: $$ is a dollar, so nothing is a variable.
        told = parse_arguments([argument.replace("$$", "$") for argument in container["args"]])
        if isinstance(told, FetchSettings):
            assert (told.uri, told.sha256) == (spec.model.uri, spec.model.sha256)
        else:
            assert told.propagation_delay_s == 5
            assert told.control_token_file is not None
            assert told.api_keys_file == (Path("/etc/yolastic/api-keys/keys") if spec.api_keys_secret_name else None)
        assert told.termination_log == Path("/dev/termination-log")
