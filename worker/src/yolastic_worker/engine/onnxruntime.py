"""ONNX Runtime on the CPU or on CUDA: one code, other provider options."""

import hashlib
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from yolastic_contract.names import buckets_up_to
from yolastic_contract.state import Fit
from yolastic_worker.engine.agreement import Canary, observe, probe_images
from yolastic_worker.engine.base import EngineInfo, Outputs
from yolastic_worker.engine.errors import classify
from yolastic_worker.engine.feeds import BoundRunner, Feed, PixelsFeed, PlainRunner, PlanesFeed
from yolastic_worker.engine.metadata import EXPORT_HINT, Metadata, choose_size, choose_task, parse_metadata
from yolastic_worker.engine.onnx_file import NotPlainOnnx, check_plain_onnx
from yolastic_worker.engine.pixel_input import BATCH, with_pixel_input
from yolastic_worker.engine.session import CudaSettings, SessionSettings, open_session
from yolastic_worker.engine.weights import convolution_weights
from yolastic_worker.memory.planner import NotPlannable, plan_in_child
from yolastic_worker.memory.probe import DeviceMemory, MemoryReading, ProcessMemory, device_memory, trim_heap
from yolastic_worker.postprocess import HeadKind, head_kind
from yolastic_worker.types import DeviceLost, Pixels, WorkerFailure

logger = logging.getLogger(__name__)

_PRECISIONS: Final[dict[str, tuple[str, Any]]] = {"tensor(float)": ("FP32", np.float32), "tensor(float16)": ("FP16", np.float16)}
_GRAPH_RUNS: Final = 3
"""The first run of a CUDA graph is plain, the second is recorded, the third replays."""


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
    memory_limit_bytes: int | None = None
    """Bound of the arena on a device; None: none."""
    pixel_input: bool | None = None
    """Give the model uint8 pixels and normalise them inside the graph. None: where it pays, on a device."""
    bound: bool | None = None
    """Keep input and output of each batch size on the device. None: on a device."""
    fixed_up_to: int = 0
    """Batch sizes up to this have a session of their own with constant shapes, on CUDA as a CUDA graph: for the launch cost of
    small batches. They share their weights, but not an arena: a recorded graph writes where it wrote when it was recorded. So the
    bound of the arena holds for each, and they are given up when memory must be given back."""
    planned: bool = False
    """Plan the memory from the file, in a process beside the loading."""


def read_model(path: Path, sha256: str | None) -> tuple[bytes, str]:
    """(content, sha256) of a model file: read once, so that what is checked is what is loaded.

    Raises:
        WorkerFailure: ModelNotFound, ModelUnreadable, ChecksumMismatch, UnsupportedModel.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise WorkerFailure("ModelNotFound", f"there is no model {path}") from error
    except IsADirectoryError as error:
        raise WorkerFailure("ModelNotFound", f"the model {path} is a directory, and must be an ONNX file") from error
    except OSError as error:
        raise WorkerFailure("ModelUnreadable", f"the model {path} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256.lower():
        raise WorkerFailure("ChecksumMismatch", f"the model's sha256 is {digest}, not {sha256}")
    try:
        check_plain_onnx(content)
    except NotPlainOnnx as error:
        raise WorkerFailure("UnsupportedModel", f"{path.name} cannot be served: {error}") from error
    return content, digest


def _input(session: ort.InferenceSession, name: str) -> Any:
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] not in (3, "channels") or not session.get_outputs():
        raise WorkerFailure("UnsupportedModel", f"{name} does not take one batch of images [batch, 3, height, width]")
    if inputs[0].type not in _PRECISIONS:
        raise WorkerFailure("UnsupportedModel", f"{name} takes {inputs[0].type}; float32 and float16 are served")
    if isinstance(inputs[0].shape[0], int):
        raise WorkerFailure("FixedBatch", f"the batch of {name} is fixed at {inputs[0].shape[0]}; {EXPORT_HINT}")
    return inputs[0]


class PlanAhead:
    """The plan of a model, made while it is loaded."""

    def __init__(self, content: bytes, options: OnnxOptions) -> None:
        self._fit: Fit | None = None
        self._thread = threading.Thread(target=self._plan, args=(content, options), name="plan", daemon=True)
        self._thread.start()

    def _plan(self, content: bytes, options: OnnxOptions) -> None:
        try:
            made = plan_in_child(content, device=options.device, input_size=options.input_size, max_batch=options.max_batch)
        except NotPlannable as reason:
            logger.info("memory is not planned: %s", reason)
        else:
            self._fit = made.fit

    def result(self) -> Fit | None:
        """Bytes at the peak of a batch; waits for it."""
        self._thread.join()
        return self._fit


class OnnxRuntimeEngine:
    """A model in ONNX Runtime."""

    def __init__(self, options: OnnxOptions) -> None:
        """Load, look at the model with one image, and choose the way it is run; each way must answer as the file as it is.

        Raises:
            WorkerFailure: with the reason why it cannot be served.
        """
        self._options = options
        self._on_device = options.device != "cpu"
        content, sha256 = read_model(options.model, options.sha256)
        self._planning = PlanAhead(content, options) if options.planned else None
        self._memory: ProcessMemory | DeviceMemory | None
        self._memory, unread = device_memory() if self._on_device else (ProcessMemory(), "")
        session = self._open(content)
        if unread:
            logger.warning("the device's memory cannot be read: %s; or state --memory-limit", unread)
        source = _input(session, options.model.name)
        metadata = parse_metadata(session.get_modelmeta().custom_metadata_map)
        precision, self._type = _PRECISIONS[source.type]
        task = choose_task(metadata, options.task)
        self._height, self._width = choose_size(metadata, tuple(source.shape), options.input_size)
        self._pixels_in_graph = False
        self._feed: Feed = self._new_feed()
        self._runner = PlainRunner(session)
        self._fixed: dict[int, PlainRunner] = {}
        self._shared: dict[str, Any] = {}
        head, names = self._look(metadata, options.model.name)
        self.info = EngineInfo(
            backend="OnnxRuntime", device=options.device, sha256=sha256, task=task, names=names, height=self._height,
            device_id=self._memory.device_id if isinstance(self._memory, DeviceMemory) else options.device, width=self._width,
            precision=precision, head=head, pad_to_buckets=self._on_device, runtime_version=f"onnxruntime {ort.__version__}",
        )  # fmt: skip
        self._choose_way(content, source)

    def _open(self, content: bytes, fixed_batch: tuple[str, int] | None = None) -> ort.InferenceSession:
        options = self._options
        settings = SessionSettings(
            threads=options.threads, device_initializers=self._on_device, fixed_batch=fixed_batch,
            shared_weights={} if fixed_batch is None else self._shared,
        )  # fmt: skip
        limit_bytes = options.memory_limit_bytes
        cuda = CudaSettings(
            enable_cuda_graph="0" if fixed_batch is None else "1", gpu_mem_limit=None if limit_bytes is None else str(limit_bytes)
        )
        return open_session(content, options.model.name, options.device, settings, cuda)

    def _new_feed(self) -> Feed:
        if self._pixels_in_graph:
            return PixelsFeed(self._options.max_batch, self._height, self._width)
        return PlanesFeed(self._options.max_batch, self._height, self._width, self._type)

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

    # --- the way the model is run; what does not answer as the plain way is not used

    def _choose_way(self, content: bytes, source: Any) -> None:
        options = self._options
        pixel_input = self._on_device if options.pixel_input is None else options.pixel_input
        bound = self._on_device if options.bound is None else options.bound
        if not (pixel_input or bound or options.fixed_up_to):
            return
        images = probe_images(self._height, self._width)
        answer = self.run(images[:1])
        wanted = [observe(image, self.run([image])[0], self.info.head) for image in images]
        batch_axis = source.shape[0]
        if pixel_input:
            changed = with_pixel_input(content, source.name, self._type, self._height, self._width)
            if self._use(lambda: PlainRunner(self._open(changed)), wanted, "pixels are normalised on the host", in_graph=True):
                content, batch_axis = changed, BATCH
        if bound:
            runner = self._runner
            self._use(
                lambda: BoundRunner(runner.session, options.device, answer),
                wanted,
                "input and output are not bound to the device",
            )
        if options.fixed_up_to and isinstance(batch_axis, str):
            self._open_fixed(content, batch_axis, answer, wanted)

    def _use(self, make: Any, wanted: Sequence[Canary], otherwise: str, *, in_graph: bool | None = None) -> bool:
        """Run the model this way from now on if its answers agree; False, with the reason in the log, if not."""
        before = self._runner, self._pixels_in_graph, self._feed
        try:
            self._runner = make()
            if in_graph is not None:
                self._pixels_in_graph = in_graph
                self._feed = self._new_feed()
            reason = self._wrong(wanted)
        except DeviceLost:
            raise
        except Exception as error:
            reason = _first_line(error)
        if reason is not None:
            logger.warning("%s: %s", otherwise, reason)
            self._runner, self._pixels_in_graph, self._feed = before
        return reason is None

    def _wrong(self, wanted: Sequence[Canary], count: int | None = None) -> str | None:
        """Why the answers to known images, together in batches of `count`, are not those that are wanted."""
        together = count or min(len(wanted), self._options.max_batch)
        for first in range(0, len(wanted), together):
            asked = [wanted[(first + index) % len(wanted)] for index in range(together)]
            outputs = self.run([canary.pixels for canary in asked])
            for canary, output in zip(asked, outputs, strict=True):
                if (reason := canary.differs(output, self.info.head)) is not None:
                    return reason
        return None

    def _open_fixed(self, content: bytes, batch_axis: str, answer: Outputs, wanted: Sequence[Canary]) -> None:
        """A session for each small batch size: smallest first, until one does not work."""
        device = self._options.device
        for count in buckets_up_to(min(self._options.fixed_up_to, self._options.max_batch)):
            try:
                if not self._shared:
                    weights = convolution_weights(content).items()
                    self._shared = {name: ort.OrtValue.ortvalue_from_numpy(values, device, 0) for name, values in weights}
                self._fixed[count] = BoundRunner(self._open(content, (batch_axis, count)), device, answer, graph_id=count)
                reasons = [self._wrong(wanted, count) for _ in range(_GRAPH_RUNS)]
            except DeviceLost:
                raise
            except Exception as error:
                reasons = [_first_line(error)]
            if any(reasons):
                self._fixed.pop(count, None)
                logger.warning("batches of %d have no session of their own: %s", count, next(filter(None, reasons)))
                return

    # --- as Engine

    def run(self, images: Sequence[Pixels], padded: int = 0) -> Outputs:
        """As `Engine.run`."""
        count = max(len(images), padded)
        batch = self._feed.fill(images, count)
        try:
            output = self._fixed.get(count, self._runner).run(batch)
        except Exception as error:
            raise classify(error) or error from error
        if output.shape[0] != count:
            raise WorkerFailure("FixedBatch", f"the model answers {output.shape[0]} images when asked for {count}; {EXPORT_HINT}")
        return output[: len(images)]

    def plan(self) -> Fit | None:
        """As `Engine.plan`: from the file."""
        return self._planning.result() if self._planning is not None else None

    def memory(self) -> MemoryReading:
        """As `Engine.memory`."""
        return self._memory.read() if self._memory is not None else MemoryReading(None, None)

    def shrink(self) -> None:
        """As `Engine.shrink`: the arena gives whole free regions back after a run of one image."""
        if self._fixed:
            logger.info("sessions for batches of %s are given up with their memory", ", ".join(map(str, self._fixed)))
            self._fixed.clear()
            self._shared.clear()
        self._feed = self._new_feed()
        try:
            self._runner.shrink(self._feed.fill([], 1), self._options.device)
        except Exception as error:
            raise classify(error) or error from error
        trim_heap()
        self.memory()  # the peak begins anew: what was given back is no longer told


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
