"""The letterbox against Ultralytics' own geometry and pixels."""

import json
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolastic_worker.decode import letterbox

GOLDENS = Path(__file__).parents[1] / "goldens/letterbox.json"


def blank(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((height, width, 3), 7, np.uint8)


@pytest.mark.parametrize("case", json.loads(GOLDENS.read_text())["cases"], ids=lambda case: f"{case['width']}x{case['height']}")
def test_same_pixels_as_ultralytics(case: dict[str, Any]) -> None:
    image = np.random.RandomState(case["seed"]).randint(0, 256, (case["height"], case["width"], 3), dtype=np.uint8)
    assert zlib.crc32(image.tobytes()) == case["image_crc32"]
    height, width = case["target"]
    out = blank(height, width)
    geometry = letterbox(image, height, width, out)
    assert zlib.crc32(out.tobytes()) == case["crc32"]
    assert geometry.scale == case["ratio"]
    assert (geometry.pad_left, geometry.pad_top) == (case["left"], case["top"])


@pytest.mark.parametrize(
    ("source", "target", "left", "top", "inner"),
    [
        ((480, 640), (640, 640), 0, 80, (480, 640)),
        ((1080, 1920), (640, 640), 0, 140, (360, 640)),
        ((640, 640), (640, 640), 0, 0, (640, 640)),
        ((100, 100), (640, 640), 0, 0, (640, 640)),  # scaled up
        ((333, 500), (640, 640), 0, 107, (426, 640)),
        ((427, 640), (640, 640), 0, 106, (427, 640)),  # 213 rows of padding: the smaller half on top
        ((1, 3000), (640, 640), 0, 319, (1, 640)),  # a side never vanishes
        ((500, 300), (384, 640), 205, 0, (384, 230)),
    ],
)
def test_geometry(source: tuple[int, int], target: tuple[int, int], left: int, top: int, inner: tuple[int, int]) -> None:
    out = blank(*target)
    geometry = letterbox(np.zeros((*source, 3), np.uint8), *target, out)
    assert (geometry.source_height, geometry.source_width) == source
    assert (geometry.pad_left, geometry.pad_top) == (left, top)
    expected = np.full((*target, 3), 114, np.uint8)
    expected[top : top + inner[0], left : left + inner[1]] = 0
    assert np.array_equal(out, expected)


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([(32, 32), (64, 32), (32, 96)]), st.integers(0, 2**31))
def test_whole_slot_is_written_and_colours_stay_in_place(height: int, width: int, target: tuple[int, int], seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    first, second = np.zeros((*target, 3), np.uint8), np.full((*target, 3), 255, np.uint8)
    geometry = letterbox(image, *target, first)
    assert letterbox(image, *target, second) == geometry
    assert np.array_equal(first, second)
    flipped = np.empty_like(first)
    letterbox(np.ascontiguousarray(image[..., ::-1]), *target, flipped)
    assert np.array_equal(flipped[..., ::-1], first)
    assert 0 <= geometry.pad_left < target[1]
    assert 0 <= geometry.pad_top < target[0]


def test_a_slot_inside_a_larger_buffer() -> None:
    buffer = np.zeros((4, 64, 64, 3), np.uint8)
    image = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    alone = blank(64, 64)
    letterbox(image, 64, 64, alone)
    letterbox(image, 64, 64, buffer[2])
    assert np.array_equal(buffer[2], alone)
    assert not buffer[[0, 1, 3]].any()
    wide = np.zeros((64, 80, 3), np.uint8)[:, :64]
    letterbox(image, 64, 64, wide)
    assert np.array_equal(wide, alone)


def test_wrong_slot_is_an_error() -> None:
    with pytest.raises(ValueError, match="slot is"):
        letterbox(blank(4, 4), 32, 32, blank(32, 64))


def test_resize_is_single_threaded() -> None:
    assert cv2.getNumThreads() == 1
