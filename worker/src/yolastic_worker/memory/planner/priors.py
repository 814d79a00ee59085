"""What the file does not tell: how much a process takes beside the planned block, by device and settings.

`bytes(b) = process + loading * weights + workspace + growth * block(b) + io(b)`

Each figure was measured on other models or devices than the one at hand, and stands until a worker has measured its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and where it comes from."""

    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Prior:
    """The terms beside the block, for one device and one set of session settings."""

    process: Figure
    """Bytes of a worker with a runtime and nothing loaded; on a device its context and libraries there."""
    loading: Figure
    """Times the weights: what loading makes of them, copies in the layout the kernels want."""
    workspace: Figure
    """Bytes of scratch memory for the kernels."""
    growth: Figure
    """g: times the block, what the runtime's arena takes for it."""


_CPU_PROCESS = Figure(125 * _MIB, "memory fits of four workers (YOLOv8 n and s, YOLO11n, YOLO26n) less their weights")
_CPU_LOADING = Figure(1.5, "the same four workers: 1 to 2")
_CPU_WORKSPACE = Figure(0, "part of the growth")
_CUDA_PROCESS = Figure(500 * _MIB, "published: 345 to 574 MB for small networks; by device, not measured here")
_CUDA_LOADING = Figure(1.2, "assumed; not measured here")
_CUDA_WORKSPACE = Figure(32 * _MIB, "ONNX Runtime's bound for a convolution without cudnn_conv_use_max_workspace")

PRIORS: Final[Mapping[tuple[str, bool], Prior]] = {
    ("cpu", False): Prior(
        _CPU_PROCESS, _CPU_LOADING, _CPU_WORKSPACE,
        Figure(1.15, "memory fits of the same four workers at batch 1 to 8: 0.94 to 1.15; the largest"),
    ),
    ("cpu", True): Prior(
        _CPU_PROCESS, _CPU_LOADING, _CPU_WORKSPACE,
        Figure(1.9, "resident memory of a session with a memory pattern, the runtime's default: YOLOv8n 1.9, YOLO11n 1.8"),
    ),
    ("cuda", False): Prior(
        _CUDA_PROCESS, _CUDA_LOADING, _CUDA_WORKSPACE,
        Figure(1.3, "the arena without a memory pattern, seen on the CPU's same allocator; not measured here on a device"),
    ),
    ("cuda", True): Prior(
        _CUDA_PROCESS, _CUDA_LOADING, _CUDA_WORKSPACE,
        Figure(2.6, "published: YOLOX-s grows by 128 MiB an image (pattern, doubling arena, exhaustive search)"),
    ),
}  # fmt: skip
"""By (device, with the runtime's default settings instead of the worker's)."""
