"""Real error texts of ONNX Runtime and CUDA, and what they mean."""

import pytest

from yolastic_worker.engine.errors import classify
from yolastic_worker.types import DeviceLost, OutOfDeviceMemory


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            RuntimeError(
                "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. "
                "bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) "
                "Failed to allocate memory for requested buffer of size 419430400"
            ),
            OutOfDeviceMemory,
        ),
        (
            RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; hostname=a ; expr=cudaMalloc((void**)&p, size);"),
            OutOfDeviceMemory,
        ),
        (RuntimeError("CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0"), OutOfDeviceMemory),
        (RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"), OutOfDeviceMemory),
        (RuntimeError("std::bad_alloc"), OutOfDeviceMemory),
        (MemoryError(), OutOfDeviceMemory),
        (RuntimeError("CUDA failure 700: an illegal memory access was encountered ; GPU=0"), DeviceLost),
        (RuntimeError("CUDA failure 719: unspecified launch failure ; GPU=0"), DeviceLost),
        (RuntimeError("CUDA failure 214: uncorrectable ECC error encountered"), DeviceLost),
        (RuntimeError("CUDA failure 100: no CUDA-capable device is detected"), DeviceLost),
        (RuntimeError("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: images"), None),
        (ValueError("something else, of size 700"), None),
    ],
)
def test_classify(error: Exception, kind: type[Exception] | None) -> None:
    found = classify(error)
    assert (type(found) if found is not None else None) is kind
