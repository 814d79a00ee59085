"""A model without the values of its weights: all that memory depends on, in a hundredth of the bytes.

Written field by field (onnx.proto3: ModelProto 7 graph; GraphProto 5 initializer, 13 value_info; TensorProto 4 float_data,
5 int32_data, 7 int64_data, 9 raw_data, 10 double_data, 11 uint64_data), so that a large file is never copied as a whole.
"""

from typing import Final

from yolastic_worker.engine.onnx_file import NotPlainOnnx, fields_with_bytes
from yolastic_worker.memory.planner.result import NotPlannable

_GRAPH, _INITIALIZER, _VALUE_INFO = 7, 5, 13
_VALUES: Final = frozenset({4, 5, 7, 9, 10, 11})
_KEPT_BYTES: Final = 4096
"""Up to this size a tensor may be a shape or an index; the values of larger ones decide nothing."""


def skeleton(content: bytes) -> bytes:
    """The model without large values, and without what it says of shapes: that is found out anew.

    Raises:
        NotPlannable: the bytes are no ONNX model.
    """
    try:
        return _without(memoryview(content))
    except (NotPlainOnnx, IndexError) as error:
        raise NotPlannable("the file is not an ONNX model") from error


def _without(model: memoryview) -> bytes:
    made = bytearray()
    for number, value, whole in fields_with_bytes(model):
        if number == _GRAPH and not isinstance(value, int):
            made += _field(_GRAPH, _graph(value))
        else:
            made += whole
    return bytes(made)


def _graph(graph: memoryview) -> bytes:
    made = bytearray()
    for number, value, whole in fields_with_bytes(graph):
        if number == _INITIALIZER and not isinstance(value, int) and len(value) > _KEPT_BYTES:
            made += _field(_INITIALIZER, b"".join(field for part, _, field in fields_with_bytes(value) if part not in _VALUES))
        elif number != _VALUE_INFO:
            made += whole
    return bytes(made)


def _field(number: int, value: bytes) -> bytes:
    """A field of bytes, with its key and length."""
    length, head = len(value), bytearray([number << 3 | 2])
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(head) + bytes([length]) + value
