"""Models to plan, and what ONNX Runtime itself takes for them."""

import lzma
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

GOLDENS = Path(__file__).resolve().parents[2] / "goldens/planner"
MODELS = sorted(file.name.removesuffix(".onnx.xz") for file in GOLDENS.glob("*.onnx.xz"))

_RUNNER = """
import sys, numpy as np, onnxruntime as ort
ort.set_default_logger_severity(0)
shrink = ort.RunOptions()
shrink.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
for told in sys.argv[1:]:
    path, level, batch, side, axes = told.split("|")
    settings = ort.SessionOptions()
    settings.add_session_config_entry("session.disable_prepacking", "1")
    for axis, size in zip(axes.split(), (batch, side, side)):
        settings.add_free_dimension_override_by_name(axis, int(size))
    settings.log_severity_level, settings.intra_op_num_threads, settings.enable_mem_pattern = 3, 2, True
    settings.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    session = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    kind = np.float16 if source.type == "tensor(float16)" else np.float32
    for run in (1, 2):
        print(f"@@{told} {run}", file=sys.stderr, flush=True)
        session.run(None, {source.name: np.zeros((int(batch), 3, int(side), int(side)), kind)}, shrink)
    del session
    print("@@end 0", file=sys.stderr, flush=True)
"""
_EXTENDING = re.compile(r"Extending BFCArena for Cpu\. bin_num:\d+ \(requested\) num_bytes: (\d+)")


@cache
def model(name: str) -> bytes:
    """A committed skeleton with its weights filled in: noughts, and ones for what is a scale or a bias."""
    skeleton = onnx.load_from_string(lzma.decompress((GOLDENS / f"{name}.onnx.xz").read_bytes()))
    for tensor in skeleton.graph.initializer:
        elements = int(np.prod(tensor.dims, dtype=np.int64))
        empty = not (tensor.raw_data or tensor.float_data or tensor.int32_data or tensor.int64_data)
        if elements and empty:
            kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            value = 1 if len(tensor.dims) < 2 and np.issubdtype(kind, np.floating) else 0
            tensor.raw_data = np.full(elements, value, kind).tobytes()
    return skeleton.SerializeToString()


Key = tuple[str, str, int, int]


def blocks(files: dict[str, Path], wanted: list[Key], *, axes: str = "batch height width") -> dict[Key, int]:
    """What the runtime reserves for one run, bytes, by (name of the file, optimisation level, batch, side).

    `axes`: names of the axes that are set before the model is loaded, in the order batch, height, width.

    The first run of a shape shows the runtime what it needs; the second asks the arena for one block of that size, and the
    verbose log says how large it is. Between runs the arena gives back what it has, so that it must ask.
    """
    told = {f"{files[name]}|{level}|{batch}|{side}|{axes}": (name, level, batch, side) for name, level, batch, side in wanted}
    done = subprocess.run([sys.executable, "-c", _RUNNER, *told], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {}
    for part in done.stderr.split("@@"):
        head, _, log = part.partition("\n")
        key, _, run = head.rpartition(" ")
        if key in told and run == "2":
            asked = [int(number) for number in _EXTENDING.findall(log)]
            assert asked, f"the arena was not extended for {told[key]}: the model is too small to be measured"
            found[told[key]] = max(asked)
    assert len(found) == len(wanted)
    return found


def chain(operators: list[onnx.NodeProto], constants: dict[str, np.ndarray], scale: int = 32) -> bytes:
    """A graph that makes large tensors `t` and `u`, puts them through `operators`, and answers the peak of `out`."""
    repeat = numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "repeat")
    nodes = [
        helper.make_node("MaxPool", ["images"], ["small"], kernel_shape=[1, 1]),
        helper.make_node("Resize", ["small", "", "repeat"], ["t"], mode="nearest"),
        helper.make_node("Resize", ["small", "", "repeat"], ["u0"], mode="nearest"),
        helper.make_node("MaxPool", ["u0"], ["u"], kernel_shape=[1, 1]),
        *operators,
        helper.make_node("GlobalMaxPool", ["out"], ["output0"]),
    ]
    if not any("u" in node.input for node in operators):
        del nodes[2:4]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, None)],
        [repeat, *(numpy_helper.from_array(value, name) for name, value in constants.items())],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(made, {"imgsz": "[32, 32]"})
    return made.SerializeToString()
