"""Serving speed with a real model: YOLO11n on the CPU beside a bare session loop."""

import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from benchmarks.client import Target, closed_loop
from benchmarks.common import Row, random_jpegs, served

_SLICES = 4
"""Of each round: the clock of a shared machine wanders within half a minute, so both are measured in turn."""


def real_model(model: Path, seconds: float, repeats: int) -> list[Row]:
    """8 clients with 640 px JPEGs against a bare `session.run` loop on the same decoded images with the same threads.

    Every round has a worker of its own, and serves for `seconds` in slices, with a slice of the bare loop before each.
    """
    (image,) = random_jpegs(1, 640, 640)
    bare_loop = _BareLoop(model, image)
    shares, bares, serveds = [], [], []
    for repeat in range(repeats):
        bare, rate = 0.0, 0.0
        with served(("--model", str(model), "--max-batch", "8")) as worker:
            for _ in range(_SLICES):
                bare += bare_loop.per_s(seconds / _SLICES) / _SLICES
                seen = closed_loop(Target(worker.url, (image,)), 8, seconds / _SLICES, warm_s=1.0).clean()
                rate += seen.ok_per_s / _SLICES
        bares.append(bare)
        serveds.append(rate)
        shares.append(rate / bare)
        print(f"  round {repeat + 1}: {rate:.1f}/s of {bare:.1f}/s", flush=True)
    share = statistics.median(shares)
    text = f"{share:.3f} ({statistics.median(serveds):.1f}/s of {statistics.median(bares):.1f}/s)"
    loads = f"{repeats} rounds of {_SLICES} loads and {_SLICES} bare loops in turn, {seconds / _SLICES:.1f} s each"
    settings = f"YOLO11n 640 px FP32, all cores, {loads}, median of the ratios"
    return [Row("real YOLO11n, 8 clients, share of a bare session loop", ">= 0.92", text, share >= 0.92, settings)]


class _BareLoop:
    """`session.run` at batch 1 on an image that is already decoded and normalised, and nothing else."""

    def __init__(self, model: Path, image: bytes) -> None:
        self._session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        self._name = self._session.get_inputs()[0].name
        pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            raise RuntimeError("the benchmark's own image cannot be decoded")
        self._tensor = np.ascontiguousarray(pixels[..., ::-1].transpose(2, 0, 1)[None], dtype=np.float32) / 255
        for _ in range(3):
            self._session.run(None, {self._name: self._tensor})

    def per_s(self, seconds: float) -> float:
        """Images a second."""
        began_s, done = time.monotonic(), 0
        while time.monotonic() - began_s < seconds:
            self._session.run(None, {self._name: self._tensor})
            done += 1
        return done / (time.monotonic() - began_s)
