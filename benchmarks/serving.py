"""Serving speed: the simulated accelerator, and a real YOLO11n beside a bare session loop."""

import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from benchmarks.common import Row, closed_loop, random_jpegs, served

_SIMULATED = ("--backend", "simulated", "--simulate", "fixed_ms=20,per_image_ms=1,memory_limit_mib=65536", "--max-batch", "32")
_IDEAL_PER_S = 32 / (0.020 + 0.001 * 32)


def simulated_accelerator(seconds: float, repeats: int) -> list[Row]:
    """64 clients against the ideal rate of full batches, and one client's latency."""
    (image,) = random_jpegs(1, 160, 120, 85)
    rates, p50s = [], []
    with served(_SIMULATED) as worker:
        for _ in range(repeats):
            rates.append(closed_loop(worker.url, 64, seconds, image).images_per_s)
            p50s.append(closed_loop(worker.url, 1, seconds / 2, image).p50_ms)
    share = statistics.median(rates) / _IDEAL_PER_S
    p50_ms = statistics.median(p50s)
    settings = f"simulated 20 ms + 1 ms/image, ceiling 32, 160x120 JPEGs, {repeats} runs of {seconds:.0f} s, median"
    rate = f"{share:.3f} ({statistics.median(rates):.0f}/s)"
    return [
        Row("64 clients, closed loop, share of the ideal 615/s", ">= 0.95", rate, share >= 0.95, settings),
        Row("1 client, p50", "<= 23.5 ms", f"{p50_ms:.1f} ms", p50_ms <= 23.5, settings),
    ]  # fmt: skip


def real_model(model: Path, seconds: float, repeats: int) -> list[Row]:
    """8 clients with 640 px JPEGs against a bare `session.run` loop on the same decoded images with the same threads."""
    (image,) = random_jpegs(1, 640, 640)
    shares, bares, serveds = [], [], []
    for _ in range(repeats):
        bare = _bare_loop(model, image, seconds)
        with served(("--model", str(model), "--max-batch", "8")) as worker:
            rate = closed_loop(worker.url, 8, seconds, image).images_per_s
        bares.append(bare)
        serveds.append(rate)
        shares.append(rate / bare)
    share = statistics.median(shares)
    text = f"{share:.3f} ({statistics.median(serveds):.1f}/s of {statistics.median(bares):.1f}/s)"
    settings = f"YOLO11n 640 px FP32, all cores, {repeats} pairs of {seconds:.0f} s, median of the ratios"
    return [Row("real YOLO11n, 8 clients, share of a bare session loop", ">= 0.85", text, share >= 0.85, settings)]


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
