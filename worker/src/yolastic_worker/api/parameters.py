"""What a client may ask with an image: thresholds, size, rounding, patience. Everything out of range is 422."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from yolastic_worker.api.http import Refusal
from yolastic_worker.types import Thresholds

_MAX_DECIMALS = 9
_DIGITS: Final = frozenset("0123456789")
NUMBER_PATTERN: Final = r"[0-9]{1,20}(\.[0-9]{0,20})?|\.[0-9]{1,20}"
_NUMBER: Final = re.compile(NUMBER_PATTERN)
"""Python's own float also reads `1_0`, `infinity` and the digits of every script."""
MAX_PATIENCE_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Parameters:
    """Of one request."""

    thresholds: Thresholds
    normalize: bool
    """Boxes as shares of the image instead of pixels."""
    decimals: int


def _refuse(name: str, value: str, wanted: str) -> Refusal:
    return Refusal(422, "bad_parameter", f"{name}={value[:40]!r}: {wanted}")


def _number(values: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    text = values.get(name)
    if text is None:
        return default
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not low <= number <= high:
        raise _refuse(name, text, f"a number from {low:g} to {high:g}")
    return number


def _flag(values: Mapping[str, str], name: str) -> bool:
    text = values.get(name, "false")
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("false", "0", "no", "off", ""):
        return False
    raise _refuse(name, text, "true or false")


def _check_size(values: Mapping[str, str], height: int, width: int) -> None:
    """`imgsz`: one side of a square, or `height,width`; only the size that is served."""
    text = values.get("imgsz")
    if text is None:
        return
    try:
        sides = [int(part) for part in text.strip("[]() ").split(",")]
    except ValueError:
        sides = []
    if (sides * 2)[:2] != [height, width] or len(sides) > 2:
        served = str(height) if height == width else f"{height},{width}"
        raise _refuse("imgsz", text, f"this worker serves imgsz={served}")


def parse_parameters(values: Mapping[str, str], height: int, width: int) -> Parameters:
    """Parameters of a request for a model with this input size.

    Raises:
        Refusal: 422.
    """
    _check_size(values, height, width)
    return Parameters(
        Thresholds(conf=_number(values, "conf", 0.25, 0.01, 1.0), iou=_number(values, "iou", 0.7, 0.0, 1.0)),
        normalize=_flag(values, "normalize"),
        decimals=_decimals(values),
    )


def _decimals(values: Mapping[str, str]) -> int:
    text = values.get("decimals")
    if text is None:
        return 5
    if text not in _DIGITS:
        raise _refuse("decimals", text, f"a whole number from 0 to {_MAX_DECIMALS}")
    return int(text)


_PATIENCE: Final = (b"x-request-timeout-ms", b"x-envoy-expected-rq-timeout-ms")


def tells_patience(headers: Mapping[bytes, bytes]) -> bool:
    """Does the client, or a proxy before it, say how long it waits?"""
    return any(name in headers for name in _PATIENCE)


def patience_s(headers: Mapping[bytes, bytes], default_s: float) -> float:
    """How long the client waits, seconds from arrival: what it says, and what a proxy before it says; the shorter counts.

    Raises:
        Refusal: 422.
    """
    told = [(name, headers[name]) for name in _PATIENCE if name in headers]
    shortest_s = math.inf
    for name, value in told:
        if not value.isdigit() or len(value) > 7 or not 1 <= int(value) <= MAX_PATIENCE_MS:
            raise _refuse(name.decode(), value.decode("latin-1"), f"whole milliseconds from 1 to {MAX_PATIENCE_MS}")
        shortest_s = min(shortest_s, int(value) / 1e3)
    return shortest_s if told else default_s
