"""Sessions of ONNX Runtime: what each is told, and why; and that it says nothing but through exceptions."""

import contextlib
import io
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

# Before the import, which is when it is read: a server in a plant reports to nobody unless its owner says so.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# CUDA numbers devices by speed, the driver's library by slot: with one order for both, the memory that is read is the one in use.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
import onnxruntime as ort

from yolastic_worker.types import WorkerFailure

logger = logging.getLogger(__name__)

_FATAL: Final = 4
ort.set_default_logger_severity(_FATAL)  # what it logs it raises too, and the exception's text is what counts

PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Session options that differ from ONNX Runtime's defaults."""

    threads: int = 0
    """Of one run; 0: the runtime's own choice."""
    enable_mem_pattern: bool = False
    """A pattern of each shape's buffers wants one block beside the pieces of the first run: it doubles the arena (67 against 34
    MB an image for YOLOv8n), and its speed is the same."""
    spin_duration_us: int = 300
    """Idle threads of a run spin briefly, and (force_spinning_stop) not between runs: as fast as the default alone, a fifth
    faster where decoding or neighbours want the cores too (YOLO11n, 2 cores)."""
    device_initializers: bool = False
    """Weights outside the arena, so that no region of the arena stays for their sake when it shrinks: on a device."""
    fixed_batch: tuple[str, int] | None = None
    """(name of the batch axis, its size): a session for one batch size. Its shapes are constants: a third of a dynamic export's
    nodes go (YOLOv8n 256 to 175), with all that would run on the host between kernels, which a CUDA graph could not hold."""
    shared_weights: Mapping[str, Any] = field(default_factory=dict)
    """name -> OrtValue on the session's device that it uses instead of a copy of its own; they must outlive it."""

    def options(self) -> ort.SessionOptions:
        """As the runtime takes them."""
        options = ort.SessionOptions()
        options.enable_mem_pattern = self.enable_mem_pattern
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = self.threads
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(self.spin_duration_us))
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if self.device_initializers:
            options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        if self.fixed_batch is not None:
            options.add_free_dimension_override_by_name(*self.fixed_batch)
        for name, value in self.shared_weights.items():
            options.add_initializer(name, value)
        return options


@dataclass(frozen=True, slots=True)
class CudaSettings:
    """Options of the CUDA provider; the fields have its names. Together they take about a third of the memory of its defaults."""

    device_id: str = "0"
    """The first that the process may see; a node's plugin decides which that is."""
    arena_extend_strategy: str = "kSameAsRequested"
    """The arena grows by what is asked for. The default doubles it: up to half of it is then never used."""
    cudnn_conv_algo_search: str = "HEURISTIC"
    """The default, EXHAUSTIVE, tries every algorithm with its own scratch memory for every new shape: 0.3 to 1.3 s and
    gigabytes for each batch size; the heuristic takes milliseconds and is as fast in steady state."""
    cudnn_conv_use_max_workspace: str = "0"
    """The default lets a convolution take any workspace, rounded up by the arena and then kept."""
    enable_cuda_graph: str = "0"
    """One launch for a whole run. Only for sessions of one batch size whose input and output stay where they are."""
    gpu_mem_limit: str | None = None
    """The arena's bound, bytes. Context and libraries come on top, so it is a guard beside the measured fit, not the budget
    itself."""

    def options(self) -> dict[str, str]:
        """As the provider takes them."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in told.items() if value is not None}


def open_session(
    content: bytes, name: str, device: str, settings: SessionSettings, cuda: CudaSettings | None = None
) -> ort.InferenceSession:
    """A session on the device that is asked for, and on no other.

    Raises:
        WorkerFailure: DeviceUnavailable; UnsupportedModel, when the model `name` cannot be loaded.
    """
    provider = PROVIDERS[device]
    if provider not in ort.get_available_providers():
        raise WorkerFailure("DeviceUnavailable", f"this installation of ONNX Runtime has no {device} support")
    chosen: list[Any] = [provider]
    if device == "cuda":
        _load_libraries()
        chosen = [(provider, (cuda or CudaSettings()).options())]
    try:
        # Without the fallback, which would print a banner and go on without the device.
        session = ort.InferenceSession(content, settings.options(), providers=chosen, enable_fallback=False)
    except Exception as error:
        first = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        if device == "cuda" and any(word in str(error) for word in ("CUDA failure", "CUDNN failure", "CUBLAS failure")):
            raise WorkerFailure("DeviceUnavailable", f"the device does not take the model: {first}") from error
        raise WorkerFailure("UnsupportedModel", f"{name} cannot be loaded: {first}") from error
    if session.get_providers()[0] != provider:  # the runtime falls back to the CPU without a word
        raise WorkerFailure("DeviceUnavailable", f"the model would not run on {device}: no such device or driver here")
    session._model_bytes = None  # the wrapper keeps the file for its fallback; the weights are in the session
    return session


def _load_libraries() -> None:
    """CUDA's and cuDNN's, from their packages; it prints what it lacks, and the session's failure says so better."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        ort.preload_dlls()
    if printed.getvalue():
        logger.debug("preload: %s", " ".join(printed.getvalue().split()))
