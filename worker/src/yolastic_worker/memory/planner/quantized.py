"""What a quantized graph becomes when it is loaded: operators that read and write 8 bits, without the steps in between.

A QDQ file writes `DequantizeLinear -> Conv -> QuantizeLinear`; the runtimes join the three, and then no float tensor exists
between two such operators. Where the neighbours do not fit, the steps stay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from yolastic_worker.memory.planner.program import Node, Program
from yolastic_worker.memory.planner.reuse import VIEWS

_MOVERS: Final = VIEWS | {"Split", "Transpose", "MaxPool", "Resize", "Slice", "Gather"}
"""They only move numbers: joined when scale and zero point are the same on both sides."""
_TO_8_BITS, _FROM_8_BITS = "QuantizeLinear", "DequantizeLinear"


def join(program: Program) -> Program:
    """The program as it runs; unchanged when nothing in it is quantized."""
    restored = {node.outputs[0]: node for node in program.nodes if node.op == _FROM_8_BITS}
    if not restored:
        return program
    readers: dict[str, list[Node]] = {}
    for node in program.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    nodes: list[Node] = []
    gone: set[str] = set()
    """Outputs of the steps that are part of an operator now."""
    for node in program.nodes:
        steps = _steps_after(node, readers)
        if steps and node.outputs[0] not in program.outputs and _joins(node, steps, restored, program):
            gone.update(step.outputs[0] for step in steps)
            inputs = tuple(restored[name].inputs[0] if name in restored else name for name in node.inputs)
            op = node.op if node.op in VIEWS else f"QLinear{node.op}"
            nodes.append(Node(op, inputs, tuple(step.outputs[0] for step in steps)))
        else:
            nodes.append(node)
    nodes = [node for node in nodes if node.op != _TO_8_BITS or node.outputs[0] not in gone]
    needed = {name for node in nodes for name in node.inputs}.union(program.outputs)
    nodes = [node for node in nodes if node.op != _FROM_8_BITS or node.outputs[0] in needed]
    read = {name for node in nodes for name in node.inputs}
    return replace(program, nodes=tuple(nodes), weights={name: size for name, size in program.weights.items() if name in read})


def _steps_after(node: Node, readers: Mapping[str, Sequence[Node]]) -> list[Node]:
    """The quantization of each output, when nothing else reads it; else none."""
    reading = [readers.get(name, []) for name in node.outputs]
    if node.op in (_TO_8_BITS, _FROM_8_BITS) or not all(len(one) == 1 and one[0].op == _TO_8_BITS for one in reading):
        return []
    return [one[0] for one in reading]


def _joins(node: Node, steps: Sequence[Node], restored: Mapping[str, Node], program: Program) -> bool:
    """Does it read nothing but what comes from 8 bits, and keep the scale where it must?"""
    before = [restored[name] for name in node.inputs if name in restored]
    if not before or any(name and name not in restored and name not in program.weights for name in node.inputs):
        return False
    return node.op not in _MOVERS or len({step.inputs[1:] for step in (*before, *steps)}) == 1
