"""The worker's command line, from a spec and a runtime. Pure; Kubernetes and local mode both start workers with it."""

from typing import Final

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.quantity import parse_bytes
from yolastic_contract.runtime import RuntimeSpec

_BACKENDS: Final = {"OnnxRuntime": "onnxruntime", "Simulated": "simulated"}
_OVERFLOWS: Final = {"Reject": "reject", "DropOldest": "drop-oldest"}
_WINDOWS: Final = {"Adaptive": "adaptive", "Fixed": "fixed"}


def worker_arguments(name: str, spec: InferenceSpec, runtime: RuntimeSpec, model_path: str) -> list[str]:
    """Arguments of `yolastic-worker` that say what to serve and how; whoever starts it adds where it listens and its secrets.

    `name` becomes the metrics label `model`; `model_path` is where the worker finds the file.
    """
    arguments = ["serve", "--name", name, *_model(spec, model_path), *_engine(spec, runtime), *_batching(spec, runtime)]
    arguments += ["--queue-length", str(spec.queue.max_length), "--overflow", _OVERFLOWS[spec.queue.overflow]]
    if spec.objective is not None:
        arguments += ["--objective-ms", str(spec.objective.latency_milliseconds)]
    if runtime.url_hosts:
        arguments += ["--url-hosts", ",".join(runtime.url_hosts)]
    return [*arguments, "--drain-timeout-s", str(spec.drain.timeout_seconds)]


def memory_limit_bytes(spec: InferenceSpec, runtime: RuntimeSpec) -> int | None:
    """The declared limit of a worker: the inference's own, else the runtime's; None leaves it to the device."""
    limit = spec.memory.limit if spec.memory.limit is not None else runtime.accelerator_memory
    return None if limit is None else parse_bytes(limit)


def _model(spec: InferenceSpec, model_path: str) -> list[str]:
    arguments = ["--model", model_path, "--model-sha256", spec.model.sha256]
    if spec.model.task is not None:
        arguments += ["--task", spec.model.task]
    if spec.model.input_size is not None:
        arguments += ["--input-size", f"{spec.model.input_size.width}x{spec.model.input_size.height}"]
    return arguments


def _engine(spec: InferenceSpec, runtime: RuntimeSpec) -> list[str]:
    arguments = ["--backend", _BACKENDS[runtime.backend], "--device", runtime.device]
    if runtime.simulate is not None:
        arguments += ["--simulate", runtime.simulate]
    limit_bytes = memory_limit_bytes(spec, runtime)
    if limit_bytes is not None:
        arguments += ["--memory-limit", str(limit_bytes)]
    return arguments


def _batching(spec: InferenceSpec, runtime: RuntimeSpec) -> list[str]:
    batching = spec.batching
    arguments = ["--max-batch", str(batching.max_size), "--window", _WINDOWS[batching.window]]
    arguments += ["--max-delay-ms", str(batching.max_delay_milliseconds), "--eager-size", str(batching.eager_size)]
    return [*arguments, "--shared"] if runtime.shared else arguments
