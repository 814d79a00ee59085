"""Detection: a raw or an end-to-end head -> boxes in source pixels.

The rules are Ultralytics' defaults: best class only, classes kept apart by an offset, a box goes when its overlap with a better
one is *above* the threshold, at most 30,000 candidates, float32 throughout.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from yolastic_worker.decode.letterbox import scaled_sides
from yolastic_worker.types import Boxes, Geometry, Thresholds

MAX_CANDIDATES: Final = 30_000
CLASS_OFFSET: Final = 7680
"""Pixels between classes: boxes of different classes never overlap."""
_BLOCK: Final = 64
"""Candidates compared with each other at once; most images have fewer objects than this."""

Floats = npt.NDArray[np.floating]


class HeadKind(StrEnum):
    """What the model's output is, for one image."""

    RAW = "raw"
    """[4 + classes, anchors]: centre x, centre y, width, height in input pixels, then class scores; needs NMS."""
    END_TO_END = "end_to_end"
    """[N, 6]: x1 y1 x2 y2 in input pixels, score, class; best first, no NMS."""


def head_kind(output_shape: Sequence[int | str | None], class_count: int) -> HeadKind | None:
    """Kind of a detection head by the model's output shape [batch, .., ..] and its number of classes; None if neither.

    Names and None stand for dynamic axes. A last axis of 6 means end-to-end, as in Ultralytics.
    """
    if len(output_shape) != 3:
        return None
    _, rows, columns = output_shape
    if columns == 6:
        return HeadKind.END_TO_END
    if rows == 4 + class_count:
        return HeadKind.RAW
    return None


def detect(output: Floats, kind: HeadKind, thresholds: Thresholds, geometry: Geometry) -> Boxes:
    """Detections of one image, best first.

    Args:
        output: one image's output without the batch axis: [4 + classes, anchors] or [N, 6], input pixels.
        kind: what it is.
        thresholds: scores must be *above* conf.
        geometry: how the image was letterboxed.

    Returns:
        float32 [M, 6] x1 y1 x2 y2 score class, source pixels, clipped to the image.
    """
    select = _select_raw if kind is HeadKind.RAW else _select_end_to_end
    return _to_source(select(output, thresholds), geometry)


def _select_end_to_end(output: Floats, thresholds: Thresholds) -> Boxes:
    chosen = np.flatnonzero(output[:, 4] > thresholds.conf)[: thresholds.max_detections]
    return output[chosen].astype(np.float32, copy=False)


def _select_raw(output: Floats, thresholds: Thresholds) -> Boxes:
    scores = output[4:]
    best = scores.max(axis=0)
    candidates = np.flatnonzero(best > thresholds.conf)
    if not candidates.size:
        return np.empty((0, 6), np.float32)
    order = np.argsort(-best[candidates], kind="stable")[:MAX_CANDIDATES]
    candidates = candidates[order]
    rows = np.empty((candidates.size, 6), np.float32)
    centre_x, centre_y, width, height = output[:4, candidates].astype(np.float32, copy=False)
    half_width, half_height = width / 2, height / 2
    rows[:, 0], rows[:, 1] = centre_x - half_width, centre_y - half_height
    rows[:, 2], rows[:, 3] = centre_x + half_width, centre_y + half_height
    rows[:, 4] = best[candidates]
    rows[:, 5] = scores[:, candidates].argmax(axis=0)
    offset_boxes = rows[:, :4] + rows[:, 5:] * np.float32(CLASS_OFFSET)
    return rows[suppress(offset_boxes, thresholds.iou, thresholds.max_detections)]


def suppress(boxes: Boxes, iou_threshold: float, max_kept: int) -> npt.NDArray[np.intp]:
    """Greedy non-maximum suppression of `boxes` [n, 4] x1 y1 x2 y2, best first: indices of the kept ones, ascending.

    A block of the best candidates left is settled among themselves, then all that its survivors overlap are removed at once:
    the same answer as one box at a time, in a few passes instead of one a kept box.
    """
    kept: list[npt.NDArray[np.intp]] = []
    kept_count = 0
    left = np.arange(len(boxes))
    edges = np.ascontiguousarray(boxes.T)
    while left.size and kept_count < max_kept:
        block = edges[:, :_BLOCK]
        survivors = _settle(_overlap(block[:, :, None], block[:, None]) > iou_threshold)
        kept.append(left[survivors])
        kept_count += survivors.size
        left, edges = left[_BLOCK:], edges[:, _BLOCK:]
        if left.size:
            free = ~_overlapped(block[:, survivors], edges, iou_threshold)
            left, edges = left[free], edges[:, free]
    return np.concatenate(kept)[:max_kept] if kept else left


def _settle(overlaps: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Who survives in a block, best first, given who overlaps whom [k, k]."""
    packed = np.packbits(overlaps, axis=1, bitorder="little")
    removed = 0
    survivors = []
    for index, row in enumerate(packed):
        if not removed >> index & 1:
            survivors.append(index)
            removed |= int.from_bytes(row.tobytes(), "little")
    return np.array(survivors, np.intp)


def _overlap(first: Boxes, second: Boxes) -> Boxes:
    """Intersection over union of boxes given as edges [4, ...] that broadcast; 0/0 of two empty boxes is no overlap."""
    left1, top1, right1, bottom1 = first
    left2, top2, right2, bottom2 = second
    width = np.maximum(np.minimum(right1, right2) - np.maximum(left1, left2), 0)
    height = np.maximum(np.minimum(bottom1, bottom2) - np.maximum(top1, top2), 0)
    intersection = width * height
    union = (right1 - left1) * (bottom1 - top1) + (right2 - left2) * (bottom2 - top2) - intersection
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Boxes = intersection / union
    return ratio


def _overlapped(keepers: Boxes, others: Boxes, iou_threshold: float) -> npt.NDArray[np.bool_]:
    """Which `others` [4, n] some of the `keepers` [4, m] overlaps; only pairs that touch are computed: few do in a crowd."""
    left1, top1, right1, bottom1 = keepers[:, :, None]
    left2, top2, right2, bottom2 = others
    touching = left1 < right2
    touching &= left2 < right1
    touching &= top1 < bottom2
    touching &= top2 < bottom1
    keeper, other = np.divmod(np.flatnonzero(touching), others.shape[1])
    hit = np.zeros(others.shape[1], np.bool_)
    hit[other[_overlap(keepers[:, keeper], others[:, other]) > iou_threshold]] = True
    return hit


def _to_source(rows: Boxes, geometry: Geometry) -> Boxes:
    """Undo the letterbox in place: each axis by its own rounded scale, then clip."""
    height, width = geometry.source_height, geometry.source_width
    inner_height, inner_width = scaled_sides(height, width, geometry.scale)
    left, top, across, down = geometry.pad_left, geometry.pad_top, inner_width / width, inner_height / height
    padding, scale, last = np.array(
        ((left, top, left, top), (across, down, across, down), (width, height, width, height)), np.float32
    )
    corners = rows[:, :4]
    corners -= padding
    corners /= scale
    np.maximum(corners, 0, out=corners)
    np.minimum(corners, last, out=corners)
    return rows
