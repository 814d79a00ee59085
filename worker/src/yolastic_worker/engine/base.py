"""What every engine gives, whatever runs beneath it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from yolastic_contract.state import Fit
from yolastic_worker.memory.probe import MemoryReading
from yolastic_worker.postprocess import HeadKind
from yolastic_worker.types import Pixels

Outputs = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What is loaded, and where it runs."""

    backend: str
    """OnnxRuntime or Simulated, as in a YoloRuntime."""
    device: str
    device_id: str
    """UUID of the physical device."""
    sha256: str
    """Of the bytes that were loaded; empty without a model."""
    task: str
    names: tuple[str, ...]
    """Class names by class number."""
    height: int
    """Input pixels."""
    width: int
    precision: str
    """FP32 or FP16: the type of the model's input."""
    head: HeadKind
    pad_to_buckets: bool = False
    """A new batch size costs on this device: only warm sizes are run."""
    simulated: str | None = None
    """What is simulated, in words; None on a real device."""
    runtime_version: str = ""


class Engine(Protocol):
    """One loaded model on one device. All calls come from one thread."""

    @property
    def info(self) -> EngineInfo:
        """What is loaded, and where it runs."""
        ...

    def run(self, images: Sequence[Pixels], padded: int = 0) -> Outputs:
        """Raw output, first axis `len(images)`, of letterboxed images uint8 [H, W, 3] RGB.

        The images come as separate slots so that gathering and conversion are one pass. `padded`: run as a batch of this size.
        The GIL is released while the device works; the images are not read after the call.

        Raises:
            OutOfDeviceMemory: the batch does not fit; a smaller one may.
            DeviceLost: nothing will run here any more.
            TransientFailure: the same batch may be run once more.
        """
        ...

    def plan(self) -> Fit | None:
        """Bytes at the peak of a batch as they are known before anything ran; None when they are not."""
        ...

    def memory(self) -> MemoryReading:
        """Peak since the last call, and the limit."""
        ...

    def shrink(self) -> None:
        """Give memory that only larger batches need back to the device; `memory` then tells what is left."""
        ...
