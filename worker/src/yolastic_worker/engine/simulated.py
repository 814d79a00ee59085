"""An accelerator that is not there: takes `fixed + per_image * batch` of time and memory. For benchmarks, tests and planning.

Never chosen by itself, and said wherever its figures appear. With a model the answers are the model's own (ONNX Runtime on the
CPU), given at the simulated pace; without one every image gets the same box.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

import numpy as np

from yolastic_contract.state import Fit
from yolastic_worker.engine.base import Engine, EngineInfo, Outputs
from yolastic_worker.engine.errors import classify
from yolastic_worker.memory.probe import MemoryReading
from yolastic_worker.postprocess import HeadKind
from yolastic_worker.types import Pixels, WorkerFailure

_MIB = 2**20
_WAKES_LATE_S = 0.0002
_NO_MEMORY: Final = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. "
    "Name:'/model.0/conv/Conv' Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 "
    "void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*, bool, "
    "onnxruntime::WaitNotificationFn) Failed to allocate memory for requested buffer of size {bytes}"
)
"""ONNX Runtime's own words: what is simulated fails as the real thing does."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """Pace and memory of the accelerator that is played."""

    fixed_ms: float = 20.0
    per_image_ms: float = 1.0
    memory_fixed_mib: float = 600.0
    memory_per_image_mib: float = 60.0
    memory_limit_mib: float = 4096.0
    device: str = "GPU-0"
    memory_limit_file: str = ""
    """A file with the limit in MiB, read before every batch while it exists: memory that another process takes and gives back."""
    faults: str = ""
    """A file of error texts, one a line. Each fails one batch and is taken off the file: a device that breaks. To be replaced by
    renaming another file over it, since the engine may be reading."""

    def seconds(self, images: int) -> float:
        """Time of a batch."""
        return (self.fixed_ms + self.per_image_ms * images) / 1e3

    def limit_bytes(self) -> int:
        """What the device has at the moment."""
        limit_mib = self.memory_limit_mib
        if self.memory_limit_file:
            try:
                limit_mib = float(Path(self.memory_limit_file).read_text("ascii"))
            except (OSError, ValueError):  # not there (yet), or not wholly written
                limit_mib = self.memory_limit_mib
        return int(limit_mib * _MIB)

    def next_fault(self) -> str | None:
        """The next error text, taken off its file; None when there is none."""
        if not self.faults:
            return None
        path = Path(self.faults)
        try:
            lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
            if lines:
                path.write_text("".join(f"{line}\n" for line in lines[1:]), "utf-8")
        except OSError:
            return None
        return lines[0] if lines else None

    def memory_bytes(self, images: int) -> int:
        """Memory at the peak of a batch."""
        return int((self.memory_fixed_mib + self.memory_per_image_mib * images) * _MIB)


_WORDS: Final = ("device", "memory_limit_file", "faults")


def parse_simulation(text: str) -> Simulation:
    """`fixed_ms=20,per_image_ms=1,…`; what is left out has its default.

    Raises:
        WorkerFailure: BadConfiguration.
    """
    known = {field.name for field in fields(Simulation)}
    values: dict[str, float | str] = {}
    for part in filter(None, text.split(",")):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in known or not value:
            raise WorkerFailure("BadConfiguration", f"--simulate: {part!r} is not one of {', '.join(sorted(known))} with a value")
        try:
            values[key] = value if key in _WORDS else float(value)
        except ValueError as error:
            raise WorkerFailure("BadConfiguration", f"--simulate: {value!r} is not a number") from error
    if any(isinstance(value, float) and not 0 <= value < 1e9 for value in values.values()):
        raise WorkerFailure("BadConfiguration", "--simulate: a number is negative or too large")
    return replace(Simulation(), **values)  # type: ignore[arg-type]


def _sleep_until(end_s: float) -> None:
    """Sleep until `perf_counter` shows `end_s`: all but the end in one go, since the system wakes a sleeper late."""
    left_s = end_s - time.perf_counter() - _WAKES_LATE_S
    if left_s > 0:
        time.sleep(left_s)
    while time.perf_counter() < end_s:
        time.sleep(0)


class SimulatedEngine:
    """Plays an accelerator; `model` gives the answers, None: one fixed box in the middle of every image."""

    def __init__(self, simulation: Simulation, model: Engine | None = None, input_size: tuple[int, int] | None = None) -> None:
        self._simulation = simulation
        self._model = model
        self._held = 0
        own = f"fixed {simulation.fixed_ms:g} ms + {simulation.per_image_ms:g} ms an image"
        if model is not None:
            base = model.info
            words = f"simulated accelerator: {own}; the answers are the model's own, computed on the CPU"
        else:
            height, width = input_size or (640, 640)
            base = EngineInfo(
                backend="Simulated", device="simulated", device_id="", sha256="", task="Detect", names=("object",), height=height,
                width=width, precision="FP32", head=HeadKind.END_TO_END,
            )  # fmt: skip
            words = f"simulated accelerator: {own}; every image gets one fixed box"
        self.info = replace(
            base, backend="Simulated", device="simulated", device_id=simulation.device, simulated=words, pad_to_buckets=False
        )
        left, top = self.info.width * 0.25, self.info.height * 0.25
        self._box = np.array([[left, top, 3 * left, 3 * top, 0.9, 0.0]], np.float32)

    def run(self, images: Sequence[Pixels], padded: int = 0) -> Outputs:
        """As `Engine.run`; the GIL is free while it sleeps until the simulated end."""
        start_s = time.perf_counter()
        count = max(len(images), padded)
        self._fail(count)
        self._held = max(self._held, count)
        if self._model is not None:
            output = self._model.run(images)
        else:
            output = np.broadcast_to(self._box, (len(images), *self._box.shape))
        _sleep_until(start_s + self._simulation.seconds(count))
        return output

    def _fail(self, count: int) -> None:
        """As a real device would, in its words."""
        fault = self._simulation.next_fault()
        needed_bytes = self._simulation.memory_bytes(count)
        if fault is None and needed_bytes > self._simulation.limit_bytes():
            fault = _NO_MEMORY.format(bytes=needed_bytes)
        if fault is not None:
            error = RuntimeError(fault)
            raise classify(error) or error from error

    def plan(self) -> Fit | None:
        """As `Engine.plan`: what it plays is known."""
        simulation = self._simulation
        return Fit(fixed=simulation.memory_fixed_mib * _MIB, per_image=simulation.memory_per_image_mib * _MIB)

    def memory(self) -> MemoryReading:
        """As `Engine.memory`: its own numbers. Like an arena it holds what its largest batch took."""
        return MemoryReading(self._simulation.memory_bytes(self._held), self._simulation.limit_bytes())

    def shrink(self) -> None:
        """As `Engine.shrink`."""
        self._held = 0
        if self._model is not None:
            self._model.shrink()
