"""What a runtime's error text means: out of memory, a lost device, something that passes, or none of these.

ONNX Runtime has no exception types for them (microsoft/onnxruntime#16307), only texts. The real ones this was written from, each
with the class it must have, are in tests/worker/engine/corpus.
"""

import re

from yolastic_worker.types import DeviceLost, OutOfDeviceMemory, TransientFailure

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
_TRANSIENT = re.compile(
    r"CUDA failure (?:600|900|901|906):|operation not permitted when stream is capturing|temporarily unavailable|timed out",
    re.IGNORECASE,
)


def classify(error: BaseException) -> OutOfDeviceMemory | DeviceLost | TransientFailure | None:
    """The exception to raise instead of a runtime's error; None when it is about this batch or this model.

    OutOfDeviceMemory: a smaller batch may fit. DeviceLost: nothing will run here any more. TransientFailure: the same batch
    may be run once more. When a text could mean several, the graver one counts.
    """
    text = str(error)
    if _DEVICE_LOST.search(text):
        return DeviceLost("the device failed and will not answer again in this process")
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
        return OutOfDeviceMemory("the device has no memory for this batch")
    if _TRANSIENT.search(text):
        return TransientFailure("the batch failed for a reason that passes")
    return None
