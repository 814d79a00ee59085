"""From bytes to boxes the worker answers like Ultralytics on the same model (tests/goldens, made by tools/make_goldens.py)."""

import ast
import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from yolastic_worker.decode import decode, letterbox
from yolastic_worker.postprocess import detect, head_kind
from yolastic_worker.types import Boxes, Thresholds

ROOT = Path(__file__).parents[2]
GOLDENS: dict[str, Any] = json.loads((ROOT / "tests/goldens/ultralytics.json").read_text())
MOST_PIXELS = 1.0
MOST_SCORE = 0.01
CORNERS = ("x1", "y1", "x2", "y2")


def by_model_and_size() -> dict[tuple[str, int, int], list[dict[str, Any]]]:
    groups = defaultdict(list)
    for case in GOLDENS["cases"]:
        groups[(case["model"], *case["imgsz"])].append(case)
    return dict(groups)


@pytest.fixture(scope="module")
def sessions() -> dict[str, onnxruntime.InferenceSession]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    paths = GOLDENS["models"]
    return {path: onnxruntime.InferenceSession(ROOT / path, options, providers=["CPUExecutionProvider"]) for path in paths}


def test_goldens_are_of_these_models() -> None:
    for path, digest in GOLDENS["models"].items():
        assert hashlib.sha256((ROOT / path).read_bytes()).hexdigest() == digest, path


def answer(session: onnxruntime.InferenceSession, case: dict[str, Any]) -> Boxes:
    """Boxes of one case through our own decoding, letterbox and detection."""
    height, width = case["imgsz"]
    slot = np.empty((height, width, 3), np.uint8)
    rgb = decode((ROOT / case["image"]).read_bytes())
    assert list(rgb.shape[:2]) == case["shape"]
    geometry = letterbox(rgb, height, width, slot)
    planes = np.ascontiguousarray(slot.transpose(2, 0, 1)[None], dtype=np.float32) / 255
    (output,) = session.run(None, {session.get_inputs()[0].name: planes})
    kind = head_kind(session.get_outputs()[0].shape, len(case_names(session)))
    assert kind is not None
    return detect(output[0], kind, Thresholds(conf=case["conf"], iou=case["iou"]), geometry)


def case_names(session: onnxruntime.InferenceSession) -> dict[int, str]:
    names: dict[int, str] = ast.literal_eval(session.get_modelmeta().custom_metadata_map["names"])
    return names


def assert_same(ours: Boxes, theirs: list[dict[str, Any]]) -> None:
    """Each golden box has its own partner: same class, within a pixel and a hundredth."""
    assert len(ours) == len(theirs)
    left = list(range(len(ours)))
    for golden in theirs:
        box = np.array([golden["box"][corner] for corner in CORNERS])
        fits = [
            index
            for index in left
            if int(ours[index, 5]) == golden["class"]
            and abs(float(ours[index, 4]) - golden["confidence"]) <= MOST_SCORE
            and np.abs(ours[index, :4] - box).max() <= MOST_PIXELS
        ]
        assert fits, golden
        left.remove(min(fits, key=lambda index: float(np.abs(ours[index, :4] - box).max())))


@pytest.mark.parametrize(
    ("group", "cases"),
    by_model_and_size().items(),
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_same_answers_as_ultralytics(
    group: tuple[str, int, int], cases: list[dict[str, Any]], sessions: dict[str, onnxruntime.InferenceSession]
) -> None:
    for case in cases:
        assert_same(answer(sessions[group[0]], case), case["results"])


def test_goldens_cover_what_is_claimed() -> None:
    boxes = [box for case in GOLDENS["cases"] for box in case["results"]]
    assert len(boxes) > 500
    assert len({box["class"] for box in boxes}) >= 4
    assert {case["model"] for case in GOLDENS["cases"]} == set(GOLDENS["models"])
    assert any("photos" in case["image"] for case in GOLDENS["cases"])
