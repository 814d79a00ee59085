"""An accelerator that is not there: takes `fixed + per_image * batch` of time and memory. For benchmarks, tests and planning.

Never chosen by itself, and said wherever its figures appear. With a model the answers are the model's own (ONNX Runtime on the
CPU), given at the simulated pace; without one every image gets the same box.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from yolastic_worker.engine.base import Engine, EngineInfo, Outputs
from yolastic_worker.memory.probe import MemoryReading
from yolastic_worker.postprocess import HeadKind
from yolastic_worker.types import OutOfDeviceMemory, Pixels, WorkerFailure

_MIB = 2**20
_WAKES_LATE_S = 0.0002


@dataclass(frozen=True, slots=True)
class Simulation:
    """Pace and memory of the accelerator that is played."""

    fixed_ms: float = 20.0
    per_image_ms: float = 1.0
    memory_fixed_mib: float = 600.0
    memory_per_image_mib: float = 60.0
    memory_limit_mib: float = 4096.0
    device: str = "GPU-0"

    def seconds(self, images: int) -> float:
        """Time of a batch."""
        return (self.fixed_ms + self.per_image_ms * images) / 1e3

    def memory_bytes(self, images: int) -> int:
        """Memory at the peak of a batch."""
        return int((self.memory_fixed_mib + self.memory_per_image_mib * images) * _MIB)


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
            values[key] = value if key == "device" else float(value)
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
        self._largest = 0
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
        self._largest = max(self._largest, count)
        if self._simulation.memory_bytes(count) > self._simulation.memory_limit_mib * _MIB:
            raise OutOfDeviceMemory(f"the simulated device has no memory for a batch of {count}")
        if self._model is not None:
            output = self._model.run(images)
        else:
            output = np.broadcast_to(self._box, (len(images), *self._box.shape))
        _sleep_until(start_s + self._simulation.seconds(count))
        return output

    def memory(self) -> MemoryReading:
        """As `Engine.memory`: its own numbers."""
        largest, self._largest = self._largest, 0
        return MemoryReading(self._simulation.memory_bytes(largest), int(self._simulation.memory_limit_mib * _MIB))

    def shrink(self) -> None:
        """As `Engine.shrink`; only the model behind it has anything to give back."""
        if self._model is not None:
            self._model.shrink()
