"""What every benchmark shares: a worker process on free ports, images, and rows of a table."""

import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SIMULATED = (
    "--backend", "simulated", "--simulate", "fixed_ms=20,per_image_ms=1,memory_limit_mib=65536", "--max-batch", "32",
    "--input-size", "320x320",
)  # fmt: skip
"""An accelerator that takes 20 ms + 1 ms an image."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: what was measured, what it should reach, and what it was."""

    figure: str
    reach: str
    measured: str
    held: bool
    settings: str


@dataclass(frozen=True, slots=True)
class ServedWorker:
    """A worker process that is ready."""

    url: str
    control: str
    pid: int

    def state(self) -> dict[str, Any]:
        """`GET /state`."""
        with urllib.request.urlopen(f"{self.control}/state", timeout=5) as reply:
            return dict(json.load(reply))


def _listener() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.set_inheritable(True)
    return listener


@contextmanager
def served(arguments: Sequence[str], ready_timeout_s: float = 120.0) -> Iterator[ServedWorker]:
    """A worker process with `arguments`, ready to serve, ended afterwards.

    Raises:
        RuntimeError: it did not become ready; the message ends with what it printed.
    """
    with _listener() as data, _listener() as control, tempfile.TemporaryFile("w+") as output:
        command = [
            sys.executable, "-m", "yolastic_worker", "serve", "--fd", str(data.fileno()), "--control-fd", str(control.fileno()),
            "--propagation-delay-s", "0", *arguments,
        ]  # fmt: skip
        process = subprocess.Popen(command, pass_fds=(data.fileno(), control.fileno()), stdout=output, stderr=output)
        worker = ServedWorker(
            f"http://127.0.0.1:{data.getsockname()[1]}", f"http://127.0.0.1:{control.getsockname()[1]}", process.pid
        )
        try:
            deadline_s = time.monotonic() + ready_timeout_s
            while not _ready(worker.control):
                if process.poll() is not None or time.monotonic() > deadline_s:
                    output.seek(0)
                    raise RuntimeError(f"the worker is not ready: {output.read()[-2000:]}")
                time.sleep(0.05)
            yield worker
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def _ready(control: str) -> bool:
    try:
        with urllib.request.urlopen(f"{control}/readyz", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def random_jpegs(count: int, width: int, height: int, quality: int = 90) -> tuple[bytes, ...]:
    """Seeded images with some structure (noise over blocks), JPEG-encoded."""
    rng = np.random.default_rng(11)
    images = []
    for _ in range(count):
        coarse = rng.integers(0, 255, (max(2, height // 40), max(2, width // 40), 3), dtype=np.uint8)
        pixels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        noisy = np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
        images.append(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())
    return tuple(images)


def machine() -> str:
    """The machine and the versions that matter, in one line."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?"
    )
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "numpy", "opencv-python-headless", "uvicorn"))
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}"
