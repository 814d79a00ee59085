"""Rounding is forgiven, everything else is told."""

from pathlib import Path

import numpy as np
import pytest

from yolastic_worker.engine.agreement import observe
from yolastic_worker.engine.onnxruntime import OnnxOptions, OnnxRuntimeEngine
from yolastic_worker.postprocess import HeadKind

ROOT = Path(__file__).resolve().parents[3]
PIXELS = np.zeros((64, 64, 3), np.uint8)


def _raw(seed: int = 1, best: float = 0.9) -> np.ndarray:
    rng = np.random.default_rng(seed)
    output = np.empty((4 + 3, 200), np.float32)
    output[:2], output[2:4] = rng.uniform(0, 640, (2, 200)), rng.uniform(10, 200, (2, 200))
    output[4:] = rng.uniform(0, best, (3, 200))
    return output


def _end_to_end(seed: int = 1, best: float = 0.9) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 400, (100, 2))
    columns = [corner, corner + rng.uniform(10, 200, (100, 2)), np.sort(rng.uniform(0, best, (100, 1)), axis=0)[::-1]]
    return np.hstack([*columns, rng.integers(0, 3, (100, 1))]).astype(np.float32)


HEADS = [(HeadKind.RAW, _raw), (HeadKind.END_TO_END, _end_to_end)]


@pytest.mark.parametrize(("head", "make"), HEADS)
@pytest.mark.parametrize("best", [0.9, 0.3, 1e-4])
def test_the_same_and_its_roundings_agree(head: HeadKind, make: object, best: float) -> None:
    output = make(best=best)  # type: ignore[operator]
    canary = observe(PIXELS, output, head)
    assert canary.differs(output, head) is None
    rng = np.random.default_rng(2)
    for kind in (np.float32, np.float16):
        noisy = (output * (1 + rng.normal(0, 1e-3, output.shape))).astype(kind)
        if head is HeadKind.END_TO_END:
            noisy[:, 5] = output[:, 5]
        assert canary.differs(noisy, head) is None
    if head is HeadKind.END_TO_END:
        assert canary.differs(output[::-1], head) is None, "rows in another order"


@pytest.mark.parametrize(("head", "make"), HEADS)
@pytest.mark.parametrize("best", [0.6, 1e-4])
def test_anything_else_differs(head: HeadKind, make: object, best: float) -> None:
    output = make(best=best)  # type: ignore[operator]
    canary = observe(PIXELS, output, head)
    boxes, scores = (slice(0, 4), slice(4, None)) if head is HeadKind.RAW else (np.s_[:, :4], np.s_[:, 4])
    wrong = {
        "zeros": np.zeros_like(output),
        "another answer": make(seed=7, best=best),  # type: ignore[operator]
        "not finite": np.full_like(output, np.nan),
        "boxes elsewhere": output.copy(),
        "scores halved": output.copy(),
        "one box too many": output.copy(),
    }
    wrong["boxes elsewhere"][boxes] += 50
    wrong["scores halved"][scores] /= 2
    wrong["one box too many"][scores][..., -1] = 0.99
    for name, answer in wrong.items():
        assert canary.differs(answer, head), name


def test_two_classes_that_tie_may_change_places() -> None:
    output = _raw()
    output[4:] = 0.1
    output[4, 3], output[5, 3] = 0.800, 0.799
    canary = observe(PIXELS, output, HeadKind.RAW)
    output[4, 3], output[5, 3] = 0.799, 0.800
    assert canary.differs(output, HeadKind.RAW) is None
    output[4, 3] = 0.3
    assert canary.differs(output, HeadKind.RAW)


@pytest.mark.parametrize("name", ["examples/models/shapes.onnx", "tests/goldens/shapes_e2e.onnx"])
def test_a_real_detector(name: str) -> None:
    """The same image in a larger batch, beside others, agrees; another image does not."""
    engine = OnnxRuntimeEngine(OnnxOptions(model=ROOT / name, threads=1, max_batch=4))
    info = engine.info
    rng = np.random.default_rng(3)
    first = np.full((info.height, info.width, 3), 200, np.uint8)
    first[60:160, 60:160] = (220, 30, 30)
    second = rng.integers(0, 255, first.shape, dtype=np.uint8)
    canary = observe(first, engine.run([first])[0], info.head)
    outputs = engine.run([second, first, second, first])
    assert canary.differs(outputs[1], info.head) is None
    assert canary.differs(outputs[3], info.head) is None
    assert canary.differs(outputs[0], info.head)
