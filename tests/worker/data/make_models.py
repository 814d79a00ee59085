"""Makes the tiny models beside it. Needs `pip install onnx`; the files are committed, so the tests do not.

Each looks like a detector of two classes for 64x64 images, output [batch, 6, 4]: four anchors, one a quarter of the image, whose
scores are the mean red and the mean green of the quarter. So one knows what it must answer.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
SIDE, CELL = 64, 32


def detector(batch: str | int, float_type: int = TensorProto.FLOAT, reshape_batch: int = 0, **metadata: str) -> onnx.ModelProto:
    """`reshape_batch`: 0 keeps the batch; a number is what a careless export leaves in the graph."""
    kind = np.float16 if float_type == TensorProto.FLOAT16 else np.float32
    boxes = np.array([[16, 48, 16, 48], [16, 16, 48, 48], [32] * 4, [32] * 4], kind)[None]
    constants = [
        numpy_helper.from_array(np.array([0, 1], np.int64), "red_and_green"),
        numpy_helper.from_array(boxes, "boxes"),
        numpy_helper.from_array(np.array([reshape_batch, 2, 4], np.int64), "scores_shape"),
        numpy_helper.from_array(np.array([1, 1], np.int64), "ones"),
    ]
    nodes = [
        helper.make_node("AveragePool", ["images"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Gather", ["cells", "red_and_green"], ["means"], axis=1),
        helper.make_node("Reshape", ["means", "scores_shape"], ["scores"]),
        helper.make_node("Shape", ["images"], ["shape"], start=0, end=1),
        helper.make_node("Concat", ["shape", "ones"], ["tiles"], axis=0),
        helper.make_node("Tile", ["boxes", "tiles"], ["all_boxes"]),
        helper.make_node("Concat", ["all_boxes", "scores"], ["output0"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", float_type, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output0", float_type, [batch, 6, 4])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    facts = {"task": "detect", "names": "{0: 'red', 1: 'green'}", "imgsz": f"[{SIDE}, {SIDE}]", "stride": "32", **metadata}
    helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    return model


def main() -> None:
    def save(name: str, model: onnx.ModelProto) -> None:
        (HERE / name).write_bytes(model.SerializeToString())

    save("dynamic.onnx", detector("batch"))
    save("half.onnx", detector("batch", TensorProto.FLOAT16))
    save("fixed.onnx", detector(1))
    save("careless.onnx", detector("batch", reshape_batch=1))
    save("segment.onnx", detector("batch", task="segment"))
    save("three_names.onnx", detector("batch", names="{0: 'red', 1: 'green', 2: 'blue'}"))
    foreign = detector("batch")
    foreign.opset_import.append(helper.make_opsetid("com.example", 1))
    save("foreign.onnx", foreign)
    external = detector("batch")
    tensor = next(item for item in external.graph.initializer if item.name == "boxes")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    save("external.onnx", external)


if __name__ == "__main__":
    main()
