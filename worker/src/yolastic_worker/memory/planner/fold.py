"""What a graph computes of its own shapes, computed here: reading a shape, arithmetic on it, grids made from it.

Shape inference does not follow values through these operators; with the values at hand it does. Only small arrays are followed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Attributes = Mapping[str, Any]
_MOST_ELEMENTS: Final = 1_000_000
"""The grid of a head has some ten thousand; an outer product of two such is no shape arithmetic any more."""
_DTYPES: Final[Mapping[int, Any]] = {
    1: np.float32, 2: np.uint8, 3: np.int8, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16, 11: np.float64,
}  # fmt: skip


def _sides(sides: Array, already: int = 1) -> list[int]:
    """A shape to make an array of; too large a one is refused before it takes memory."""
    wanted = [int(side) for side in sides.reshape(-1)]
    if math.prod(wanted) * already > _MOST_ELEMENTS:
        raise ValueError("too large to follow")
    return wanted


def _axes(inputs: Sequence[Array], attributes: Attributes) -> tuple[int, ...]:
    given = inputs[1] if len(inputs) > 1 else np.asarray(attributes.get("axes", ()))
    return tuple(int(axis) for axis in given.reshape(-1))


def _reshape(inputs: Sequence[Array], _: Attributes) -> Array:
    data, wanted = inputs[0], inputs[1]
    return data.reshape([data.shape[place] if side == 0 else int(side) for place, side in enumerate(wanted)])


def _unsqueeze(inputs: Sequence[Array], attributes: Attributes) -> Array:
    return np.expand_dims(inputs[0], _axes(inputs, attributes))


def _squeeze(inputs: Sequence[Array], attributes: Attributes) -> Array:
    return np.squeeze(inputs[0], _axes(inputs, attributes) or None)


def _slice(inputs: Sequence[Array], _: Attributes) -> Array:
    data, starts, ends = inputs[:3]
    axes = inputs[3] if len(inputs) > 3 and inputs[3].size else np.arange(len(starts))
    steps = inputs[4] if len(inputs) > 4 else np.ones(len(starts), np.int64)
    cut = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        cut[int(axis)] = slice(int(start), int(end), int(step))
    return data[tuple(cut)]


def _constant_of_shape(inputs: Sequence[Array], attributes: Attributes) -> Array:
    value = attributes.get("value", np.zeros(1, np.float32))
    return np.full(_sides(inputs[0]), value.reshape(-1)[0], value.dtype)


def _range(inputs: Sequence[Array], _: Attributes) -> Array:
    start, end, step = (float(array) if array.dtype.kind == "f" else int(array) for array in inputs)
    _sides(np.asarray([(end - start) // step]))
    return np.arange(start, end, step).astype(inputs[0].dtype)


def _divide(inputs: Sequence[Array], _: Attributes) -> Array:
    one, other = inputs[:2]
    if np.issubdtype(one.dtype, np.integer):
        return np.trunc(one / other).astype(one.dtype)
    return np.asarray(one / other)


_OPERATORS: Final[Mapping[str, Callable[[Sequence[Array], Attributes], Any]]] = {
    "Add": lambda i, _: i[0] + i[1],
    "And": lambda i, _: i[0] & i[1],
    "Cast": lambda i, a: i[0].astype(_DTYPES[a["to"]]),
    "Ceil": lambda i, _: np.ceil(i[0]),
    "Concat": lambda i, a: np.concatenate(i, a["axis"]),
    "ConstantOfShape": _constant_of_shape,
    "Div": _divide,
    "Equal": lambda i, _: i[0] == i[1],
    "Expand": lambda i, _: i[0] * np.ones(_sides(i[1], i[0].size), i[0].dtype),
    "Flatten": lambda i, a: i[0].reshape(int(np.prod(i[0].shape[: a.get("axis", 1)])), -1),
    "Floor": lambda i, _: np.floor(i[0]),
    "Gather": lambda i, a: np.take(i[0], i[1].astype(np.int64), a.get("axis", 0)),
    "Identity": lambda i, _: i[0],
    "Max": lambda i, _: np.maximum.reduce(i),
    "Min": lambda i, _: np.minimum.reduce(i),
    "Mod": lambda i, _: np.mod(i[0], i[1]),
    "Mul": lambda i, _: i[0] * i[1],
    "Neg": lambda i, _: -i[0],
    "Range": _range,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": lambda i, _: i[0] - i[1],
    "Tile": lambda i, _: np.tile(i[0], _sides(i[1], i[0].size)),
    "Transpose": lambda i, a: np.transpose(i[0], a.get("perm")),
    "Unsqueeze": _unsqueeze,
    "Where": lambda i, _: np.where(i[0], i[1], i[2]),
}


def foldable(op: str) -> bool:
    """Is this an operator whose value can be computed?"""
    return op in _OPERATORS


def fold(op: str, inputs: Sequence[Array], attributes: Attributes) -> Array | None:
    """The operator's value, in the type it has at run time; None when it is too large or cannot be had."""
    if any(array.size > _MOST_ELEMENTS for array in inputs):
        return None
    try:
        value = np.asarray(_OPERATORS[op](inputs, attributes))
    except (ValueError, IndexError, TypeError, KeyError, ZeroDivisionError, MemoryError, np.exceptions.AxisError):
        return None
    return value if value.size <= _MOST_ELEMENTS else None
