"""One worker that strangers mean ill, a prober beside it, and what must be as before when they are done."""

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests/worker/data/dynamic.onnx"
LIMITS = (
    "--header-timeout-s", "2", "--body-timeout-s", "6", "--body-grace-s", "2", "--send-timeout-s", "3", "--idle-timeout-s", "4",
    "--max-connections", "64",
)  # fmt: skip
_GROWTH_BYTES = 48 * 2**20
"""What the allocators may keep after bombs of hundreds of MiB; a leak of only 200 KiB a request would pass it."""


def _integration() -> ModuleType:
    """The worker processes and probers of the integration tests."""
    name = "yolastic_tests_integration_kit"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tests/integration/conftest.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


kit = _integration()
module_worker = kit.module_worker
until = kit.until


@pytest.fixture(scope="session")
def picture() -> bytes:
    """A red PNG, of which the model knows four boxes."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:] = (0, 0, 204)
    encoded: bytes = cv2.imencode(".jpg", pixels)[1].tobytes()
    return encoded


@pytest.fixture(scope="module")
def worker(module_worker: Callable[..., Any]) -> Any:
    """A real worker whose answers are a model's own, with deadlines short enough to see them pass."""
    return module_worker("--model", MODEL, "--backend", "simulated", "--simulate", "fixed_ms=2,per_image_ms=0.2", *LIMITS)


@dataclass(frozen=True)
class Standing:
    """What must not grow."""

    rss_bytes: int
    descriptors: int
    threads: int


def standing(worker: Any) -> Standing:
    process = psutil.Process(worker.process.pid)
    return Standing(process.memory_info().rss, process.num_fds(), process.num_threads())


@pytest.fixture(scope="module", autouse=True)
def _unharmed(worker: Any, picture: bytes) -> Iterator[None]:
    """Around all tests of a module: a prober's good answers, then the same boxes, memory, descriptors and threads."""
    boxes = worker.predict(picture).json()["images"][0]["results"]
    assert len(boxes) == 4
    for _ in range(20):
        assert worker.predict(picture).status == 200
    before = standing(worker)
    with kit.Prober(worker.port, picture, period_s=0.02) as beside:
        beside.wait_answers(20)
        yield
        beside.wait_answers(20)
    good = beside.codes["200"] / beside.codes.total()
    assert good >= 0.999, (beside.codes, beside.failures[:5])
    assert worker.process.poll() is None
    assert worker.predict(picture).json()["images"][0]["results"] == boxes
    assert worker.control("GET", "/livez").status == 200
    assert "Traceback" not in worker.log()
    kit.wait_for(lambda: standing(worker).descriptors <= before.descriptors + 2, 20, lambda: str((before, standing(worker))))
    assert standing(worker).threads <= before.threads + 8  # pools that had never been full
    # A body goes with its request, which ends after its socket is closed.
    most = before.rss_bytes + _GROWTH_BYTES
    kit.wait_for(lambda: standing(worker).rss_bytes <= most, 20, lambda: str((before, standing(worker))))


@pytest.fixture(scope="session")
def answered() -> Callable[..., tuple[int, bytes, bool]]:
    return exchange


def exchange(port: int, *parts: bytes, patience_s: float = 5.0) -> tuple[int, bytes, bool]:
    """Send bytes as they are, each part in a packet of its own: how many answers came, all of them, and whether the worker
    closed the connection."""
    import socket

    received, closed, until_s = b"", False, time.monotonic() + patience_s
    with socket.create_connection(("127.0.0.1", port), patience_s) as raw_socket:
        try:
            for number, raw in enumerate(parts):
                time.sleep(0.1 if number else 0)  # until the worker has read the part before
                raw_socket.sendall(raw)
            raw_socket.settimeout(0.3)
            while time.monotonic() < until_s:
                try:
                    part = raw_socket.recv(65536)
                except TimeoutError:
                    if received:
                        break
                    continue
                if not part:
                    closed = True
                    break
                received += part
        except OSError:
            closed = True
    return received.count(b"HTTP/1.1 "), received, closed
