"""How long a batch takes: t(b) = a + c*b, learned online."""

from collections.abc import Iterable
from math import isfinite
from typing import Final

from yolastic_contract.state import Fit

_FORGETTING: Final = 0.97
"""Weight of all earlier batches after each new one: about the last 30 count."""
_PRIOR_WEIGHT: Final = 0.1
"""The seed counts as a tenth of a batch: it decides only what the batches leave open."""
_OUTLIER: Final = 1.5
"""A batch this many times slower or faster than predicted is taken for a hiccup and cut to the edge."""
_BELIEVED_AFTER: Final = 4
"""This many hiccups in a row, all slow or all fast, are the new truth."""
_PARAMETER_FLOOR: Final = 0.1
"""A parameter that was seeded near 0 may still move as if it were this share of t(1)."""
_TINY_S: Final = 1e-9


class SpeedModel:
    """Exponentially forgetting least squares with a >= 0 and c >= 0, in relative errors; one model a shape key and precision.

    Each batch counts by its error relative to the prediction, so that batches of one matter beside batches of 32. What the recent
    batches cannot tell (they may all have had one size) has the proportions of the seed: a device that slows down is slower
    at every size. One slow batch is clipped; several in a row are believed, and the past is forgotten faster. No clock.
    """

    def __init__(self, seed: Iterable[tuple[int, float]] = ()) -> None:
        """`seed`: (images, seconds) of the warm-up; of several runs of one size the fastest counts, the first is a cold one."""
        self._prior: tuple[float, float] | None = None
        self._line: tuple[float, float] = (0.0, 0.0)
        self._sums = [0.0] * 5
        self._streak = 0
        self._samples = 0
        self._residual_s = 0.0
        self._fit: Fit | None = None
        fastest: dict[int, float] = {}
        for images, seconds in seed:
            if _is_measurement(images, seconds):
                fastest[images] = min(seconds, fastest.get(images, seconds))
                self._samples += 1
        if fastest:
            self._start(fastest)

    @property
    def fit(self) -> Fit | None:
        """The line as it is known now; None before the first sample."""
        if self._fit is None and self._prior is not None:  # kept until the next batch: every request asks for it
            fixed, per_image = self._line
            self._fit = Fit(fixed=fixed, per_image=per_image, residual=self._residual_s, samples=self._samples)
        return self._fit

    def seconds(self, images: int) -> float | None:
        """Predicted seconds of a batch; None before the first sample."""
        return None if self._prior is None else self._line[0] + self._line[1] * images

    def observe(self, images: int, seconds: float) -> None:
        """Learn from a batch that ran; what cannot be a measurement (no images, no time) is ignored."""
        if not _is_measurement(images, seconds):
            return
        self._samples += 1
        self._fit = None
        if self._prior is None:
            self._start({images: seconds})
            return
        predicted_s = self._line[0] + self._line[1] * images
        used_s = self._clip(seconds, predicted_s)
        self._residual_s = max(self._residual_s * _FORGETTING, abs(used_s - predicted_s))
        self._add(images, used_s, 1.0 / predicted_s**2)
        self._line = self._solve()

    def _start(self, seed: dict[int, float]) -> None:
        """Least squares through the seed in relative errors; one size alone is read as half fixed, half per image."""
        if len(seed) == 1:
            ((images, seconds),) = seed.items()
            self._line = (seconds / 2, seconds / 2 / images)
        else:
            for images, seconds in seed.items():
                self._add(images, seconds, 1.0 / seconds**2)
            self._line = _constrained(*self._sums)
            self._sums = [0.0] * 5
        self._prior = self._line
        self._residual_s = max(abs(seconds - self._line[0] - self._line[1] * images) for images, seconds in seed.items())

    def _clip(self, seconds: float, predicted_s: float) -> float:
        """The seconds to learn from: near the prediction as they are, outliers cut to the edge until a row of them agrees."""
        lowest_s, highest_s = predicted_s / _OUTLIER, predicted_s * _OUTLIER
        if lowest_s <= seconds <= highest_s:
            self._streak = 0
            return seconds
        direction = 1 if seconds > highest_s else -1
        self._streak = self._streak + direction if self._streak * direction > 0 else direction
        if abs(self._streak) < _BELIEVED_AFTER:
            return min(max(seconds, lowest_s), highest_s)
        self._sums = [total * 0.5 for total in self._sums]
        return seconds

    def _add(self, images: int, seconds: float, weight: float) -> None:
        """Sums of w, w*b, w*b^2, w*t, w*b*t with the past forgotten by one step."""
        terms = (weight, weight * images, weight * images**2, weight * seconds, weight * images * seconds)
        self._sums = [total * _FORGETTING + term for total, term in zip(self._sums, terms, strict=True)]

    def _solve(self) -> tuple[float, float]:
        """The line through the sums and, weakly, the seed's line scaled to them, whose parameters bend in proportion."""
        assert self._prior is not None
        fixed, per_image = self._prior
        w, wb, wbb, wt, wbt = self._sums
        squares = fixed * fixed * w + 2 * fixed * per_image * wb + per_image * per_image * wbb
        scale = (fixed * wt + per_image * wbt) / squares
        fixed, per_image = fixed * scale, per_image * scale
        floor_s = _PARAMETER_FLOOR * (fixed + per_image)
        fixed_weight = _PRIOR_WEIGHT / max(fixed, floor_s) ** 2
        per_image_weight = _PRIOR_WEIGHT / max(per_image, floor_s) ** 2
        return _constrained(
            w + fixed_weight, wb, wbb + per_image_weight, wt + fixed_weight * fixed, wbt + per_image_weight * per_image
        )


def _is_measurement(images: int, seconds: float) -> bool:
    return images > 0 and seconds > 0 and isfinite(seconds)


def _constrained(w: float, wb: float, wbb: float, wt: float, wbt: float) -> tuple[float, float]:
    """(a, c) >= 0 with the least weighted squares, from the sums of w, w*b, w*b^2, w*t, w*b*t; never both 0.

    Two parameters and a convex error: the free minimum if it is inside, else the better one of the two edges.
    """
    determinant = w * wbb - wb * wb
    if determinant > 1e-12 * w * wbb:
        fixed = (wt * wbb - wbt * wb) / determinant
        per_image = (wbt * w - wt * wb) / determinant
        if fixed >= 0 and per_image >= 0:
            return max(fixed, _TINY_S), per_image
    only_fixed, only_per_image = max(wt / w, 0.0), max(wbt / wbb, 0.0)
    if wt * only_fixed >= wbt * only_per_image:  # each edge lowers the error by this much
        return max(only_fixed, _TINY_S), 0.0
    return _TINY_S, only_per_image
