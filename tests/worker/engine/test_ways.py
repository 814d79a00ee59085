"""Every way to run a model answers as the file as it is; what does not is not used, and the log says why. On the CPU provider."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from yolastic_worker.engine.agreement import probe_images
from yolastic_worker.engine.feeds import BoundRunner, PixelsFeed, PlanesFeed
from yolastic_worker.engine.onnx_file import NotPlainOnnx, check_plain_onnx
from yolastic_worker.engine.onnxruntime import OnnxOptions, OnnxRuntimeEngine
from yolastic_worker.engine.pixel_input import INPUT, with_pixel_input
from yolastic_worker.engine.weights import convolution_weights

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(__file__).resolve().parents[1] / "data"
SHAPES = ROOT / "examples/models/shapes.onnx"
END_TO_END = ROOT / "tests/goldens/shapes_e2e.onnx"
WAYS: list[dict[str, Any]] = [
    {"pixel_input": True},
    {"bound": True},
    {"fixed_up_to": 4},
    {"pixel_input": True, "bound": True, "fixed_up_to": 4},
]


def _engine(path: Path, **options: Any) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(OnnxOptions(model=path, threads=1, max_batch=4, **options))


@pytest.mark.parametrize("way", WAYS, ids="+".join)
@pytest.mark.parametrize("path", [DATA / "dynamic.onnx", DATA / "half.onnx", SHAPES, END_TO_END], ids=lambda path: path.stem)
def test_same_answers(path: Path, way: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """Bit for bit on the CPU, where the same kernels run (half precision is rounded elsewhere); padding included."""
    with caplog.at_level(logging.WARNING):
        plain, other = _engine(path), _engine(path, **way)
    assert caplog.messages == []
    images = probe_images(plain.info.height, plain.info.width)
    for count, padded in ((1, 0), (2, 0), (3, 4), (3, 0), (1, 4), (1, 0)):
        ours, theirs = other.run(images[:count], padded), plain.run(images[:count], padded)
        assert ours.dtype == theirs.dtype
        assert np.abs(ours - theirs).max() <= (2e-3 if path.stem == "half" else 0)
    assert other.info == plain.info


@pytest.mark.parametrize("max_batch", [1, 2])
def test_the_smallest_workers_take_them_too(max_batch: int, caplog: pytest.LogCaptureFixture) -> None:
    """There are more images to check with than fit into one batch."""
    with caplog.at_level(logging.WARNING):
        options = OnnxOptions(model=SHAPES, threads=1, max_batch=max_batch, pixel_input=True, bound=True, fixed_up_to=2)
        engine = OnnxRuntimeEngine(options)
    assert caplog.messages == []
    assert isinstance(engine._feed, PixelsFeed)
    assert sorted(engine._fixed) == [1, 2][:max_batch]


def test_an_answer_outlives_the_next_run() -> None:
    """It is handed to another thread while the next batch runs."""
    engine = _engine(DATA / "dynamic.onnx", bound=True, pixel_input=True)
    images = probe_images(64, 64)
    first = engine.run(images[:2])
    kept = first.copy()
    engine.run([images[2], images[2]])
    assert np.array_equal(first, kept)


def test_the_ways_are_taken() -> None:
    engine = _engine(SHAPES, pixel_input=True, bound=True, fixed_up_to=3)
    assert isinstance(engine._feed, PixelsFeed)
    assert isinstance(engine._runner, BoundRunner)
    assert sorted(engine._fixed) == [1, 2, 3]
    inputs = [runner.session.get_inputs()[0] for runner in (engine._runner, engine._fixed[2])]
    assert [(item.name, item.type) for item in inputs] == [(INPUT, "tensor(uint8)")] * 2
    assert inputs[1].shape == [2, 320, 320, 3]


def test_sessions_for_one_batch_size_are_given_up_when_memory_is_to_be_given_back() -> None:
    """Each has an arena of its own, which a recorded graph needs as it is."""
    engine = _engine(SHAPES, pixel_input=True, bound=True, fixed_up_to=2)
    images = probe_images(engine.info.height, engine.info.width)[:2]
    before = engine.run(images).copy()
    engine.shrink()
    assert not engine._fixed
    assert np.allclose(engine.run(images), before, atol=1e-3)


def test_a_session_for_one_batch_size_has_fewer_nodes(tmp_path: Path) -> None:
    """What would run on the host between kernels, and could not be in a CUDA graph, is gone."""
    onnx = pytest.importorskip("onnx")
    kinds = {}
    for name, fixed in (("dynamic", None), ("fixed", 2)):
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(tmp_path / f"{name}.onnx")
        if fixed:
            for axis in ("batch", "height", "width"):
                options.add_free_dimension_override_by_name(axis, 2 if axis == "batch" else 320)
        ort.InferenceSession(SHAPES.read_bytes(), options, providers=["CPUExecutionProvider"])
        kinds[name] = [node.op_type for node in onnx.load(tmp_path / f"{name}.onnx").graph.node]
    assert len(kinds["fixed"]) < len(kinds["dynamic"])
    assert "Shape" not in kinds["fixed"]


@pytest.mark.parametrize("path", [DATA / "half.onnx", SHAPES, END_TO_END], ids=lambda path: path.stem)
def test_the_weights_that_are_shared_are_the_file_s(path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(path).graph
    inputs = {name for node in graph.node if node.op_type == "Conv" for name in node.input[1:]}
    wanted = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer if item.name in inputs}
    found = convolution_weights(path.read_bytes())
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], values) and found[name].dtype == values.dtype for name, values in wanted.items())
    assert path.stem == "half" or len(found) > 50


@pytest.mark.parametrize("what", ["raises", "differs"])
def test_a_way_that_answers_otherwise_is_not_used(
    what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(content: bytes, name: str, float_type: Any, height: int, width: int) -> bytes:
        if what == "raises":
            return with_pixel_input(content, name, float_type, height // 2, width)
        changed = with_pixel_input(content, name, float_type, height, width)
        divisor, wrong_divisor = np.float32(255).tobytes(), np.float32(25.5).tobytes()
        assert changed.count(divisor) >= 1
        return changed.replace(divisor, wrong_divisor, 1)

    monkeypatch.setattr("yolastic_worker.engine.onnxruntime.with_pixel_input", wrong)
    with caplog.at_level(logging.WARNING):
        engine = _engine(SHAPES, pixel_input=True)
    assert isinstance(engine._feed, PlanesFeed)
    assert len(caplog.messages) == 1
    assert "normalised on the host" in caplog.messages[0]
    plain = _engine(SHAPES)
    images = probe_images(320, 320)
    assert np.array_equal(engine.run(images), plain.run(images))


def test_the_changed_file_is_plain_and_its_input_must_be_there() -> None:
    content = SHAPES.read_bytes()
    changed = with_pixel_input(content, "images", np.float32, 320, 320)
    check_plain_onnx(changed)
    assert 0 < len(changed) - len(content) < 600
    onnx = pytest.importorskip("onnx")
    onnx.checker.check_model(onnx.load_from_string(changed))
    with pytest.raises(NotPlainOnnx, match="no input 'pictures'"):
        with_pixel_input(content, "pictures", np.float32, 320, 320)


def test_every_value_is_divided_as_on_the_host() -> None:
    """All 256 values, in the order red green blue, through the changed input of a model that shows its input's means."""
    engine, plain = _engine(DATA / "dynamic.onnx", pixel_input=True), _engine(DATA / "dynamic.onnx")
    for value in range(256):
        solid = np.full((64, 64, 3), (value, 255 - value, 7), np.uint8)
        assert np.array_equal(engine.run([solid]), plain.run([solid]))
