"""What a worker answers, end to end, from a real process."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests/worker/data"
Start = Callable[..., Any]


def _png(rgb: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> bytes:
    image = np.zeros((*size, 3), np.uint8)
    image[:] = rgb[::-1]
    return bytes(cv2.imencode(".png", image)[1].tobytes())


def _form(*parts: tuple[str, str | None, bytes]) -> tuple[bytes, str]:
    boundary = "frontier"
    body = b""
    for name, filename, data in parts:
        named = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
        body += f"--{boundary}\r\nContent-Disposition: {named}\r\n\r\n".encode() + data + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


@pytest.mark.parametrize("model", ["dynamic.onnx", "half.onnx"])
def test_known_model_gives_known_boxes(start_worker: Start, model: str) -> None:
    worker = start_worker("--model", TINY / model, "--max-batch", "4")
    answer = worker.predict(_png((204, 0, 0)), content_type="image/png").json()
    (image,) = answer["images"]
    assert image["shape"] == [64, 64]
    assert set(image["speed"]) == {"preprocess", "inference", "postprocess"}
    assert [(row["name"], row["class"]) for row in image["results"]] == [("red", 0)] * 4
    assert image["results"][0]["confidence"] == pytest.approx(0.8, abs=2e-3)
    assert {tuple(sorted(row["box"].items())) for row in image["results"]} == {
        (("x1", left), ("x2", left + 32.0), ("y1", top), ("y2", top + 32.0)) for left in (0.0, 32.0) for top in (0.0, 32.0)
    }
    assert answer["metadata"]["imageCount"] == 1
    assert answer["metadata"]["model"] == Path(model).stem
    assert worker.state()["model"]["precision"] == ("FP16" if model == "half.onnx" else "FP32")


def test_parameters(start_worker: Start) -> None:
    worker = start_worker("--model", TINY / "dynamic.onnx", "--max-batch", "4", "--name", "two-classes")
    red = _png((204, 0, 0), (128, 64))
    rows = worker.predict(red, "?normalize=true&decimals=2&imgsz=64", "image/png").json()["images"][0]["results"]
    assert all(0 <= value <= 1 for row in rows for value in row["box"].values())
    assert {row["confidence"] for row in rows} == {0.62}  # half of a quarter is grey padding: (0.8 + 114/255) / 2
    assert worker.predict(red, "?conf=0.9", "image/png").json()["images"][0]["results"] == []
    info = json.loads(worker.predict(red, "", "image/png").body)["metadata"]
    assert info["model"] == "two-classes"


def test_multipart_files_and_base64_come_back_in_order(start_worker: Start) -> None:
    worker = start_worker("--model", TINY / "dynamic.onnx", "--max-batch", "4")
    red, green = _png((204, 0, 0)), _png((0, 204, 0), (32, 32))
    body, content_type = _form(
        ("conf", None, b"0.5"), ("file", "a.png", green), ("file", "b.png", red), ("source", None, base64.b64encode(green))
    )
    answer = worker.predict(body, content_type=content_type).json()
    assert [image["results"][0]["name"] for image in answer["images"]] == ["green", "red", "green"]
    assert [image["shape"] for image in answer["images"]] == [[32, 32], [64, 64], [32, 32]]
    assert answer["metadata"]["imageCount"] == 3


def test_example_model_finds_the_labelled_shapes(start_worker: Start) -> None:
    """The example detector on its labelled images: nearly every label is found where it is."""
    worker = start_worker("--model", ROOT / "examples/models/shapes.onnx", "--max-batch", "2")
    labels = json.loads((ROOT / "examples/images/labels.json").read_text())
    wanted = found = 0
    for path in sorted((ROOT / "examples/images").glob("*.jpg"))[:12]:
        rows = worker.predict(path.read_bytes()).json()["images"][0]["results"]
        for label in _labels_of(labels, path.name):
            wanted += 1
            found += any(row["name"] == label["name"] and _iou(row["box"], label["box"]) > 0.5 for row in rows)
    assert wanted > 20
    assert found >= 0.85 * wanted


def _labels_of(labels: Any, name: str) -> list[dict[str, Any]]:
    entry = next(image for image in labels["images"] if image["file"] == name)
    corners = ("x1", "y1", "x2", "y2")
    return [{"name": item["name"], "box": dict(zip(corners, item["box"], strict=True))} for item in entry["objects"]]


def _iou(one: dict[str, float], other: dict[str, float]) -> float:
    width = min(one["x2"], other["x2"]) - max(one["x1"], other["x1"])
    height = min(one["y2"], other["y2"]) - max(one["y1"], other["y1"])
    common = max(0.0, width) * max(0.0, height)
    areas = sum((box["x2"] - box["x1"]) * (box["y2"] - box["y1"]) for box in (one, other))
    return common / (areas - common)


def test_info_says_what_is_served(start_worker: Start) -> None:
    worker = start_worker(
        "--backend", "simulated", "--simulate", "fixed_ms=1,per_image_ms=0,device=GPU-7", "--model", TINY / "dynamic.onnx"
    )
    from_info = json.loads(_get(worker, "/info"))
    assert from_info["model"]["names"] == ["red", "green"]
    assert from_info["model"]["inputSize"] == {"width": 64, "height": 64}
    assert from_info["runtime"]["backend"] == "Simulated"
    assert "simulated" in from_info["runtime"]["simulated"]
    state = worker.state()
    assert state["device_id"] == "GPU-7"
    assert "simulated" in state["simulated"]
    assert "simulated accelerator" in worker.log()
    assert worker.predict(_png((204, 0, 0)), content_type="image/png").json()["images"][0]["results"][0]["name"] == "red"


def _get(worker: Any, path: str) -> bytes:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse().read()
    connection.close()
    return answer
