"""What ONNX Runtime is told (decisions §3), and that a session runs on the device that was asked for or not at all."""

from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from yolastic_worker.engine.session import CudaSettings, SessionSettings, open_session
from yolastic_worker.types import WorkerFailure

CONTENT = (Path(__file__).parents[1] / "data/dynamic.onnx").read_bytes()


def test_a_device_is_told_to_take_no_more_memory_than_it_needs() -> None:
    assert CudaSettings().options() == {
        "device_id": "0",
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "cudnn_conv_use_max_workspace": "0",
        "enable_cuda_graph": "0",
    }
    assert CudaSettings(gpu_mem_limit="4096").options()["gpu_mem_limit"] == "4096"


def test_a_session_keeps_no_memory_pattern_and_spins_briefly() -> None:
    options = SessionSettings(threads=3, device_initializers=True).options()
    assert (options.enable_mem_pattern, options.intra_op_num_threads) == (False, 3)
    entries = {
        "session.intra_op.spin_duration_us": "300",
        "session.force_spinning_stop": "1",
        "session.use_device_allocator_for_initializers": "1",
    }
    assert {name: options.get_session_config_entry(name) for name in entries} == entries


class Silent(ort.InferenceSession):
    """Asked for CUDA it runs on the CPU, and says nothing: as ONNX Runtime does where the driver is missing."""

    def __init__(self, content: bytes, options: Any, providers: Any, enable_fallback: bool) -> None:
        assert providers == [("CUDAExecutionProvider", CudaSettings().options())]
        super().__init__(content, options, providers=["CPUExecutionProvider"])


def test_a_session_that_silently_runs_on_the_cpu_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    monkeypatch.setattr(ort, "InferenceSession", Silent)
    with pytest.raises(WorkerFailure, match="would not run on cuda") as caught:
        open_session(CONTENT, "m.onnx", "cuda", SessionSettings())
    assert caught.value.reason == "DeviceUnavailable"
