"""Memory of a process and of its host, read where Linux tells."""

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from yolastic_worker.memory.probe import MemoryReading, ProcessMemory, device_memory, host_limit_bytes, resident_bytes


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("memory.max", "max", 8 * 2**30),
        ("memory.max", str(2**30), 2**30),
        ("memory.max", str(2**40), 8 * 2**30),
        ("memory/memory.limit_in_bytes", str(2**31), 2**31),
        ("memory/memory.limit_in_bytes", str(2**63 - 4096), 8 * 2**30),
        ("unrelated", "1", 8 * 2**30),
    ],
)
def test_limit(tmp_path: Path, name: str, text: str, expected: int) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:        8388608 kB\nMemFree: 1 kB\n")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert host_limit_bytes(tmp_path, meminfo) == expected


def test_nothing_to_read(tmp_path: Path) -> None:
    assert host_limit_bytes(tmp_path, tmp_path / "none") is None


def test_peak_is_since_the_last_reading() -> None:
    memory = ProcessMemory()
    memory.read()
    block = np.ones(64 * 2**20, np.uint8)
    size = block.nbytes
    del block
    high = memory.read().peak_bytes
    low = memory.read().peak_bytes
    assert high is not None
    assert low is not None
    assert high - low > size * 0.9
    assert abs(low - resident_bytes()) < size / 2


class _Nvml(ModuleType):
    """The driver's library as Python sees it, with one device and two processes on it."""

    def __init__(self, *, driver: bool = True, own_bytes: int | None = None) -> None:
        super().__init__("pynvml")
        self.driver, self.own_bytes, self.used, self.asked = driver, own_bytes, 500, ""

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.driver:
            raise RuntimeError("NVML Shared Library Not Found")

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        self.asked = f"index {index}"
        return "handle"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        self.asked = f"uuid {uuid}"
        return "handle"

    def nvmlDeviceGetUUID(self, handle: str) -> bytes:  # noqa: N802
        assert handle == "handle"
        return b"GPU-1"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:  # noqa: N802
        assert handle == "handle"
        return SimpleNamespace(used=self.used, total=1000)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:  # noqa: N802
        assert handle == "handle"
        return [SimpleNamespace(pid=1, usedGpuMemory=500), SimpleNamespace(pid=os.getpid(), usedGpuMemory=self.own_bytes)]


@pytest.mark.parametrize(
    ("visible", "asked"),
    [(None, "index 0"), ("", "index 0"), ("1,0", "index 1"), ("GPU-1", "uuid GPU-1"), ("MIG-7,0", "uuid MIG-7")],
)
def test_the_driver_is_asked_about_the_device_in_use(monkeypatch: pytest.MonkeyPatch, visible: str | None, asked: str) -> None:
    nvml = _Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    memory, unread = device_memory()
    assert unread == ""
    assert memory is not None
    assert (nvml.asked, memory.device_id) == (asked, "GPU-1")


@pytest.mark.parametrize(("own_bytes", "expected"), [(300, 300), (None, 250)])
def test_the_driver_knows_the_process_or_at_least_what_was_added(
    monkeypatch: pytest.MonkeyPatch, own_bytes: int | None, expected: int
) -> None:
    """In a container the driver has no number for the process: then what was in use before it is taken off."""
    nvml = _Nvml(own_bytes=own_bytes)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    memory, _ = device_memory()
    assert memory is not None
    nvml.used = 750
    assert memory.read() == MemoryReading(expected, 1000)
    nvml.used = 100
    assert memory.read().peak_bytes == (own_bytes or 0)


def test_why_the_driver_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert device_memory() == (None, "install nvidia-ml-py")
    monkeypatch.setitem(sys.modules, "pynvml", _Nvml(driver=False))
    assert device_memory() == (None, "the driver does not tell (NVML Shared Library Not Found)")
