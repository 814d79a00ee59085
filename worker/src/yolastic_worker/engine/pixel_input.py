"""A model that takes letterboxed pixels as they are: uint8 [batch, height, width, 3], normalised inside the graph.

A quarter of the bytes cross to the device, and the host only copies. On the CPU it does not pay: the runtime's transpose costs
0.6 ms an image of 640x640, splitting and dividing on the way in 0.4 (one core, beside about 70 ms for YOLO11n).

The file is edited as bytes (onnx.proto3), without the `onnx` package: the old input goes, and Transpose, Cast and Div that make
it from the new one come. ModelProto 7 graph; GraphProto 1 node, 5 initializer, 11 input; NodeProto 1 input, 2 output, 3 name,
4 op_type, 5 attribute; AttributeProto 1 name, 3 i, 8 ints, 20 type; TensorProto 1 dims, 2 data_type, 8 name, 9 raw_data;
ValueInfoProto 1 name, 2 type.
"""

from typing import Final

import numpy as np

from yolastic_worker.engine.onnx_file import NotPlainOnnx, fields_with_bytes

INPUT: Final = "yolastic_pixels"
BATCH: Final = "yolastic_batch"
"""Name of the batch axis."""
_UINT8: Final = 2
_FLOAT_TYPES: Final = {np.dtype(np.float32): 1, np.dtype(np.float16): 10}
_INT, _INTS = 2, 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, *parts: bytes | str) -> bytes:
    value = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _node(kind: str, inputs: tuple[str, ...], output: str, *attributes: bytes) -> bytes:
    """A field of the graph."""
    ends = [_bytes(1, name) for name in inputs] + [_bytes(2, output), _bytes(3, f"yolastic_{kind.lower()}"), _bytes(4, kind)]
    return _bytes(1, *ends, *(_bytes(5, attribute) for attribute in attributes))


def _nodes(target: str, kind: int, divisor: bytes) -> bytes:
    """What makes the old input `target` of the new one. Division as numpy does it: the same bits as on the host."""
    permutation = b"".join(_number(8, axis) for axis in (0, 3, 1, 2))
    return b"".join(
        (
            _node("Transpose", (INPUT,), f"{INPUT}_planes", _bytes(1, "perm") + permutation + _number(20, _INTS)),
            _node("Cast", (f"{INPUT}_planes",), f"{INPUT}_float", _bytes(1, "to") + _number(3, kind) + _number(20, _INT)),
            _node("Div", (f"{INPUT}_float", f"{INPUT}_255"), target),
            _bytes(5, _number(2, kind), _bytes(8, f"{INPUT}_255"), _bytes(9, divisor)),
        )
    )


def _input(height: int, width: int) -> bytes:
    """A field of the graph: uint8 [yolastic_batch, height, width, 3]."""
    sides = [_bytes(1, _bytes(2, BATCH)), *(_bytes(1, _number(1, side)) for side in (height, width, 3))]
    return _bytes(11, _bytes(1, INPUT), _bytes(2, _bytes(1, _number(1, _UINT8), _bytes(2, *sides))))


def with_pixel_input(content: bytes, name: str, float_type: type[np.floating], height: int, width: int) -> bytes:
    """The model with `INPUT` instead of its input `name`, which was [batch, 3, height, width] of `float_type`.

    Raises:
        NotPlainOnnx: there is no such input.
    """
    divisor = np.array(255, float_type)
    replacement = _nodes(name, _FLOAT_TYPES[divisor.dtype], divisor.tobytes()) + _input(height, width)
    model: list[bytes | memoryview] = []
    for number, value, raw in fields_with_bytes(memoryview(content)):
        if number != 7 or isinstance(value, int):
            model.append(raw)
            continue
        rest = [inner for field, part, inner in fields_with_bytes(value) if not (field == 11 and _name(part) == name)]
        if sum(map(len, rest)) == len(value):
            raise NotPlainOnnx(f"the model has no input {name!r}")
        model.append(_bytes(7, replacement, b"".join(rest)))
    return b"".join(model)


def _name(value_info: int | memoryview) -> str:
    if isinstance(value_info, int):
        return ""
    return next(
        (bytes(part).decode() for field, part, _ in fields_with_bytes(value_info) if field == 1 and not isinstance(part, int)), ""
    )
