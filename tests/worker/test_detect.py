"""Detection: both heads, suppression against a one-box-at-a-time reference, and the way back to source pixels."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolastic_worker.postprocess import HeadKind, detect, head_kind
from yolastic_worker.postprocess.detect import suppress
from yolastic_worker.types import Geometry, Thresholds

Floats = np.ndarray[Any, np.dtype[np.float32]]
AS_IS = Geometry(source_height=640, source_width=640, scale=1.0, pad_left=0, pad_top=0)


def raw(*anchors: tuple[float, ...]) -> Floats:
    """A raw head from (centre x, centre y, width, height, score of class 0, 1, 2) anchors."""
    return np.array(anchors, np.float32).T


def end_to_end(*rows: tuple[float, ...]) -> Floats:
    return np.array(rows, np.float32).reshape(-1, 6)


@pytest.mark.parametrize(
    ("shape", "classes", "kind"),
    [
        ((1, 84, 8400), 80, HeadKind.RAW),
        (("batch", 84, "anchors"), 80, HeadKind.RAW),
        ((None, 8, None), 4, HeadKind.RAW),
        (("batch", 300, 6), 80, HeadKind.END_TO_END),
        (("batch", 6, 8400), 2, HeadKind.RAW),
        (("batch", 300, 6), 2, HeadKind.END_TO_END),
        (("batch", 84, 8400), 79, None),
        (("batch", 116, 8400), 80, None),  # segmentation
        (("batch", 300, 38), 80, None),
        (("batch", 1000), 1000, None),
        ((), 80, None),
    ],
)
def test_head_kind(shape: tuple[int | str | None, ...], classes: int, kind: HeadKind | None) -> None:
    assert head_kind(shape, classes) is kind


def test_raw_head_by_hand() -> None:
    output = raw(
        (100, 100, 40, 20, 0.1, 0.9, 0.0),
        (102, 100, 40, 20, 0.0, 0.8, 0.0),  # the same object: 38/42 of overlap
        (102, 100, 40, 20, 0.5, 0.0, 0.0),  # another class stays
        (300, 300, 10, 10, 0.25, 0.2, 0.1),  # at the limit is not above it
        (400, 300, 10, 10, 0.0, 0.0, 0.95),
    )
    boxes = detect(output, HeadKind.RAW, Thresholds(), AS_IS)
    expected = [[395, 295, 405, 305, 0.95, 2], [80, 90, 120, 110, 0.9, 1], [82, 90, 122, 110, 0.5, 0]]
    np.testing.assert_allclose(boxes, expected, rtol=1e-6)
    assert boxes.dtype == np.float32


def test_end_to_end_head_by_hand() -> None:
    output = end_to_end((10, 20, 30, 40, 0.9, 1), (10, 20, 30, 40, 0.8, 1), (1, 2, 3, 4, 0.25, 0), (5, 5, 700, 9, 0.26, 2))
    boxes = detect(output, HeadKind.END_TO_END, Thresholds(), AS_IS)
    expected = [[10, 20, 30, 40, 0.9, 1], [10, 20, 30, 40, 0.8, 1], [5, 5, 640, 9, 0.26, 2]]
    np.testing.assert_allclose(boxes, expected, rtol=1e-6)
    assert output[3, 2] == 700, "the model's output is left alone"


@pytest.mark.parametrize(("iou", "kept"), [(0.89, 1), (0.91, 2), (1.0, 2), (0.0, 1)])
def test_overlap_limit(iou: float, kept: int) -> None:
    output = raw((100, 100, 40, 20, 0.9, 0, 0), (102, 100, 40, 20, 0.8, 0, 0))  # 760 / 840
    assert len(detect(output, HeadKind.RAW, Thresholds(iou=iou), AS_IS)) == kept


def test_overlap_of_exactly_the_limit_stays() -> None:
    output = raw((100, 100, 40, 20, 0.9, 0, 0), (110, 100, 20, 20, 0.8, 0, 0))  # 400 / 800
    assert len(detect(output, HeadKind.RAW, Thresholds(iou=0.5), AS_IS)) == 2
    assert len(detect(output, HeadKind.RAW, Thresholds(iou=0.4999), AS_IS)) == 1


@pytest.mark.parametrize("kind", list(HeadKind))
def test_most_detections(kind: HeadKind) -> None:
    apart = [(20.0 * i, 50.0 * i) for i in range(12)]
    output = (
        raw(*((x, y, 5, 5, 0.9 - x / 1000, 0, 0) for x, y in apart))
        if kind is HeadKind.RAW
        else end_to_end(*((x, y, x + 5, y + 5, 0.9 - x / 1000, 0) for x, y in apart))
    )
    boxes = detect(output, kind, Thresholds(max_detections=5), AS_IS)
    assert len(boxes) == 5
    np.testing.assert_allclose(boxes[:, 4], [0.9, 0.88, 0.86, 0.84, 0.82], rtol=1e-6)


@pytest.mark.parametrize("output", [np.zeros((7, 100), np.float32), np.zeros((7, 0), np.float32)])
def test_nothing_found(output: Floats) -> None:
    boxes = detect(output, HeadKind.RAW, Thresholds(), AS_IS)
    assert boxes.shape == (0, 6)
    assert boxes.dtype == np.float32
    assert detect(np.zeros((0, 6), np.float32), HeadKind.END_TO_END, Thresholds(), AS_IS).shape == (0, 6)


def test_scores_that_are_no_number_are_no_detection() -> None:
    output = raw((100, 100, 40, 20, np.nan, 0.9, 0), (300, 100, 40, 20, 0.5, 0, 0))
    assert detect(output, HeadKind.RAW, Thresholds(), AS_IS)[:, 4].tolist() == [0.5]


@pytest.mark.parametrize("kind", list(HeadKind))
def test_half_precision_outputs(kind: HeadKind) -> None:
    output = raw((100, 100, 40, 20, 0.75, 0, 0)) if kind is HeadKind.RAW else end_to_end((80, 90, 120, 110, 0.75, 0))
    boxes = detect(output.astype(np.float16), kind, Thresholds(), AS_IS)
    assert boxes.dtype == np.float32
    np.testing.assert_allclose(boxes, [[80, 90, 120, 110, 0.75, 0]])


@pytest.mark.parametrize(
    ("geometry", "box", "expected"),
    [
        (Geometry(1080, 1920, 1 / 3, 0, 140), (0, 140, 640, 500), (0, 0, 1920, 1080)),
        (Geometry(1080, 1920, 1 / 3, 0, 140), (-5, 100, 700, 600), (0, 0, 1920, 1080)),
        (Geometry(1080, 1920, 1 / 3, 0, 140), (100, 200, 110, 260), (300, 180, 330, 360)),
        (Geometry(500, 300, 384 / 500, 205, 0), (205, 0, 435, 384), (0, 0, 300, 500)),  # each axis has its own rounded scale
        (Geometry(320, 320, 2.0, 0, 0), (10, 20, 30, 40), (5, 10, 15, 20)),
    ],
)
def test_back_to_source_pixels(geometry: Geometry, box: tuple[float, ...], expected: tuple[float, ...]) -> None:
    boxes = detect(end_to_end((*box, 0.9, 1)), HeadKind.END_TO_END, Thresholds(), geometry)
    np.testing.assert_allclose(boxes[0, :4], expected, rtol=1e-5, atol=1e-3)


def one_at_a_time(boxes: Floats, limit: float, most: int) -> list[int]:
    """Greedy suppression as it is told in a sentence, float32."""
    kept: list[int] = []
    for index, box in enumerate(boxes):
        if len(kept) == most:
            break
        for other in boxes[kept]:
            width = max(np.float32(0), min(box[2], other[2]) - max(box[0], other[0]))
            height = max(np.float32(0), min(box[3], other[3]) - max(box[1], other[1]))
            shared = width * height
            union = (other[2] - other[0]) * (other[3] - other[1]) + (box[2] - box[0]) * (box[3] - box[1]) - shared
            if union > 0 and shared / union > limit:
                break
        else:
            kept.append(index)
    return kept


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(0, 300),
    spread=st.sampled_from([5, 60, 600]),
    whole=st.booleans(),
    limit=st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.95, 1.0]),
    most=st.sampled_from([1, 10, 300]),
)
def test_suppression_is_greedy(*, seed: int, count: int, spread: int, whole: bool, limit: float, most: int) -> None:
    generator = np.random.default_rng(seed)
    corners = generator.random((count, 2)) * spread
    sizes = generator.random((count, 2)) * 60
    boxes = np.concatenate([corners, corners + sizes], axis=1)
    boxes = (np.round(boxes) if whole else boxes).astype(np.float32)  # whole pixels: ties, and empty boxes
    assert suppress(boxes, limit, most).tolist() == one_at_a_time(boxes, limit, most)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), conf=st.floats(0.01, 0.9), iou=st.floats(0.1, 0.9))
def test_detections_are_sorted_inside_and_above_the_limit(seed: int, conf: float, iou: float) -> None:
    generator = np.random.default_rng(seed)
    output = np.concatenate([generator.random((4, 400)) * 640, generator.random((3, 400)) ** 3]).astype(np.float32)
    geometry = Geometry(333, 500, 1.28, 0, 107)
    boxes = detect(output, HeadKind.RAW, Thresholds(conf=conf, iou=iou, max_detections=50), geometry)
    assert len(boxes) <= 50
    assert (boxes[:, 4] > np.float32(conf)).all()
    assert (np.diff(boxes[:, 4]) <= 0).all()
    assert ((boxes[:, [0, 2]] >= 0) & (boxes[:, [0, 2]] <= 500)).all()
    assert ((boxes[:, [1, 3]] >= 0) & (boxes[:, [1, 3]] <= 333)).all()
    assert set(boxes[:, 5].tolist()) <= {0.0, 1.0, 2.0}
