"""Serving speed with a real model: YOLO11n on the CPU beside a bare session loop."""

import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from benchmarks.client import Target, closed_loop
from benchmarks.common import Row, random_jpegs, served


def real_model(model: Path, seconds: float, repeats: int) -> list[Row]:
    """8 clients with 640 px JPEGs against a bare `session.run` loop on the same decoded images with the same threads.

    Served for `seconds`: long, because answers come in whole batches of 8, three a second. The bare loop runs for a quarter of
    that before and after; the mean of both counts, for a machine's clock wanders meanwhile.
    """
    (image,) = random_jpegs(1, 640, 640)
    shares, bares, serveds = [], [], []
    before = _bare_loop(model, image, seconds / 4)
    for repeat in range(repeats):
        with served(("--model", str(model), "--max-batch", "8")) as worker:
            rate = closed_loop(Target(worker.url, (image,)), 8, seconds, warm_s=1.0).clean().ok_per_s
        after = _bare_loop(model, image, seconds / 4)
        bare, before = (before + after) / 2, after
        bares.append(bare)
        serveds.append(rate)
        shares.append(rate / bare)
        print(f"  round {repeat + 1}: {rate:.1f}/s of {bare:.1f}/s", flush=True)
    share = statistics.median(shares)
    text = f"{share:.3f} ({statistics.median(serveds):.1f}/s of {statistics.median(bares):.1f}/s)"
    loads = f"{repeats} loads of {seconds:.0f} s between bare loops of {seconds / 4:.0f} s"
    settings = f"YOLO11n 640 px FP32, all cores, {loads}, median of the ratios"
    return [Row("real YOLO11n, 8 clients, share of a bare session loop", ">= 0.92", text, share >= 0.92, settings)]


def _bare_loop(model: Path, image: bytes, seconds: float) -> float:
    """Images a second of `session.run` at batch 1 on an image that is already decoded and normalised."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise RuntimeError("the benchmark's own image cannot be decoded")
    tensor = np.ascontiguousarray(pixels[..., ::-1].transpose(2, 0, 1)[None], dtype=np.float32) / 255
    for _ in range(3):
        session.run(None, {name: tensor})
    began_s, done = time.monotonic(), 0
    while time.monotonic() - began_s < seconds:
        session.run(None, {name: tensor})
        done += 1
    return done / (time.monotonic() - began_s)
