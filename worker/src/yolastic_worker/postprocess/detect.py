"""Detection: raw head or end-to-end head -> boxes in source pixels."""

from enum import StrEnum

import numpy as np
import numpy.typing as npt

from yolastic_worker.types import Boxes, Geometry, Thresholds


class HeadKind(StrEnum):
    """What the model's output is, for one image."""

    RAW = "raw"
    """[4 + classes, anchors]: centre x, centre y, width, height in input pixels, then class scores; needs NMS."""
    END_TO_END = "end_to_end"
    """[N, 6]: x1 y1 x2 y2 in input pixels, score, class; best first, no NMS."""


def head_kind(output_shape: tuple[int | str | None, ...], class_count: int) -> HeadKind | None:
    """Kind of a detection head by the model's output shape [batch, .., ..] and its number of classes; None if neither."""
    return None


def detect(output: npt.NDArray[np.floating], kind: HeadKind, thresholds: Thresholds, geometry: Geometry) -> Boxes:
    """Detections of one image: `output` without its batch axis -> float32 [M, 6] x1 y1 x2 y2 score class, source pixels, best first."""
    return np.zeros((0, 6), np.float32)
