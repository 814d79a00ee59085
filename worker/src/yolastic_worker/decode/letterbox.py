"""Letterbox: scale an image into the model's input and pad the rest with grey."""

import cv2

from yolastic_worker.types import Geometry, Pixels

PADDING = 114
"""Grey level of the padding: Ultralytics' own."""


def letterbox(rgb: Pixels, height: int, width: int, out: Pixels) -> Geometry:
    """Scale `rgb` uint8 [h, w, 3] with its aspect kept into `out` uint8 [height, width, 3], centred, padded with grey.

    Pixel for pixel what Ultralytics' LetterBox(auto=False, scaleup=True, center=True, INTER_LINEAR) gives.
    """
    source_height, source_width = rgb.shape[:2]
    scale = min(height / source_height, width / source_width)
    inner_width, inner_height = round(source_width * scale), round(source_height * scale)
    pad_x, pad_y = (width - inner_width) / 2, (height - inner_height) / 2
    left, top = round(pad_x - 0.1), round(pad_y - 0.1)
    out[:] = PADDING
    inner = out[top : top + inner_height, left : left + inner_width]
    inner[:] = cv2.resize(rgb, (inner_width, inner_height), interpolation=cv2.INTER_LINEAR)
    return Geometry(source_height, source_width, scale, left, top)
