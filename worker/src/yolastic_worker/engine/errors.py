"""What a runtime's error text means: out of memory, a lost device, something that passes, or none of these.

ONNX Runtime has no exception types for them (microsoft/onnxruntime#16307), only texts. Those this was written from, each with
the class it must have, are in tests/worker/engine/corpus. A file there says where its text is from: recorded from a run or an
issue, or put together from the format string in ONNX Runtime's source and CUDA's name of the error, where no record was found.
"""

import re
from typing import Final

from yolastic_worker.types import DeviceLost, OutOfDeviceMemory, TransientFailure

_OUT_OF_MEMORY: Final = re.compile(
    r"out of memory|BFCArena::AllocateRawInternal|Failed to allocate memory|is smaller than requested bytes|CUDA failure 2:"
    r"|CU(?:DNN|BLAS)_STATUS_(?:\w+_)?ALLOC(?:ATION)?_FAILED|bad_alloc|bad allocation",
    re.IGNORECASE,
)
_DEVICE_LOST: Final = re.compile(
    # cudaError: 3 initialization, 4 driver shutting down, 46 unavailable, 1xx no such device, 2xx ECC and NVLink, 304 the system,
    # 7xx what ends a context, 999 unknown; 77 is 700 before CUDA 10.1
    r"CUDA failure (?:3|4|46|77|100|101|214|219|220|226|304|700|702|709|710|714|715|716|717|718|719|721|999):"
    r"|illegal memory access|unspecified launch failure|misaligned address|device-side assert|uncorrectable (?:NVLink|ECC)"
    r"|no CUDA-capable device|GPU is lost|fallen off the bus"
    # Handles that cannot be made fail every batch: it is in no image.
    r"|CU(?:DNN|BLAS)_STATUS_(?:EXECUTION_FAILED|NOT_INITIALIZED|MAPPING_ERROR)",
    re.IGNORECASE,
)
_TRANSIENT: Final = re.compile(
    # cudaError: 600 not ready, 802 system not yet initialized, 900-908 something else while a graph was being captured
    r"CUDA failure (?:600|802|90[0-8]):|when stream is capturing|temporarily unavailable|Interrupted system call",
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
