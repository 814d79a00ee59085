"""Are two answers of one model to one image the same? Between slots, batch sizes, ways of running it, and days.

Not bit for bit: a device picks other kernels for another batch size, and half precision rounds differently in each. But every
strong box must be there, in its place, with its score and class. Boxes are compared before suppression, which would turn a
rounding into another choice among overlapping boxes.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from yolastic_worker.postprocess import HeadKind
from yolastic_worker.types import Boxes, Pixels

_STRONGEST: Final = 50
_PROBES: Final = 3
_PIXELS: Final = 2.0
_SIDE_SHARE: Final = 0.05
"""An edge may be off by so many input pixels and so much of its box's longer side."""
_SCORE_SHARE: Final = 0.1
_SCORE: Final = 0.02
"""A score may be off by so much of itself and, from 0.1 on, so much more. Below that by 30 % of itself: the answers of a model
that sees nothing are told apart from zeros, too."""

Floats = npt.NDArray[np.floating[Any]]


class Canary(NamedTuple):
    """An image, and what the model answered to it when it was known to be right."""

    pixels: Pixels
    """uint8 [H, W, 3] RGB, the model's input size."""
    boxes: Boxes
    """float32 [M, 6] x1 y1 x2 y2 score class, input pixels: the strongest candidates before suppression, best first."""
    anchors: npt.NDArray[np.intp]
    """[M]: where in the output they stand; an end-to-end head may order them otherwise the next time."""

    def differs(self, output: Floats, head: HeadKind) -> str | None:
        """What is wrong with an answer to the same image (one image's output, without the batch axis); None: nothing.

        The words are for logs: the first difference, nothing of the image.
        """
        if not np.isfinite(output).all():
            return "it holds numbers that are not finite"
        if head is HeadKind.RAW:
            found = _raw_rows(output, self.anchors, self.boxes[:, 5].astype(np.intp))
        else:
            found = _partners(self.boxes, output.astype(np.float32, copy=False))
        return _difference(self.boxes, found) or _surplus(self.boxes, output, head)


def probe_images(height: int, width: int) -> list[Pixels]:
    """Images uint8 [H, W, 3] to ask a model with: blocks of colour and a disc before a gradient; always the same."""
    images = []
    for seed in range(_PROBES):
        rng = np.random.default_rng(seed)
        ramp = np.linspace(40, 215, width, dtype=np.float32)[None, :, None] * np.ones((height, 1, 3), np.float32)
        image = (ramp if seed % 2 else 255 - ramp).astype(np.uint8)
        for _ in range(3 + 2 * seed):
            top, left = int(rng.integers(0, height * 3 // 4)), int(rng.integers(0, width * 3 // 4))
            tall, wide = (int(rng.integers(side // 8, side // 3)) for side in (height, width))
            image[top : top + tall, left : left + wide] = rng.integers(0, 256, 3)
        y, x = np.ogrid[:height, :width]
        radius = min(height, width) // 6
        centre_y, centre_x = rng.integers(radius, height - radius), rng.integers(radius, width - radius)
        image[(y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2] = rng.integers(0, 256, 3)
        images.append(image)
    return images


def observe(pixels: Pixels, output: Floats, head: HeadKind) -> Canary:
    """The canary of an answer that is believed: `output` of one image, without the batch axis."""
    best = output[4:].max(axis=0) if head is HeadKind.RAW else output[:, 4]
    anchors = np.argsort(-best, kind="stable")[:_STRONGEST]
    if head is HeadKind.RAW:
        return Canary(pixels, _raw_rows(output, anchors, output[4:, anchors].argmax(axis=0)), anchors)
    return Canary(pixels, output[anchors].astype(np.float32), anchors)


def _raw_rows(output: Floats, anchors: npt.NDArray[np.intp], classes: npt.NDArray[np.intp]) -> Boxes:
    """float32 [M, 6]: these anchors, each with its score for this class. Of two classes that tie, either may be the best."""
    centre_x, centre_y, width, height = output[:4, anchors].astype(np.float32)
    rows = np.empty((len(anchors), 6), np.float32)
    rows[:, 0], rows[:, 1] = centre_x - width / 2, centre_y - height / 2
    rows[:, 2], rows[:, 3] = centre_x + width / 2, centre_y + height / 2
    rows[:, 4], rows[:, 5] = output[4 + classes, anchors], classes
    return rows


def _partners(wanted: Boxes, output: Boxes) -> Boxes:
    """For each wanted box the most similar of all that were found; only the strong half has to be found at all."""
    strong = wanted[: max(1, int((wanted[:, 4] >= wanted[:1, 4] / 2).sum()))]
    distance = np.abs(strong[:, None, :4] - output[None, :, :4]).max(axis=2)
    distance += 1e4 * (strong[:, None, 5] != output[None, :, 5]) + 1e3 * np.abs(strong[:, None, 4] - output[None, :, 4])
    partners: Boxes = output[distance.argmin(axis=1)]
    return partners


def _score_slack(scores: Boxes) -> Boxes:
    slack: Boxes = (_SCORE_SHARE * scores + _SCORE * np.minimum(1, 10 * scores) + 1e-6).astype(np.float32)
    return slack


def _difference(wanted: Boxes, found: Boxes) -> str | None:
    """The first difference of boxes that belong together; `found` may be the first few only."""
    wanted = wanted[: len(found)]
    off = np.abs(found - wanted)
    sides = np.maximum(wanted[:, 2] - wanted[:, 0], wanted[:, 3] - wanted[:, 1])
    wrong_score = off[:, 4] > _score_slack(wanted[:, 4])
    wrong_place = off[:, :4].max(axis=1) > _PIXELS + _SIDE_SHARE * np.abs(sides)
    for index in np.flatnonzero(wrong_score | wrong_place | (off[:, 5] > 0))[:1]:
        return f"the box {_words(found[index])} should be {_words(wanted[index])}"
    return None


def _surplus(wanted: Boxes, output: Floats, head: HeadKind) -> str | None:
    """A box that is stronger than all that there should be."""
    best = float(output[4:].max() if head is HeadKind.RAW else output[:, 4].max())
    if best > wanted[0, 4] + _score_slack(wanted[:1, 4])[0]:
        return f"it holds a box of score {best:.3f}, and the best should be {wanted[0, 4]:.3f}"
    return None


def _words(box: Boxes) -> str:
    x1, y1, x2, y2, score, number = box.tolist()
    return f"[{x1:.0f} {y1:.0f} {x2:.0f} {y2:.0f}] class {number:.0f} score {score:.3g}"
