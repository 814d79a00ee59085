"""Memory of a process and of its host, read where Linux tells."""

from pathlib import Path

import numpy as np
import pytest

from yolastic_worker.memory.probe import ProcessMemory, host_limit_bytes, resident_bytes


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
