"""The weights of a model's convolutions, read from its bytes: for several sessions of one model to share.

onnx.proto3: GraphProto 1 node, 5 initializer; NodeProto 1 input, 4 op_type; TensorProto 1 dims, 2 data_type, 8 name, 9 raw_data.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from yolastic_worker.engine.onnx_file import fields_with_bytes, varints

_TYPES: Final[dict[int, Any]] = {1: np.float32, 10: np.float16}


def convolution_weights(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """Weights and biases by name, views into `content`; nothing that a kernel wants on the host, such as a shape."""
    tensors: dict[str, npt.NDArray[Any]] = {}
    wanted: set[str] = set()
    for number, graph, _ in fields_with_bytes(memoryview(content)):
        if number != 7 or isinstance(graph, int):
            continue
        for field, value, _ in fields_with_bytes(graph):
            if isinstance(value, int):
                continue
            if field == 1:
                wanted.update(_weights_of(value))
            elif field == 5 and (tensor := _tensor(value)) is not None:
                tensors[tensor[0]] = tensor[1]
    return {name: values for name, values in tensors.items() if name in wanted}


def _weights_of(node: memoryview) -> list[str]:
    inputs, kind = [], ""
    for field, value, _ in fields_with_bytes(node):
        if field == 1 and not isinstance(value, int):
            inputs.append(bytes(value).decode())
        elif field == 4 and not isinstance(value, int):
            kind = bytes(value).decode()
    return inputs[1:] if kind == "Conv" else []


def _tensor(data: memoryview) -> tuple[str, npt.NDArray[Any]] | None:
    """None when it is not kept as raw floats."""
    name, kind, raw = "", 0, None
    shape: list[int] = []
    for field, value, _ in fields_with_bytes(data):
        if field == 1:
            shape.extend([value] if isinstance(value, int) else varints(value))
        elif field == 2 and isinstance(value, int):
            kind = value
        elif field == 8 and not isinstance(value, int):
            name = bytes(value).decode()
        elif field == 9 and not isinstance(value, int):
            raw = value
    if kind not in _TYPES or raw is None:
        return None
    return name, np.frombuffer(raw, _TYPES[kind]).reshape(shape)
