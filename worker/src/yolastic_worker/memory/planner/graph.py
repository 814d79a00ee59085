"""Reads an ONNX file into a program: every weight's bytes, every other tensor's shape at two batches."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from yolastic_worker.engine.metadata import EXPORT_HINT, choose_size, parse_metadata
from yolastic_worker.memory.planner.fold import Array, fold, foldable
from yolastic_worker.memory.planner.program import ELEMENT_BYTES, HIGH, LOW, Node, Program, Shape, Tensor
from yolastic_worker.memory.planner.result import NotPlannable
from yolastic_worker.memory.planner.skeleton import skeleton
from yolastic_worker.types import WorkerFailure

_MOST_ROUNDS: Final = 8
"""Of inferring and folding: each makes more shapes known; two or three do for every architecture tried."""
_EXTERNAL: Final = 1
_FLOAT, _HALF = 1, 10


@dataclass(frozen=True, slots=True)
class Reading:
    """A file, read."""

    program: Program
    height: int
    width: int
    precision: str
    """FP32, FP16 or INT8."""


def read(content: bytes, input_size: tuple[int, int] | None = None, instead: Mapping[int, int] = MappingProxyType({})) -> Reading:
    """The program of a model.

    `input_size`: (height, width); None: what the model says. `instead`: bytes of an element by its type in the file, where it
    is another one at run time; inputs and outputs keep theirs.

    Raises:
        NotPlannable: no ONNX model, a fixed batch, or a shape that cannot be told.
    """
    try:
        return _read(content, input_size, instead)
    except NotPlannable:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, MemoryError) as error:  # what a damaged file leads to
        raise NotPlannable("the file is damaged") from error


def _read(content: bytes, input_size: tuple[int, int] | None, instead: Mapping[int, int]) -> Reading:
    model = _load(content)
    graph = model.graph
    axes, channels_at = _input_axes(graph)
    metadata = parse_metadata({entry.key: entry.value for entry in model.metadata_props})
    sides = [axes[place] for place in (1, 2, 3) if place != channels_at]
    try:
        height, width = choose_size(metadata, (None, 3, *sides), input_size)
    except WorkerFailure as error:
        raise NotPlannable(str(error)) from error
    sized = [height, width]
    sized.insert(channels_at - 1, 3)
    element_bytes = {**ELEMENT_BYTES, **instead}
    weights = {
        tensor.name: int(np.prod(tensor.dims, dtype=np.int64)) * element_bytes.get(tensor.data_type, 4)
        for tensor in graph.initializer
    }
    low = _Unrolling(model, (LOW, *sized)).run()
    high = _Unrolling(model, (HIGH, *sized)).run()
    program = _program(low, high, weights, element_bytes)
    return Reading(program, height, width, _precision(low, program))


def _load(content: bytes) -> Any:
    import onnx  # noqa: PLC0415 - 15 MB that only a plan needs

    bones = skeleton(content)
    try:
        model = onnx.load_from_string(bones)
    except Exception as error:
        raise NotPlannable("the file is not an ONNX model") from error
    graph = model.graph
    if not graph.node:
        raise NotPlannable("the file is not an ONNX model")
    if any(tensor.data_location == _EXTERNAL for tensor in graph.initializer):
        raise NotPlannable("its weights are in another file (external data); export it as one file")
    if any(attribute.g.node or attribute.graphs for node in graph.node for attribute in node.attribute):
        raise NotPlannable("it has branches or loops, whose memory depends on the image")
    return model


def _input_axes(graph: Any) -> tuple[list[int | None], int]:
    """(sizes of the one input's axes, the place of its channels)."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in weights]
    axes = [axis.dim_value or None for entry in inputs for axis in entry.type.tensor_type.shape.dim]
    if len(inputs) != 1 or len(axes) != 4 or not graph.output:
        raise NotPlannable("it does not take one batch of images [batch, 3, height, width]")
    if axes[0] is not None:
        raise NotPlannable(f"its batch is fixed at {axes[0]}; {EXPORT_HINT}")
    if axes[1] in (3, None):
        return axes, 1
    if axes[3] == 3:
        return axes, 3
    raise NotPlannable("it does not take one batch of images [batch, 3, height, width]")


@dataclass
class _Unrolling:
    """One graph at one batch: shapes are inferred, what becomes known is computed, until nothing new is found."""

    model: Any
    axes: Shape
    shapes: dict[str, Shape | None] = field(default_factory=dict)
    """None: has an axis that is not known."""
    types: dict[str, int] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    nodes: list[Any] = field(default_factory=list)

    def run(self) -> "_Unrolling":
        """Raises NotPlannable when a shape stays unknown."""
        from onnx import numpy_helper  # noqa: PLC0415

        for tensor in self.model.graph.initializer:
            if tensor.raw_data or not tensor.dims or _has_values(tensor):
                self.values[tensor.name] = numpy_helper.to_array(tensor)
            self.shapes[tensor.name], self.types[tensor.name] = tuple(tensor.dims), tensor.data_type
        self.nodes = _sorted(self.model.graph)
        for _ in range(_MOST_ROUNDS):
            self._infer()
            if not self._fold():
                break
        self._check()
        return self

    def _infer(self) -> None:
        from onnx import ModelProto, numpy_helper, shape_inference  # noqa: PLC0415

        model = ModelProto()
        model.ir_version = self.model.ir_version
        model.opset_import.extend(self.model.opset_import)
        graph, source = model.graph, self.model.graph
        known = {tensor.name for tensor in source.initializer}
        graph.name = "plan"
        graph.node.extend(self.nodes)
        graph.initializer.extend(source.initializer)
        graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in self.values.items() if name not in known)
        graph.input.extend(entry for entry in source.input if entry.name not in known)
        for axis, size in zip(graph.input[0].type.tensor_type.shape.dim, self.axes, strict=True):
            axis.dim_value = size
        graph.output.extend(source.output)
        for entry in graph.output:
            entry.type.tensor_type.ClearField("shape")
        try:
            inferred = shape_inference.infer_shapes(model, data_prop=True).graph
        except Exception as error:
            raise NotPlannable("its shapes contradict each other") from error
        for entry in (*inferred.input, *inferred.value_info, *inferred.output):
            kind = entry.type.tensor_type
            self.types[entry.name] = kind.elem_type
            self.shapes[entry.name] = _shape(kind) if kind.HasField("shape") else None

    def _fold(self) -> bool:
        left, known = [], len(self.values)
        for node in self.nodes:
            value = self._value(node)
            if value is None:
                left.append(node)
                continue
            self.values[node.output[0]] = value
            self.shapes[node.output[0]] = value.shape
        self.nodes = left
        return len(self.values) > known

    def _value(self, node: Any) -> Array | None:
        if len(node.output) != 1:
            return None
        if node.op_type in ("Shape", "Size"):
            shape = self.shapes.get(node.input[0])
            if shape is None:
                return None
            cut = _attributes(node)
            sides = np.asarray(shape[cut.get("start", 0) : cut.get("end", len(shape))], np.int64)
            return sides if node.op_type == "Shape" else np.asarray(np.prod(sides), np.int64)
        if node.op_type == "Constant":
            return next((value for value in _attributes(node).values() if isinstance(value, np.ndarray)), None)
        if not foldable(node.op_type) or not all(name in self.values or not name for name in node.input):
            return None
        return fold(node.op_type, [self.values[name] if name else np.empty(0) for name in node.input], _attributes(node))

    def _check(self) -> None:
        outputs = {entry.name for entry in self.model.graph.output}
        for node in self.nodes:
            for name in node.output:
                if name and self.shapes.get(name) is None:
                    raise NotPlannable(f"the shape of {name} ({node.op_type}) cannot be told for every batch; {EXPORT_HINT}")
                if name in outputs and (self.shapes[name] or (0,))[0] != self.axes[0]:
                    raise NotPlannable(f"its output {name} is not one answer for each image of a batch; {EXPORT_HINT}")


def _sorted(graph: Any) -> list[Any]:
    """The nodes, each after those it reads from: the runtime does not ask for that, shape inference does."""
    made = {name for node in graph.node for name in node.output if name}
    ready: list[Any] = []
    known: set[str] = set()
    waiting = list(graph.node)
    while waiting:
        later = []
        for node in waiting:
            if any(name in made and name not in known for name in node.input):
                later.append(node)
            else:
                ready.append(node)
                known.update(node.output)
        if len(later) == len(waiting):
            raise NotPlannable("its operators read from each other in a circle")
        waiting = later
    return ready


def _has_values(tensor: Any) -> bool:
    return bool(tensor.float_data or tensor.int64_data or tensor.int32_data or tensor.double_data)


def _shape(kind: Any) -> Shape | None:
    sides = tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in kind.shape.dim)
    return None if -1 in sides else sides


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper, numpy_helper  # noqa: PLC0415

    found = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.name in ("value_int", "value_ints"):
            value = np.asarray(value, np.int64)
        elif attribute.name in ("value_float", "value_floats"):
            value = np.asarray(value, np.float32)
        found[attribute.name] = numpy_helper.to_array(value) if hasattr(value, "data_type") else value
    return found


def _program(low: _Unrolling, high: _Unrolling, weights: Mapping[str, int], element_bytes: Mapping[int, int]) -> Program:
    left = {tuple(node.output) for node in low.nodes}
    numbered = [node for node in low.model.graph.node if tuple(node.output) in left]  # as in the file: the runtime's numbers
    nodes = tuple(Node(node.op_type, tuple(node.input), tuple(node.output)) for node in numbered)
    if {tuple(node.output) for node in high.nodes} != left:
        raise NotPlannable("it computes other things for another batch")
    inputs = tuple(entry.name for entry in low.model.graph.input if entry.name not in weights)
    made = {name for node in nodes for name in node.outputs if name}
    tensors = {name: _tensor(name, low, high, element_bytes) for name in made}
    outputs = tuple(entry.name for entry in low.model.graph.output if entry.name in made)
    tensors |= {name: _tensor(name, low, high, ELEMENT_BYTES) for name in (*inputs, *outputs)}
    read = {name for node in nodes for name in node.inputs if name} - tensors.keys()
    unknown = next((name for name in read if name not in weights and name not in low.values), None)
    if unknown is not None:
        raise NotPlannable(f"it reads {unknown}, which nothing makes")
    return Program(
        nodes=nodes, inputs=inputs, outputs=outputs, tensors=tensors,
        weights={name: weights[name] if name in weights else low.values[name].nbytes for name in read},
    )  # fmt: skip


def _tensor(name: str, low: _Unrolling, high: _Unrolling, element_bytes: Mapping[int, int]) -> Tensor:
    kind, one, other = low.types.get(name, 0), low.shapes[name], high.shapes[name]
    if kind not in element_bytes or one is None or other is None:
        raise NotPlannable(f"the type of {name} is not known")
    return Tensor(element_bytes[kind], one, other)


def _precision(unrolled: _Unrolling, program: Program) -> str:
    if any(node.op == "QuantizeLinear" for node in program.nodes):
        return "INT8"
    kinds: Iterable[int] = (unrolled.types.get(name, 0) for name in program.tensors)
    counted = list(kinds)
    return "FP16" if counted.count(_HALF) > counted.count(_FLOAT) else "FP32"
