"""Kubernetes quantities: text to numbers and back, as `resource.Quantity` reads them."""

import re
from decimal import ROUND_CEILING, Decimal
from typing import Annotated, Final

from pydantic import BeforeValidator, WithJsonSchema

# What the API server checks of a field: never negative, and no exponent beyond two digits, which no amount needs.
_PATTERN: Final = r"^\+?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?[0-9]{1,2}))?$"
_QUANTITY = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?[0-9]+))?")
_MAX_EXPONENT: Final = 100
_MAX: Final = Decimal(2**63 - 1)
_SUFFIXES: Final = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": Decimal(10**3), "M": Decimal(10**6),
    "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}  # fmt: skip


def parse_quantity(text: str | int) -> Decimal:
    """Value of a quantity such as `8Gi`, `100m` or `1e3`; beyond 2**63 - 1 it is 2**63 - 1, as in Kubernetes.

    Raises:
        ValueError: the text is no quantity.
    """
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{text!r} is not a quantity such as 8Gi, 500M or 100m")
    number, suffix, exponent = match.groups()
    scale = _SUFFIXES[suffix] if suffix else Decimal(1)
    if exponent is not None:
        # A bounded exponent: a few characters must not become a number of a gigabyte.
        scale = Decimal(10) ** max(-_MAX_EXPONENT, min(int(exponent), _MAX_EXPONENT))
    return max(-_MAX, min(Decimal(number) * scale, _MAX))


def parse_bytes(text: str | int) -> int:
    """Bytes of a quantity, rounded up as Kubernetes does.

    Raises:
        ValueError: the text is no quantity, or negative.
    """
    value = int(parse_quantity(text).to_integral_value(rounding=ROUND_CEILING))
    if value < 0:
        raise ValueError(f"{text!r} is negative")
    return value


def format_bytes(size_bytes: int) -> str:
    """Bytes as a quantity a person can read: the nearest whole Mi, or plain bytes below 1 Mi."""
    return f"{round(size_bytes / 2**20)}Mi" if abs(size_bytes) >= 2**20 else str(size_bytes)


def _checked(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{value!r} is not a quantity")
    if parse_quantity(value) < 0:
        raise ValueError(f"{value!r} is negative")
    if re.fullmatch(_PATTERN, str(value)) is None:
        raise ValueError(f"{value!r} is not a quantity without a minus and with at most two digits of an exponent")
    return str(value)


Quantity = Annotated[
    str,
    BeforeValidator(_checked),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": _PATTERN,
            "minimum": 0,  # the pattern is not for integers
            "x-kubernetes-int-or-string": True,
            "maxLength": 32,
        }
    ),
]
"""A quantity of something, never negative, kept as text; JSON integers are accepted as the API server accepts them."""
