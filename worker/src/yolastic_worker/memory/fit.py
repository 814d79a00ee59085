"""The line `fixed + per_image * batch` through what batches really took."""

from collections.abc import Iterable

from yolastic_contract.state import Fit


def fit_line(samples: Iterable[tuple[int, float]]) -> Fit | None:
    """Least squares through (images, bytes or seconds); slope and intercept are never negative.

    `residual` is the largest distance of a sample from the line. One batch size alone cannot tell fixed from per image: all is
    then called per image, the careful reading when a larger batch is planned. None without samples.
    """
    points = [(float(images), float(value)) for images, value in samples]
    if not points:
        return None
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = max(0.0, sum((x - mean_x) * (y - mean_y) for x, y in points) / spread) if spread > 0 else mean_y / mean_x
    fixed = mean_y - slope * mean_x
    if fixed < 0:  # through the origin instead: least squares under fixed = 0
        fixed, slope = 0.0, max(0.0, sum(x * y for x, y in points) / sum(x * x for x, _ in points))
    residual = max(abs(y - fixed - slope * x) for x, y in points)
    return Fit(fixed=fixed, per_image=slope, residual=residual, samples=count)
