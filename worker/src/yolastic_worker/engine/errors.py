"""What a runtime's error text means: out of memory, a lost device, or neither. ONNX Runtime has no types for these."""

import re

from yolastic_worker.types import DeviceLost, OutOfDeviceMemory

_OUT_OF_MEMORY = re.compile(
    r"out of memory|Failed to allocate memory|BFCArena::AllocateRawInternal|CUDA failure 2:|CUDNN_STATUS_ALLOC_FAILED"
    r"|CUBLAS_STATUS_ALLOC_FAILED|bad_alloc|bad allocation",
    re.IGNORECASE,
)
_DEVICE_LOST = re.compile(
    r"CUDA failure (?:46|100|101|214|219|220|226|700|702|709|710|714|715|716|717|718|719|721|999):"
    r"|illegal memory access|unspecified launch failure|misaligned address|device-side assert|uncorrectable (?:NVLink|ECC)"
    r"|no CUDA-capable device|GPU is lost|fallen off the bus|CUDNN_STATUS_EXECUTION_FAILED",
    re.IGNORECASE,
)


def classify(error: BaseException) -> Exception | None:
    """`DeviceLost` or `OutOfDeviceMemory` for a runtime's error; None when it is neither."""
    text = str(error)
    if _DEVICE_LOST.search(text):
        return DeviceLost("the device failed and will not answer again in this process")
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
        return OutOfDeviceMemory("the device has no memory for this batch")
    return None
