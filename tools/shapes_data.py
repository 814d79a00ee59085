"""Draws the synthetic data set of the example detector: five shapes on backgrounds that try to mislead.

Every image is a pure function of (seed, index): numpy's generator decides, OpenCV draws. Nothing is read from disk or network.

Run it to write only the labelled example images (train_example.py writes everything):

    python tools/shapes_data.py examples/images
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Points = NDArray[np.float64]

CLASSES = ("circle", "square", "triangle", "star", "cross")
"""The names of the classes; the position is the class number."""

SIZES = (
    (640, 480), (480, 640), (640, 360), (360, 640), (512, 512), (800, 450), (960, 720), (400, 300),
    (720, 720), (640, 427), (333, 500), (1024, 576), (517, 389), (320, 320), (900, 400),
)  # fmt: skip
"""Width and height in pixels: 4:3, 16:9, 1:1, 3:2, 9:4, portrait, odd numbers."""

EXAMPLE_SEED = 40_000
"""Seed of the committed example images; training and validation use other seeds."""

EXAMPLE_COUNT = 40
EXAMPLE_BYTES = (10_000, 60_000)
"""Least and most bytes of one committed example image."""

_SUBPIXEL_BITS = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """One labelled object: class number and its box x1, y1, x2, y2 in pixels, clipped to the image."""

    label: int
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Sample:
    """One drawn image, H x W x 3 uint8 in OpenCV's BGR order, with everything to be found in it."""

    image: Image
    shapes: tuple[Shape, ...]


def draw_sample(seed: int, index: int) -> Sample:
    """Draw image number `index` of the endless sequence that `seed` names."""
    rng = np.random.default_rng([seed, index])
    width, height = SIZES[int(rng.integers(len(SIZES)))]
    canvas = _background(rng, height, width)
    _clutter(rng, canvas)
    shapes: list[Shape] = []
    for _ in range(int(rng.integers(1, 8))):
        placed = _place(rng, canvas, shapes)
        if placed is not None:
            shapes.append(placed)
    return Sample(_camera(rng, canvas), tuple(shapes))


def _background(rng: np.random.Generator, height: int, width: int) -> Image:
    """Flat, gradient, blotches, checkerboard or stripes."""
    low, high = rng.integers(0, 256, 3).astype(np.float32), rng.integers(0, 256, 3).astype(np.float32)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    along = xs * np.float32(np.cos(angle)) + ys * np.float32(np.sin(angle))
    kind = int(rng.integers(5))
    if kind == 0:
        mix = np.zeros((height, width), np.float32)
    elif kind == 1:
        mix = (along - along.min()) / (np.ptp(along) + 1)
    elif kind == 2:
        cells = int(rng.integers(3, 24))
        coarse = rng.random((cells, cells), dtype=np.float32)
        mix = np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1).astype(np.float32)
    else:
        high = low + (high - low) * np.float32(rng.uniform(0.1, 0.5))
        period = rng.uniform(12, 60)
        mix = (np.floor(along / period) % 2).astype(np.float32)
        if kind == 3:
            across = -xs * np.float32(np.sin(angle)) + ys * np.float32(np.cos(angle))
            mix = np.abs(mix - (np.floor(across / period) % 2).astype(np.float32))
    canvas = low + (high - low) * mix[..., None]
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _clutter(rng: np.random.Generator, canvas: Image) -> None:
    """Lines, open arcs, dots and letters that are not objects."""
    height, width = canvas.shape[:2]
    for _ in range(int(rng.integers(0, 16))):
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        x, y = int(rng.integers(width)), int(rng.integers(height))
        kind = int(rng.integers(4))
        if kind == 0:
            end = (int(rng.integers(width)), int(rng.integers(height)))
            cv2.line(canvas, (x, y), end, colour, int(rng.integers(1, 4)), cv2.LINE_AA)
        elif kind == 1:
            radii = (int(rng.integers(8, 60)), int(rng.integers(8, 60)))
            start = int(rng.integers(360))
            cv2.ellipse(canvas, (x, y), radii, 0, start, start + int(rng.integers(30, 140)), colour, 2, cv2.LINE_AA)
        elif kind == 2:
            cv2.circle(canvas, (x, y), int(rng.integers(1, 4)), colour, -1, cv2.LINE_AA)
        else:
            text = "".join(chr(c) for c in rng.integers(65, 91, 3))
            cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, rng.uniform(0.3, 0.8), colour, 1, cv2.LINE_AA)


def _place(rng: np.random.Generator, canvas: Image, others: list[Shape]) -> Shape | None:
    """Draw one shape where it hides at most a quarter of another; None when there is no room for it."""
    height, width = canvas.shape[:2]
    label = int(rng.integers(len(CLASSES)))
    for _ in range(20):
        radius = max(width, height) * float(np.exp(rng.uniform(np.log(0.045), np.log(0.17))))
        points = _outline(rng, label) * radius
        spread = points.max(axis=0) - points.min(axis=0)
        # Up to a fifth of the shape may lie outside the image.
        centre = rng.uniform(spread * 0.3, np.array([width, height]) - spread * 0.3)
        points = points + centre
        x1, y1 = np.clip(points.min(axis=0), 0, [width, height])
        x2, y2 = np.clip(points.max(axis=0), 0, [width, height])
        shape = Shape(label, (float(x1), float(y1), float(x2), float(y2)))
        if all(_hidden_share(shape.box, other.box) <= 0.25 for other in others):
            _paint(rng, canvas, points, shape.box)
            return shape
    return None


def _outline(rng: np.random.Generator, label: int) -> Points:
    """Corner points of a class around the origin at radius 1, turned and stretched a little."""
    if CLASSES[label] == "circle":
        angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    elif CLASSES[label] == "square":
        points = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.8
    elif CLASSES[label] == "triangle":
        angles = np.pi / 2 + np.arange(3) * 2 * np.pi / 3
        points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 1.1
    elif CLASSES[label] == "star":
        angles = np.pi / 2 + np.arange(10) * np.pi / 5
        radii = np.where(np.arange(10) % 2 == 0, 1.1, 0.46)
        points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
    else:
        arm = rng.uniform(0.2, 0.32)
        quarter = np.array([[arm, -1], [arm, -arm], [1, -arm]])
        turns = [np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]]) for t in np.arange(4) * np.pi / 2]
        points = np.concatenate([quarter @ turn for turn in turns])
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray(points * rng.uniform(0.85, 1.15, 2) @ turn, dtype=np.float64)


def _hidden_share(one: tuple[float, ...], two: tuple[float, ...]) -> float:
    """Overlap of two boxes over the area of the smaller."""
    width = min(one[2], two[2]) - max(one[0], two[0])
    height = min(one[3], two[3]) - max(one[1], two[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (one, two))
    return max(width, 0.0) * max(height, 0.0) / max(smaller, 1.0)


def _paint(rng: np.random.Generator, canvas: Image, points: Points, box: tuple[float, ...]) -> None:
    """Fill a shape with one colour, a gradient or grain, or draw it as a thick outline; always unlike what is behind it."""
    x1, y1, x2, y2 = (int(v) for v in (box[0], box[1], np.ceil(box[2]), np.ceil(box[3])))
    behind = canvas[y1:y2, x1:x2].reshape(-1, 3).mean(axis=0)
    colour = rng.integers(0, 256, 3).astype(np.float64)
    for _ in range(50):
        if np.abs(colour - behind).sum() > 150:
            break
        colour = rng.integers(0, 256, 3).astype(np.float64)
    corners = [np.round(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)]
    style = rng.random()
    if style < 0.2:
        thickness = max(2, round(min(x2 - x1, y2 - y1) * rng.uniform(0.06, 0.12)))
        cv2.polylines(canvas, corners, True, tuple(colour), thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
    elif style < 0.7:
        cv2.fillPoly(canvas, corners, tuple(colour), cv2.LINE_AA, _SUBPIXEL_BITS)
    else:
        mask = np.zeros(canvas.shape[:2], np.uint8)
        cv2.fillPoly(mask, corners, (255,), cv2.LINE_AA, _SUBPIXEL_BITS)
        region = canvas[y1:y2, x1:x2].astype(np.float64)
        fill = np.broadcast_to(colour, region.shape)
        if style < 0.85:
            fill = fill + rng.normal(0, rng.uniform(8, 30), (*region.shape[:2], 1))
        else:
            fill = fill + np.linspace(-50, 50, region.shape[1])[None, :, None]
        alpha = mask[y1:y2, x1:x2, None] / 255.0
        canvas[y1:y2, x1:x2] = np.clip(fill * alpha + region * (1 - alpha), 0, 255).astype(np.uint8)


def _camera(rng: np.random.Generator, canvas: Image) -> Image:
    """A little blur, grain and wrong exposure."""
    if rng.random() < 0.25:
        canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.5, 1.5)), dtype=np.uint8)
    picture = canvas.astype(np.float32)
    if rng.random() < 0.5:
        picture = picture + rng.normal(0, rng.uniform(1, 10), (*canvas.shape[:2], 1)).astype(np.float32)
    picture = picture * np.float32(rng.uniform(0.75, 1.1))
    return np.clip(picture, 0, 255).astype(np.uint8)


def write_yolo_split(folder: Path, split: str, seed: int, count: int) -> None:
    """Write `count` images and their label files in Ultralytics' layout: images/SPLIT, labels/SPLIT."""
    images, labels = folder / "images" / split, folder / "labels" / split
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        sample = draw_sample(seed, index)
        height, width = sample.image.shape[:2]
        cv2.imwrite(str(images / f"{index:05d}.jpg"), sample.image, [cv2.IMWRITE_JPEG_QUALITY, 85])
        (labels / f"{index:05d}.txt").write_text("".join(_yolo_lines(sample, width, height)))


def _yolo_lines(sample: Sample, width: int, height: int) -> Iterator[str]:
    for shape in sample.shapes:
        x1, y1, x2, y2 = shape.box
        centre_x, centre_y = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
        yield f"{shape.label} {centre_x:.6f} {centre_y:.6f} {(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}\n"


def write_examples(folder: Path, count: int = EXAMPLE_COUNT) -> None:
    """Write the labelled example images, each within EXAMPLE_BYTES, and labels.json beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    for index in range(count):
        sample = draw_sample(EXAMPLE_SEED, index)
        height, width = sample.image.shape[:2]
        name = f"shapes-{index:02d}.jpg"
        (folder / name).write_bytes(_encode_within(sample.image, *EXAMPLE_BYTES))
        objects = [{"name": CLASSES[s.label], "box": [round(v, 2) for v in s.box]} for s in sample.shapes]
        entries.append({"file": name, "width": width, "height": height, "objects": objects})
    lines = ",\n".join("    " + json.dumps(entry) for entry in entries)
    (folder / "labels.json").write_text(f'{{\n  "classes": {json.dumps(CLASSES)},\n  "images": [\n{lines}\n  ]\n}}\n')


def _encode_within(image: Image, least_bytes: int, most_bytes: int) -> bytes:
    """Encode as JPEG at the best quality that fits; ValueError when none does."""
    for quality in (85, 90, 95, 98, 100):
        data = _jpeg(image, quality)
        if len(data) >= least_bytes:
            break
    for quality in range(80, 20, -5):
        if len(data) <= most_bytes:
            break
        data = _jpeg(image, quality)
    if not least_bytes <= len(data) <= most_bytes:
        raise ValueError(f"no JPEG quality gives {least_bytes} to {most_bytes} bytes, the last gave {len(data)}")
    return data


def _jpeg(image: Image, quality: int) -> bytes:
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError("OpenCV could not encode a JPEG")
    return data.tobytes()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the labelled example images of the shapes detector.")
    parser.add_argument("folder", type=Path)
    write_examples(parser.parse_args().folder)
