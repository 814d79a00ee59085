"""What batches really took: the process's own memory on the CPU, the driver's word on a device."""

import contextlib
import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_RESET_PEAK = "5"  # proc(5), clear_refs: reset the peak resident set size
_UNLIMITED_BYTES = 1 << 60


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """Memory of the device, bytes."""

    peak_bytes: int | None
    """The most this process used since the last reading; None when the device cannot be asked."""
    limit_bytes: int | None
    """What the device has for this process."""


def _status_kib(field: str) -> int | None:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    return None


def resident_bytes() -> int:
    """Bytes of this process in memory now; 0 where the system does not tell."""
    return (_status_kib("VmRSS:") or 0) * 1024


def host_limit_bytes(cgroup: Path = Path("/sys/fs/cgroup"), meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """The smaller of the control group's memory limit and the host's memory; None when neither can be read."""
    found = []
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (cgroup / name).read_text("ascii").strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < _UNLIMITED_BYTES:
            found.append(int(text))
    try:
        lines = meminfo.read_text("ascii").splitlines()
    except OSError:
        lines = []
    found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")]
    return min(found, default=None)


def trim_heap() -> None:
    """Give what was freed back to the system (malloc_trim(3)); the C library keeps it otherwise. Only glibc can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class ProcessMemory:
    """Memory of this process on the host: what a batch takes on the CPU, the runtime's arena included."""

    def __init__(self) -> None:
        self._limit_bytes = host_limit_bytes()

    def read(self) -> MemoryReading:
        """Peak resident set since the last call."""
        try:
            peak_kib = _status_kib("VmHWM:")
            Path("/proc/self/clear_refs").write_text(_RESET_PEAK, "ascii")
        except OSError:
            return MemoryReading(resident_bytes() or None, self._limit_bytes)
        return MemoryReading(None if peak_kib is None else peak_kib * 1024, self._limit_bytes)


class DeviceMemory:
    """Memory of this process on an NVIDIA device, by the driver (NVML).

    The arena keeps what a batch took, so what is used after a batch is its peak.
    """

    def __init__(self) -> None:
        """Raises ImportError or an NVMLError where there is no driver to ask."""
        import pynvml  # noqa: PLC0415 - only where there is an NVIDIA device

        self._nvml: Any = pynvml
        pynvml.nvmlInit()
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
        by_uuid = chosen.startswith(("GPU-", "MIG-"))
        self._handle = (
            pynvml.nvmlDeviceGetHandleByUUID(chosen) if by_uuid else pynvml.nvmlDeviceGetHandleByIndex(int(chosen or "0"))
        )
        uuid = pynvml.nvmlDeviceGetUUID(self._handle)
        self.device_id: str = uuid.decode() if isinstance(uuid, bytes) else uuid
        self._before_bytes = int(pynvml.nvmlDeviceGetMemoryInfo(self._handle).used)

    def read(self) -> MemoryReading:
        """What this process uses now; where the driver does not know its number (containers), what was added since the start."""
        info = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
        own = [
            process.usedGpuMemory
            for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
            if process.pid == os.getpid() and process.usedGpuMemory
        ]
        return MemoryReading(int(own[0]) if own else max(0, int(info.used) - self._before_bytes), int(info.total))


def device_memory() -> "tuple[DeviceMemory | None, str]":
    """The device's memory, or None and why it cannot be read. To be opened before the first session, which takes memory."""
    try:
        return DeviceMemory(), ""
    except ImportError:
        return None, "install nvidia-ml-py"
    except Exception as error:  # the library is there, the driver is not, or does not know the device
        return None, f"the driver does not tell ({error})"
