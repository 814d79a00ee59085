"""ONNX Runtime on the CPU or on CUDA: one code, other provider options."""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

# Before the import, which is when it is read: a server in a plant reports to nobody unless its owner says so.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

from yolastic_worker.engine.base import EngineInfo, Outputs
from yolastic_worker.engine.errors import classify
from yolastic_worker.engine.metadata import EXPORT_HINT, Metadata, choose_size, choose_task, parse_metadata
from yolastic_worker.engine.onnx_file import NotPlainOnnx, check_plain_onnx
from yolastic_worker.memory.probe import DeviceMemory, MemoryReading, ProcessMemory
from yolastic_worker.postprocess import HeadKind, head_kind
from yolastic_worker.types import Pixels, WorkerFailure

logger = logging.getLogger(__name__)

_PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_CUDA_OPTIONS: Final = {
    "device_id": "0",
    "arena_extend_strategy": "kSameAsRequested",
    "cudnn_conv_algo_search": "HEURISTIC",
    "cudnn_conv_use_max_workspace": "0",
}
"""A third of the memory of the defaults; the search per new shape takes milliseconds instead of a second."""
_SPINNING: Final = {"session.intra_op.spin_duration_us": "300", "session.force_spinning_stop": "1"}
"""Idle threads of a run spin briefly, and not between runs: as fast as the default alone, a fifth faster where decoding or
neighbours want the cores too (YOLO11n, 2 cores)."""
_SHRINK: Final = {"cpu": "cpu:0", "cuda": "gpu:0"}
_PRECISIONS: Final[dict[str, tuple[str, Any]]] = {"tensor(float)": ("FP32", np.float32), "tensor(float16)": ("FP16", np.float16)}


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """How to load a model."""

    model: Path
    sha256: str | None = None
    """Required digest of the file; None: any."""
    task: str | None = None
    input_size: tuple[int, int] | None = None
    """(height, width); None: what the model says."""
    device: str = "cpu"
    threads: int = 0
    """Of one run; 0: the runtime's own choice."""
    max_batch: int = 32


def read_model(path: Path, sha256: str | None) -> tuple[bytes, str]:
    """(content, sha256) of a model file: read once, so that what is checked is what is loaded.

    Raises:
        WorkerFailure: BadConfiguration, ChecksumMismatch, UnsupportedModel.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WorkerFailure("BadConfiguration", f"the model {path} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256.lower():
        raise WorkerFailure("ChecksumMismatch", f"the model's sha256 is {digest}, not {sha256}")
    try:
        check_plain_onnx(content)
    except NotPlainOnnx as error:
        raise WorkerFailure("UnsupportedModel", f"{path.name} cannot be served: {error}") from error
    return content, digest


def _session(content: bytes, options: OnnxOptions) -> ort.InferenceSession:
    provider = _PROVIDERS[options.device]
    if provider not in ort.get_available_providers():
        raise WorkerFailure("DeviceUnavailable", f"this installation of ONNX Runtime has no {options.device} support")
    settings = ort.SessionOptions()
    settings.enable_mem_pattern = False  # a pattern per shape doubles the arena
    settings.log_severity_level = 3
    settings.intra_op_num_threads = options.threads
    for key, value in _SPINNING.items():
        settings.add_session_config_entry(key, value)
    if options.device == "cuda":
        ort.preload_dlls()
    chosen = [(provider, dict(_CUDA_OPTIONS))] if options.device == "cuda" else [provider]
    try:
        session = ort.InferenceSession(content, settings, providers=chosen)
    except Exception as error:
        first = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise WorkerFailure("UnsupportedModel", f"{options.model.name} cannot be loaded: {first}") from error
    if session.get_providers()[0] != provider:  # the runtime falls back to the CPU without a word
        raise WorkerFailure("DeviceUnavailable", f"the model would not run on {options.device}: no such device or driver here")
    return session


def _input(session: ort.InferenceSession, name: str) -> Any:
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] not in (3, "channels") or not session.get_outputs():
        raise WorkerFailure("UnsupportedModel", f"{name} does not take one batch of images [batch, 3, height, width]")
    if inputs[0].type not in _PRECISIONS:
        raise WorkerFailure("UnsupportedModel", f"{name} takes {inputs[0].type}; float32 and float16 are served")
    if isinstance(inputs[0].shape[0], int):
        raise WorkerFailure("FixedBatch", f"the batch of {name} is fixed at {inputs[0].shape[0]}; {EXPORT_HINT}")
    return inputs[0]


class OnnxRuntimeEngine:
    """A model in ONNX Runtime."""

    def __init__(self, options: OnnxOptions) -> None:
        """Load and look at the model with one image.

        Raises:
            WorkerFailure: with the reason why it cannot be served.
        """
        content, sha256 = read_model(options.model, options.sha256)
        self._memory = self._open_memory(options.device)
        self._session = _session(content, options)
        source = _input(self._session, options.model.name)
        metadata = parse_metadata(self._session.get_modelmeta().custom_metadata_map)
        self._device = options.device
        self._input_name, self._output_name = source.name, self._session.get_outputs()[0].name
        precision, self._type = _PRECISIONS[source.type]
        task = choose_task(metadata, options.task)
        self._height, self._width = choose_size(metadata, tuple(source.shape), options.input_size)
        self._max_batch = options.max_batch
        self._planes = np.empty((3, self._height, self._width), np.uint8)
        self._buffer = self._new_buffer()
        head, names = self._look(metadata, options.model.name)
        self.info = EngineInfo(
            backend="OnnxRuntime", device=options.device, device_id=self._device_id(), sha256=sha256, task=task, names=names,
            height=self._height, width=self._width, precision=precision, head=head, pad_to_buckets=options.device != "cpu",
            runtime_version=f"onnxruntime {ort.__version__}",
        )  # fmt: skip

    @staticmethod
    def _open_memory(device: str) -> ProcessMemory | DeviceMemory | None:
        if device == "cpu":
            return ProcessMemory()
        try:
            return DeviceMemory()
        except Exception:  # no driver library, or one that refuses: then nothing is known about memory
            logger.warning("the device's memory cannot be read: install nvidia-ml-py, or state --memory-limit")
            return None

    def _device_id(self) -> str:
        return self._memory.device_id if isinstance(self._memory, DeviceMemory) else self._device

    def _new_buffer(self) -> npt.NDArray[Any]:
        return np.empty((self._max_batch, 3, self._height, self._width), self._type)

    def _look(self, metadata: Metadata, name: str) -> tuple[HeadKind, tuple[str, ...]]:
        """What the model answers to one grey image: exports do not write their output's shape."""
        grey = np.full((self._height, self._width, 3), 114, np.uint8)
        shape = self.run([grey]).shape
        classes = len(metadata.names) or (shape[1] - 4 if len(shape) == 3 and shape[2] != 6 else 0)
        kind = head_kind(shape, classes)
        if kind is None:
            raise WorkerFailure(
                "UnsupportedModel", f"the output of {name} is {list(shape)}: not a detection head for {classes} classes"
            )
        return kind, metadata.names or tuple(f"class {number}" for number in range(classes))

    def run(self, images: Sequence[Pixels], padded: int = 0) -> Outputs:
        """As `Engine.run`."""
        count = max(len(images), padded)
        batch = self._buffer[:count]
        for index, pixels in enumerate(images):
            cv2.split(pixels, list(self._planes))
            np.divide(self._planes, self._type(255), out=batch[index], casting="unsafe")
        batch[len(images) :] = 0
        try:
            output: Outputs = self._session.run([self._output_name], {self._input_name: batch})[0]
        except Exception as error:
            raise classify(error) or error from error
        if output.shape[0] != count:
            raise WorkerFailure("FixedBatch", f"the model answers {output.shape[0]} images when asked for {count}; {EXPORT_HINT}")
        return output[: len(images)]

    def memory(self) -> MemoryReading:
        """As `Engine.memory`."""
        return self._memory.read() if self._memory is not None else MemoryReading(None, None)

    def shrink(self) -> None:
        """As `Engine.shrink`: the arena gives whole free regions back after a run of one image."""
        self._buffer = self._new_buffer()
        options = ort.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", _SHRINK[self._device])
        self._buffer[:1] = 0
        self._session.run([self._output_name], {self._input_name: self._buffer[:1]}, options)
