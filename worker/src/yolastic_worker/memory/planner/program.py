"""The words between reading a graph and laying it out: nodes, and what each of their tensors takes at any batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Final

Shape = tuple[int, ...]

LOW, HIGH = 2, 3
"""The two batches at which shapes are looked at. Neither is 1, which would make a batch equal to any axis of one."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of any batch: sizes are a line through two batches."""

    element_bytes: int
    low: Shape
    """At `LOW` images."""
    high: Shape
    """At `HIGH` images."""

    def bytes_at(self, batch: int) -> int:
        """Bytes of its elements."""
        low, high = prod(self.low), prod(self.high)
        return max(0, low + (high - low) * (batch - LOW)) * self.element_bytes

    @property
    def scalar(self) -> bool:
        """Has no axes."""
        return not self.low


@dataclass(frozen=True, slots=True)
class Node:
    """One operator; missing optional inputs and outputs are the empty name."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """A graph whose every shape is known.

    `tensors` holds every name but those of `weights`, which are there before a run and never die.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    weights: Mapping[str, int]
    """Bytes of each."""

    @property
    def weights_bytes(self) -> int:
        """All weights."""
        return sum(self.weights.values())

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Numbers of the nodes in the order ONNX Runtime runs them.

        It walks from the last leaf backwards, and of several inputs takes the node with the highest number first
        (onnxruntime/core/graph/graph_viewer.cc, Graph::ReverseDFSFrom).
        """
        producer = {name: number for number, node in enumerate(self.nodes) for name in node.outputs if name}
        consumed = {name for node in self.nodes for name in node.inputs}
        stack = [(number, False) for number, node in enumerate(self.nodes) if not consumed.intersection(node.outputs)]
        seen: set[int] = set()
        order: list[int] = []
        while stack:
            number, leave = stack.pop()
            if leave:
                order.append(number)
            elif number not in seen:
                seen.add(number)
                stack.append((number, True))
                before = {producer[name] for name in self.nodes[number].inputs if name in producer}
                stack += [(other, False) for other in sorted(before) if other not in seen]
        return tuple(order)


ELEMENT_BYTES: Final = {
    1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2, 17: 1, 18: 1, 19: 1, 20: 1, 21: 1, 22: 1,
}  # fmt: skip
"""Bytes of an element by onnx.TensorProto.DataType; strings (8) and complex numbers have no place in an image model."""
