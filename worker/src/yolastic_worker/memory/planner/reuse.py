"""Which tensors share a buffer, and when each buffer is taken and given back: ONNX Runtime's allocation planner.

The rules are those of onnxruntime/core/framework/allocation_planner.cc (ComputeSingleStreamReusePlan), in their order:

    1. A graph output is the caller's: no buffer of ours.
    2. An operator that only looks at its input differently (Reshape) shares its buffer.
    3. An operator that may work in place does so when it is the last to read that input and the shapes are equal.
    4. A buffer that has died is taken over by a tensor of equal element size and equal shape, the last one to die first.
    5. Otherwise there is a new buffer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from yolastic_worker.memory.planner.program import Program

VIEWS: Final = frozenset({"Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten", "Dropout"})
"""Operators whose first output is their first input's buffer, on every device."""

_ACTIVATIONS = (
    "Sigmoid", "Relu", "Tanh", "LeakyRelu", "HardSigmoid", "Elu", "Selu", "Celu", "Softplus", "Softsign", "ThresholdedRelu",
    "Clip", "Cast", "Softmax",
)  # fmt: skip
IN_PLACE: Final[Mapping[str, tuple[int, ...]]] = dict.fromkeys(_ACTIVATIONS, (0,))
"""Inputs an operator may overwrite; the same on CUDA. Not among them: Add, Mul, Exp. The tests measure each of them."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory that one tensor after the other uses; times are positions in the order of execution."""

    name: str
    """The first tensor in it."""
    born: int
    dies: int | None
    """Given back after this step; None: never."""


def assign(program: Program, in_place: Mapping[str, tuple[int, ...]] = IN_PLACE) -> tuple[Buffer, ...]:
    """The buffers of one run, in the order they are taken."""
    return _Assignment(program, in_place).run()


class _Assignment:
    def __init__(self, program: Program, in_place: Mapping[str, tuple[int, ...]]) -> None:
        self._program, self._in_place = program, in_place
        self._uses: dict[str, int] = {}
        """How often a buffer, named by its first tensor, will still be read."""
        for node in program.nodes:
            for name in node.inputs:
                self._uses[name] = self._uses.get(name, 0) + 1
        for name in (*program.outputs, *program.inputs, *program.weights):  # the caller's, and ours for good
            self._uses[name] = self._uses.get(name, 0) + 1
        self._buffer = {name: name for name in (*program.inputs, *program.weights)}
        self._free: list[str] = []
        self._born: dict[str, int] = {}
        self._dies: dict[str, int] = {}

    def run(self) -> tuple[Buffer, ...]:
        outputs = set(self._program.outputs)
        for step, number in enumerate(self._program.order):
            node = self._program.nodes[number]
            for place, name in enumerate(node.outputs):
                if name:
                    self._place(node.op, node.inputs, place, name, step, foreign=name in outputs)
            for name in node.inputs:
                if name:
                    self._read(self._buffer[name], step)
            for name in node.outputs:
                if name and not self._uses.get(self._buffer[name], 0):
                    self._die(self._buffer[name], step)
        return tuple(Buffer(name, born, self._dies.get(name)) for name, born in self._born.items())

    def _place(self, op: str, inputs: tuple[str, ...], place: int, name: str, step: int, *, foreign: bool) -> None:
        taken = None if foreign else self._reusable(op, inputs, place, name)
        if taken is not None:
            self._buffer[name] = taken
            self._uses[taken] = self._uses.get(taken, 0) + self._uses.get(name, 0)
            return
        self._buffer[name] = name
        if not foreign:
            self._born[name] = step

    def _reusable(self, op: str, inputs: tuple[str, ...], place: int, name: str) -> str | None:
        if op in VIEWS and place == 0:
            return self._buffer[inputs[0]]
        if place == 0:
            for position in self._in_place.get(op, ()):
                source = inputs[position] if position < len(inputs) else ""
                if source and self._uses[self._buffer[source]] == 1 and self._alike(source, name):
                    return self._buffer[source]
        if not self._program.tensors[name].scalar:
            for candidate in self._free:
                if self._alike(candidate, name):
                    self._free.remove(candidate)
                    return candidate
        return None

    def _alike(self, one: str, other: str) -> bool:
        """Equal shape and element size; the runtime does not compare bytes."""
        return self._program.tensors.get(one) == self._program.tensors[other]

    def _read(self, buffer: str, step: int) -> None:
        self._uses[buffer] -= 1
        if not self._uses[buffer]:
            self._die(buffer, step)

    def _die(self, buffer: str, step: int) -> None:
        if buffer not in self._free:
            self._free.insert(0, buffer)
            self._dies[buffer] = step
