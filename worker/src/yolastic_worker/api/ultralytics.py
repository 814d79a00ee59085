"""The response dialect of the Ultralytics inference endpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

from yolastic_worker.api.parameters import Parameters
from yolastic_worker.types import Boxes


def render_boxes(boxes: Boxes, names: Sequence[str], height: int, width: int, parameters: Parameters) -> list[dict[str, Any]]:
    """Rows of one image, best first. boxes: float32 [M, 6] x1 y1 x2 y2 score class; height, width: of the source, pixels."""
    decimals = parameters.decimals
    scale_x, scale_y = (1.0 / width, 1.0 / height) if parameters.normalize else (1.0, 1.0)
    rows = []
    for x1, y1, x2, y2, score, number in boxes.tolist():
        label = int(number)
        rows.append({
            "name": names[label] if label < len(names) else str(label),
            "class": label,
            "confidence": round(score, decimals),
            "box": {
                "x1": round(x1 * scale_x, decimals), "y1": round(y1 * scale_y, decimals),
                "x2": round(x2 * scale_x, decimals), "y2": round(y2 * scale_y, decimals),
            },
        })  # fmt: skip
    return rows


def render_image(rows: list[dict[str, Any]], height: int, width: int, speed_ms: Mapping[str, float]) -> dict[str, Any]:
    """One image of the answer; height, width: of the source; speed_ms: preprocess, inference, postprocess."""
    return {
        "shape": [height, width],
        "results": rows,
        "speed": {stage: round(milliseconds, 3) for stage, milliseconds in speed_ms.items()},
    }


def render_response(images: list[dict[str, Any]], model: str, version: Mapping[str, str], seconds: float) -> dict[str, Any]:
    """The whole answer."""
    return {
        "images": images,
        "metadata": {"imageCount": len(images), "functionTimeCall": round(seconds, 6), "model": model, "version": version},
    }
