"""Tiny detectors that are wrong in a batch: what careless exports look like. Alone each of them answers rightly.

Two classes, 64x64 images, output [batch, 6, 4]: four anchors, one a quarter of the image, scored by its mean red and green.
"""

from collections.abc import Callable

import numpy as np
from onnx import NodeProto, TensorProto, checker, helper, numpy_helper

SIDE, CELL = 64, 32


def _wrong_only_in_the_first_place() -> list[NodeProto]:
    """Right in place 1, zeros elsewhere: suppression in the graph that looks at one image."""
    return [
        helper.make_node("Slice", ["right", "zero", "one"], ["first"]),
        helper.make_node("Sub", ["right", "right"], ["zeros"]),
        helper.make_node("Slice", ["zeros", "one", "many"], ["rest"]),
        helper.make_node("Concat", ["first", "rest"], ["output0"], axis=0),
    ]


def _the_first_everywhere() -> list[NodeProto]:
    """Every place answers the first image."""
    return [
        helper.make_node("Slice", ["right", "zero", "one"], ["first"]),
        helper.make_node("Sub", ["right", "right"], ["zeros"]),
        helper.make_node("Add", ["zeros", "first"], ["output0"]),
    ]


def _shifted() -> list[NodeProto]:
    """Every place answers its neighbour's image."""
    return [
        helper.make_node("Slice", ["right", "zero", "one"], ["first"]),
        helper.make_node("Slice", ["right", "one", "many"], ["rest"]),
        helper.make_node("Concat", ["rest", "first"], ["output0"], axis=0),
    ]


def _the_mean_of_all() -> list[NodeProto]:
    """A normalisation that mixes the images of a batch."""
    return [
        helper.make_node("ReduceMean", ["right"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["right", "right"], ["zeros"]),
        helper.make_node("Add", ["zeros", "mean"], ["output0"]),
    ]


def _right() -> list[NodeProto]:
    return [helper.make_node("Identity", ["right"], ["output0"])]


TAILS: dict[str, Callable[[], list[NodeProto]]] = {
    "right": _right,
    "first-place-only": _wrong_only_in_the_first_place,
    "first-image-everywhere": _the_first_everywhere,
    "neighbour": _shifted,
    "mixed": _the_mean_of_all,
}


def slot_model(kind: str) -> bytes:
    """The file's bytes; `kind`: one of `TAILS`."""
    boxes = np.array([[16, 48, 16, 48], [16, 16, 48, 48], [32] * 4, [32] * 4], np.float32)[None]
    numbers = {"red_and_green": [0, 1], "scores_shape": [0, 2, 4], "ones": [1, 1], "zero": [0], "one": [1], "many": [1 << 30]}
    nodes = [
        helper.make_node("AveragePool", ["images"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Gather", ["cells", "red_and_green"], ["means"], axis=1),
        helper.make_node("Reshape", ["means", "scores_shape"], ["scores"]),
        helper.make_node("Shape", ["images"], ["shape"], start=0, end=1),
        helper.make_node("Concat", ["shape", "ones"], ["tiles"], axis=0),
        helper.make_node("Tile", ["boxes", "tiles"], ["all_boxes"]),
        helper.make_node("Concat", ["all_boxes", "scores"], ["right"], axis=1),
        *TAILS[kind](),
    ]
    graph = helper.make_graph(
        nodes,
        kind,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", 6, 4])],
        [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in numbers.items()]
        + [numpy_helper.from_array(boxes, "boxes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"task": "detect", "names": "{0: 'red', 1: 'green'}", "imgsz": f"[{SIDE}, {SIDE}]"})
    checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
