"""Letterbox: scale an image into the model's input and pad the rest with grey."""

import cv2

from yolastic_worker.types import Geometry, Pixels

PADDING = 114
"""Grey level of the padding: Ultralytics' own."""


def letterbox(rgb: Pixels, height: int, width: int, out: Pixels) -> Geometry:
    """Scale `rgb` uint8 [h, w, 3] with its aspect kept into `out` uint8 [height, width, 3], centred, padded with grey.

    Pixel for pixel what Ultralytics' LetterBox(auto=False, scaleup=True, center=True, INTER_LINEAR) gives: sides are rounded
    half to even and at least 1; of an odd padding the smaller half goes to the top and left.

    Raises:
        ValueError: `out` has another shape.
    """
    if out.shape != (height, width, 3):
        raise ValueError(f"slot is {out.shape}, not {(height, width, 3)}")
    source_height, source_width = rgb.shape[:2]
    scale = min(height / source_height, width / source_width)
    inner_height, inner_width = scaled_sides(source_height, source_width, scale)
    top = round((height - inner_height) / 2 - 0.1)
    left = round((width - inner_width) / 2 - 0.1)
    bottom, right = top + inner_height, left + inner_width
    inner = out[top:bottom, left:right]
    if (inner_height, inner_width) == (source_height, source_width):
        inner[:] = rgb
    else:
        resized = cv2.resize(rgb, (inner_width, inner_height), dst=inner, interpolation=cv2.INTER_LINEAR)
        if resized is not inner:  # cv2 writes into a strided slot, but does not promise to
            inner[:] = resized
    out[:top] = PADDING
    out[bottom:] = PADDING
    out[top:bottom, :left] = PADDING
    out[top:bottom, right:] = PADDING
    return Geometry(source_height, source_width, scale, left, top)


def scaled_sides(source_height: int, source_width: int, scale: float) -> tuple[int, int]:
    """Height and width of the scaled image inside the padding, pixels; a side never vanishes."""
    return max(round(source_height * scale), 1), max(round(source_width * scale), 1)
