"""What the file does not tell: how much a process takes beside the planned block, by device and settings.

`bytes(b) = process + weights_factor * weights + workspace + growth * block(b) + io(b)`

Each figure was measured on other models or devices than the one at hand, and stands until a worker has measured its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Prior:
    """The terms beside the block, for one device and one set of session settings."""

    process_bytes: int
    """A worker with a runtime and nothing loaded; on a device its context and libraries there."""
    weights_factor: float
    """What loading makes of the weights: copies in the layout the kernels want."""
    workspace_bytes: int
    """Scratch memory of the kernels."""
    growth: float
    """g: what the runtime's arena takes, over the block."""
    source: str
    """Where the figures come from."""


PRIORS: Final[Mapping[tuple[str, bool], Prior]] = {
    ("cpu", False): Prior(
        120 * _MIB, 2.1, 0, 1.0,
        "resident memory of workers with their own settings: YOLOv8 n and s, YOLO11n, YOLO26n at batch 1 to 8 gave a growth of "
        "0.86 to 0.94, YOLOv8n in FP16 0.97, in INT8 0.87",
    ),
    ("cpu", True): Prior(
        120 * _MIB, 2.1, 0, 1.9,
        "the same with a memory pattern, ONNX Runtime's default: YOLOv8n and YOLO11n gave 1.8 and 1.9",
    ),
    ("cuda", False): Prior(
        500 * _MIB, 1.2, 32 * _MIB, 1.3,
        "published and derived figures, not measured here: context and libraries 345 to 574 MB, convolution workspace bounded at "
        "32 MiB, arena over block without pattern 1.3 on the CPU's same allocator",
    ),
    ("cuda", True): Prior(
        500 * _MIB, 1.2, 32 * _MIB, 2.6,
        "published figures, not measured here: memory pattern and doubling arena gave 2.6 (YOLOX-s: 128 MiB an image)",
    ),
}  # fmt: skip
"""By (device, with the runtime's default settings instead of the worker's)."""
