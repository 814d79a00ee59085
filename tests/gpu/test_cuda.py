"""The ONNX Runtime engine on an NVIDIA device: the same answers as on the CPU, and memory as the driver sees it."""

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from yolastic_worker.decode import decode, letterbox
from yolastic_worker.engine.agreement import observe, probe_images
from yolastic_worker.engine.feeds import BoundRunner, PixelsFeed
from yolastic_worker.engine.onnxruntime import OnnxOptions, OnnxRuntimeEngine
from yolastic_worker.postprocess import detect
from yolastic_worker.types import OutOfDeviceMemory, Thresholds, WorkerFailure
from yolastic_worker.warmup import warm_up

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "examples/models/shapes.onnx"


def _engine(device: str, **options: Any) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(OnnxOptions(model=MODEL, device=device, max_batch=16, **options))


def _on_cuda(**options: Any) -> OnnxRuntimeEngine:
    try:
        return _engine("cuda", **options)
    except WorkerFailure as failure:
        if Path("/dev/nvidiactl").exists():  # with a device here, nothing may pass for a missing one
            raise
        pytest.skip(f"{failure.reason}: {failure}")


@pytest.fixture(scope="module")
def cuda() -> OnnxRuntimeEngine:
    return _on_cuda()


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


def test_the_fit_is_what_the_driver_says(cuda: OnnxRuntimeEngine) -> None:
    """Within 5 % at every batch size."""
    warmth = warm_up(cuda, 16, None)
    assert warmth.memory is not None
    assert warmth.memory.residual <= 0.05 * warmth.memory.at(1)


def test_the_device_s_ways_are_taken(cuda: OnnxRuntimeEngine) -> None:
    assert isinstance(cuda._feed, PixelsFeed)
    assert isinstance(cuda._runner, BoundRunner)


@pytest.mark.parametrize(
    "options",
    [
        {"pixel_input": False, "bound": False},
        {"pixel_input": False, "bound": True},
        {"pixel_input": True, "bound": False},
        {"fixed_up_to": 4},
    ],
    ids="+".join,
)
def test_every_way_answers_the_same(cuda: OnnxRuntimeEngine, options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """Also again and again, as a CUDA graph replays, and after another batch size ran in between."""
    with caplog.at_level(logging.WARNING):
        engine = _engine("cuda", **options)
    assert caplog.messages == []
    assert sorted(engine._fixed) == ([1, 2, 4] if "fixed_up_to" in options else [])
    head, images = cuda.info.head, probe_images(cuda.info.height, cuda.info.width)
    canaries = [observe(image, cuda.run([image])[0], head) for image in images]
    for count in (1, 2, 4, 3, 1, 8, 2, 1, 4, 4):
        asked = [canaries[index % len(canaries)] for index in range(count)]
        outputs = engine.run([canary.pixels for canary in asked])
        assert [canary.differs(output, head) for canary, output in zip(asked, outputs, strict=True)] == [None] * count


def test_out_of_memory_is_survived(cuda: OnnxRuntimeEngine) -> None:
    """An arena with room for a few images: the large batch fails as such, and what runs after it is right."""
    engine = _engine("cuda", memory_limit_bytes=64 * 2**20)
    image = probe_images(cuda.info.height, cuda.info.width)[0]
    canary = observe(image, cuda.run([image])[0], cuda.info.head)
    for _ in range(3):
        with pytest.raises(OutOfDeviceMemory):
            engine.run([image] * 16)
        assert canary.differs(engine.run([image])[0], cuda.info.head) is None


@pytest.mark.parametrize("fixed_up_to", [0, 4])
def test_shrinking_gives_memory_back(fixed_up_to: int) -> None:
    engine = _on_cuda(fixed_up_to=fixed_up_to)
    image = probe_images(engine.info.height, engine.info.width)[0]
    engine.run([image])
    before = engine.memory().peak_bytes
    engine.run([image] * 16)
    full = engine.memory().peak_bytes
    engine.shrink()
    after = engine.memory().peak_bytes
    assert before is not None
    assert full is not None
    assert after is not None
    assert full - after > 0.5 * (full - before) > 0
