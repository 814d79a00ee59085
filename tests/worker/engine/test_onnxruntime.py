"""The ONNX Runtime engine on tiny models whose answers are known."""

from pathlib import Path

import numpy as np
import pytest

from yolastic_worker.engine.feeds import PlanesFeed
from yolastic_worker.engine.onnxruntime import OnnxOptions, OnnxRuntimeEngine, read_model
from yolastic_worker.postprocess import HeadKind
from yolastic_worker.types import WorkerFailure

DATA = Path(__file__).resolve().parents[1] / "data"
ROOT = Path(__file__).resolve().parents[3]


def _engine(name: str, **options: object) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(OnnxOptions(model=DATA / name, threads=1, max_batch=8, **options))  # type: ignore[arg-type]


def _solid(*rgb: int) -> np.ndarray:
    return np.full((64, 64, 3), rgb, np.uint8)


@pytest.mark.parametrize(("name", "precision", "tolerance"), [("dynamic.onnx", "FP32", 1e-5), ("half.onnx", "FP16", 2e-3)])
def test_pixels_reach_the_model_as_rgb_shares(name: str, precision: str, tolerance: float) -> None:
    """Every image of a batch in its own place, red before green, 255 as 1."""
    engine = _engine(name)
    reds = [0, 51, 102, 255]
    output = engine.run([_solid(red, 255 - red, 7) for red in reds])
    assert output.shape == (4, 6, 4)
    for image, red in zip(output, reds, strict=True):
        assert image[4] == pytest.approx(np.full(4, red / 255), abs=tolerance)
        assert image[5] == pytest.approx(np.full(4, 1 - red / 255), abs=tolerance)
    assert (engine.info.precision, engine.info.head, engine.info.names) == (precision, HeadKind.RAW, ("red", "green"))
    assert (engine.info.height, engine.info.width, engine.info.task) == (64, 64, "Detect")


def test_padding_runs_more_and_returns_what_was_asked() -> None:
    engine = _engine("dynamic.onnx")
    output = engine.run([_solid(255, 0, 0)] * 3, padded=8)
    assert output.shape[0] == 3
    assert np.array_equal(output, engine.run([_solid(255, 0, 0)] * 3))


def test_a_batch_after_a_larger_one_holds_nothing_of_it() -> None:
    engine = _engine("dynamic.onnx")
    engine.run([_solid(255, 255, 255)] * 8)
    assert not engine.run([_solid(0, 0, 0)], padded=4)[:, 4:].any()
    engine.shrink()
    assert engine.run([_solid(255, 0, 0)])[0, 4, 0] == pytest.approx(1)


def test_division_is_exact() -> None:
    """All 256 values as numpy divides them in float32: what Ultralytics feeds its models."""
    values = np.arange(64 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(64, 64, 3)
    batch = PlanesFeed(1, 64, 64, np.float32).fill([values], 1)
    assert np.array_equal(batch[0], values.transpose(2, 0, 1).astype(np.float32) / np.float32(255))


def test_heads_are_told_apart() -> None:
    assert OnnxRuntimeEngine(OnnxOptions(model=ROOT / "examples/models/shapes.onnx", max_batch=1)).info.head is HeadKind.RAW
    assert (
        OnnxRuntimeEngine(OnnxOptions(model=ROOT / "tests/goldens/shapes_e2e.onnx", max_batch=1)).info.head is HeadKind.END_TO_END
    )


def test_memory_is_read() -> None:
    reading = _engine("dynamic.onnx").memory()
    assert reading.peak_bytes is not None
    assert reading.limit_bytes is not None
    assert 10 * 2**20 < reading.peak_bytes < reading.limit_bytes


def test_a_file_that_is_there_and_cannot_be_read_is_told_from_one_that_is_not(tmp_path: Path) -> None:
    endless = tmp_path / "endless.onnx"
    endless.symlink_to(endless)
    with pytest.raises(WorkerFailure, match=rf"^the model {endless} cannot be read: .*symbolic links") as failure:
        read_model(endless, None)
    assert failure.value.reason == "ModelUnreadable"
    dangling = tmp_path / "dangling.onnx"
    dangling.symlink_to(tmp_path / "absent.onnx")
    with pytest.raises(WorkerFailure, match=rf"^there is no model {dangling}$") as failure:
        read_model(dangling, None)
    assert failure.value.reason == "ModelNotFound"
