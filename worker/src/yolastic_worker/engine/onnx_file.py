"""What an ONNX file says of itself, read from its bytes without a runtime: is it one, and is it whole and plain?

Only the protocol buffer fields that matter are walked (onnx.proto3: ModelProto 7 graph, 8 opset_import; GraphProto 1 node,
5 initializer; NodeProto 5 attribute; AttributeProto 5 t, 6 g, 10 tensors, 11 graphs; TensorProto 13 external_data,
14 data_location); everything else is skipped by its length, so a file of any size takes milliseconds.
"""

from collections.abc import Iterator
from typing import Final

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXTERNAL: Final = 1
_MAX_DEPTH: Final = 16
DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operator sets the runtime brings itself; anything else would need a library from somewhere."""


class NotPlainOnnx(ValueError):  # noqa: N818 - the answer to a question
    """The bytes are no ONNX model, or one that needs more than these bytes."""


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise NotPlainOnnx("a number in the file is too long")


def varints(data: memoryview) -> list[int]:
    """The numbers of a packed field."""
    values, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        values.append(value)
    return values


def fields_with_bytes(data: memoryview) -> Iterator[tuple[int, int | memoryview, memoryview]]:
    """(field number, value, the whole field as it stands in the file) of one message; varints as int, the rest as bytes."""
    at, end = 0, len(data)
    while at < end:
        start = at
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise NotPlainOnnx("the file is not an ONNX model (not a protocol buffer)")
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value, data[start:at]
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise NotPlainOnnx("the file is not an ONNX model (not a protocol buffer)")
        if at + length > end:
            raise NotPlainOnnx("the file is cut off or not an ONNX model")
        yield number, data[at : at + length], data[start : at + length]
        at += length


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    return ((number, value) for number, value, _ in fields_with_bytes(data))


def _check_tensor(data: memoryview) -> None:
    for number, value in _fields(data):
        if number == 13 or (number == 14 and value == _EXTERNAL):
            raise NotPlainOnnx("its weights are in another file (external data); export it as one file")


def _check_attribute(data: memoryview, depth: int) -> None:
    for number, value in _fields(data):
        if isinstance(value, int):
            continue
        if number in (5, 10):
            _check_tensor(value)
        elif number in (6, 11):
            _check_graph(value, depth + 1)


def _check_graph(data: memoryview, depth: int = 0) -> int:
    if depth > _MAX_DEPTH:
        raise NotPlainOnnx("its graphs are nested too deeply")
    nodes = 0
    for number, value in _fields(data):
        if isinstance(value, int):
            continue
        if number == 1:
            nodes += 1
            for inner, attribute in _fields(value):
                if inner == 5 and not isinstance(attribute, int):
                    _check_attribute(attribute, depth)
        elif number == 5:
            _check_tensor(value)
    return nodes


def check_plain_onnx(content: bytes) -> None:
    """Accept an ONNX model that is complete in these bytes and uses only standard operators.

    Raises:
        NotPlainOnnx: with a sentence that says what is wrong.
    """
    nodes = 0
    try:
        for number, value in _fields(memoryview(content)):
            if isinstance(value, int):
                continue
            if number == 7:
                nodes += _check_graph(value)
            elif number == 8:
                domain = next((bytes(v).decode() for n, v in _fields(value) if n == 1 and not isinstance(v, int)), "")
                if domain not in DOMAINS:
                    raise NotPlainOnnx(f"it uses operators of {domain!r}, which the runtime does not bring")
    except (IndexError, UnicodeDecodeError) as error:
        raise NotPlainOnnx("the file is not an ONNX model") from error
    if not nodes:
        raise NotPlainOnnx("the file is not an ONNX model")
