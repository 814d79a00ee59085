"""The ONNX Runtime engine on an NVIDIA device: the same answers as on the CPU, and memory as the driver sees it."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from yolastic_worker.decode import decode, letterbox
from yolastic_worker.engine.onnxruntime import OnnxOptions, OnnxRuntimeEngine
from yolastic_worker.postprocess import detect
from yolastic_worker.types import Thresholds, WorkerFailure
from yolastic_worker.warmup import warm_up

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "examples/models/shapes.onnx"


def _engine(device: str) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(OnnxOptions(model=MODEL, device=device, max_batch=16))


@pytest.fixture(scope="module")
def cuda() -> OnnxRuntimeEngine:
    try:
        return _engine("cuda")
    except WorkerFailure as failure:
        pytest.skip(f"{failure.reason}: {failure}")


def test_answers_are_the_cpus(cuda: OnnxRuntimeEngine) -> None:
    """Every labelled image, in batches of eight: the same boxes within a pixel, scores within 0.01."""
    info, cpu = cuda.info, _engine("cpu")
    paths = sorted((ROOT / "examples/images").glob("*.jpg"))[:16]
    for first in range(0, len(paths), 8):
        slots, geometries = [], []
        for path in paths[first : first + 8]:
            slot = np.empty((info.height, info.width, 3), np.uint8)
            geometries.append(letterbox(decode(path.read_bytes()), info.height, info.width, slot))
            slots.append(slot)
        for ours, theirs, geometry in zip(cuda.run(slots, 8), cpu.run(slots), geometries, strict=True):
            boxes, wanted = (detect(output, info.head, Thresholds(), geometry) for output in (ours, theirs))
            assert boxes.shape == wanted.shape
            assert np.abs(boxes[:, :4] - wanted[:, :4]).max(initial=0) < 1
            assert np.abs(boxes[:, 4] - wanted[:, 4]).max(initial=0) < 0.01


def test_memory_and_identity_come_from_the_driver(cuda: OnnxRuntimeEngine) -> None:
    assert cuda.info.device_id.startswith(("GPU-", "MIG-"))
    warmth = warm_up(cuda, 16, None)
    assert warmth.buckets == (1, 2, 4, 8, 16)
    assert warmth.limit_source == "Device"
    assert warmth.memory is not None
    assert warmth.memory.fixed > 0
    assert cv2.getNumThreads() == 1


def test_an_image_more_is_cheaper_than_an_image_alone(cuda: OnnxRuntimeEngine) -> None:
    """What batching is for: ratios in one run, not seconds."""
    speed = dict(warm_up(cuda, 16, None).speed)
    assert speed[16] < 16 * speed[1]
