"""The rows of the Ultralytics contract."""

import numpy as np
import pytest

from yolastic_worker.api.parameters import Parameters
from yolastic_worker.api.ultralytics import render_boxes, render_image, render_response
from yolastic_worker.types import Thresholds

BOXES = np.array([[10.123456, 20, 110, 220, 0.987654321, 1], [0, 0, 1, 1, 0.5, 7]], np.float32)


def _rows(normalize: bool, decimals: int) -> list[dict[str, object]]:
    return render_boxes(BOXES, ["cat", "dog"], 400, 200, Parameters(Thresholds(), normalize, decimals))


def test_rows() -> None:
    first, second = _rows(False, 3)
    assert first == {"name": "dog", "class": 1, "confidence": 0.988, "box": {"x1": 10.123, "y1": 20.0, "x2": 110.0, "y2": 220.0}}
    assert (second["name"], second["class"]) == ("7", 7)


def test_normalized() -> None:
    assert _rows(True, 5)[0]["box"] == {"x1": 0.05062, "y1": 0.05, "x2": 0.55, "y2": 0.55}


@pytest.mark.parametrize("decimals", [0, 9])
def test_decimals(decimals: int) -> None:
    confidence = _rows(False, decimals)[0]["confidence"]
    assert confidence == round(float(BOXES[0, 4]), decimals)


def test_response() -> None:
    image = render_image([], 400, 200, {"preprocess": 1.23456, "inference": 2, "postprocess": 3})
    assert image == {"shape": [400, 200], "results": [], "speed": {"preprocess": 1.235, "inference": 2, "postprocess": 3}}
    response = render_response([image], "model", {"yolastic": "1"}, 0.123456789)
    assert response == {
        "images": [image],
        "metadata": {"imageCount": 1, "functionTimeCall": 0.123457, "model": "model", "version": {"yolastic": "1"}},
    }
