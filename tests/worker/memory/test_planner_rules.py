"""Order, reuse, offsets and joining on graphs small enough to follow by hand; and what holds for every graph."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolastic_worker.memory.planner.fold import fold, foldable
from yolastic_worker.memory.planner.offsets import pack
from yolastic_worker.memory.planner.program import Node, Program, Tensor
from yolastic_worker.memory.planner.quantized import join
from yolastic_worker.memory.planner.reuse import Buffer, assign

FLOAT = 4


def tensor(elements, element_bytes=FLOAT):
    """A row of numbers for each image."""
    return Tensor(element_bytes, (2, elements), (3, elements))


def program(*nodes, outputs, sizes=None, weights=None, inputs=("in",)):
    """`nodes`: "Op a b -> c d"; every tensor has 16 numbers an image unless `sizes` says otherwise."""
    made = []
    for text in nodes:
        left, _, right = text.partition(" -> ")
        op, *names = left.split()
        made.append(Node(op, tuple(names), tuple(right.split())))
    names = {*inputs, *(name for node in made for name in node.outputs)}
    tensors = {name: tensor(16) for name in names} | (sizes or {})
    return Program(tuple(made), tuple(inputs), tuple(outputs), tensors, weights or {})


def names_in_order(one):
    return [one.nodes[number].outputs[0] for number in one.order]


@pytest.mark.parametrize(
    ("nodes", "outputs", "order"),
    [
        (["Conv in -> a", "Conv a -> b", "Conv b -> out"], ["out"], ["a", "b", "out"]),
        # of two branches the one that comes later in the file is run first
        (["Conv in -> a", "Conv in -> b", "Add a b -> out"], ["out"], ["b", "a", "out"]),
        (["Conv in -> a", "Conv a -> a2", "Conv in -> b", "Add a2 b -> out"], ["out"], ["b", "a", "a2", "out"]),
        # of two leaves, too
        (["Conv in -> x", "Conv x -> one", "Conv x -> two"], ["one", "two"], ["x", "two", "one"]),
        # what nobody reads is run all the same
        (["Conv in -> idle", "Conv in -> out"], ["out"], ["out", "idle"]),
        # a file may name an operator before those it reads from
        (["Conv a -> out", "Conv in -> a"], ["out"], ["a", "out"]),
    ],
)
def test_order_of_execution(nodes, outputs, order):
    assert names_in_order(program(*nodes, outputs=outputs)) == order


@pytest.mark.parametrize(
    ("nodes", "sizes", "buffers"),
    [
        pytest.param(["Conv in -> a", "Conv a -> b", "Conv b -> out"], {}, {"a": (0, 1), "b": (1, 2)}, id="a new buffer each"),
        pytest.param(
            ["Conv in -> a", "Conv a -> b", "Conv b -> c", "Conv c -> out"],
            {},
            {"a": (0, 3), "b": (1, 2)},
            id="a dead one is taken",
        ),
        pytest.param(
            ["Conv in -> a", "Conv a -> b", "Conv b -> c", "Conv c -> out"],
            {"c": tensor(17)},
            {"a": (0, 1), "b": (1, 2), "c": (2, 3)},
            id="not by one of another shape",
        ),
        pytest.param(
            ["Conv in -> a", "Conv a -> b", "Conv b -> c", "Conv c -> out"],
            {"a": Tensor(FLOAT, (2, 4, 4), (3, 4, 4))},
            {"a": (0, 1), "b": (1, 2), "c": (2, 3)},
            id="not even when it has as many bytes",
        ),
        pytest.param(
            ["Conv in -> a", "Conv a -> b", "Conv b -> c", "Conv c -> out"],
            {"a": tensor(16, 1)},
            {"a": (0, 1), "b": (1, 2), "c": (2, 3)},
            id="nor of another type",
        ),
        pytest.param(["Conv in -> a", "Relu a -> b", "Conv b -> out"], {}, {"a": (0, 2)}, id="in place"),
        pytest.param(
            ["Conv in -> a", "Relu a -> b", "Mul a b -> c", "Conv c -> out"],
            {},
            {"a": (0, 2), "b": (1, 2), "c": (2, 3)},
            id="not while another reads it",
        ),
        pytest.param(
            ["Conv in -> a", "Exp a -> b", "Conv b -> out"], {}, {"a": (0, 1), "b": (1, 2)}, id="not by an operator that may not"
        ),
        pytest.param(["Relu in -> a", "Conv a -> out"], {}, {"a": (0, 1)}, id="not over the caller's input"),
        pytest.param(["Conv in -> a", "Relu a -> out"], {}, {"a": (0, 1)}, id="nor into the caller's output"),
        pytest.param(
            ["Conv in -> a", "Reshape a s -> b", "Conv b -> c", "Add a c -> out"],
            {"b": Tensor(FLOAT, (2, 8, 2), (3, 8, 2))},
            {"a": (0, 3), "c": (2, 3)},
            id="a view keeps its buffer alive",
        ),
        pytest.param(["Split in -> a b", "Conv a -> c", "Conv c -> out"], {}, {"a": (0, 1), "b": (0, 2)}, id="unread"),
        pytest.param(
            ["Conv in -> a", "Conv a -> b", "Add a b -> c", "Conv c -> d", "Conv d -> out"],
            {},
            {"a": (0, 2), "b": (1, 4), "c": (2, 3)},
            id="the last to die is taken first",
        ),
    ],
)
def test_reuse_of_buffers(nodes, sizes, buffers):
    found = assign(program(*nodes, outputs=["out"], sizes=sizes, weights={"s": 16}))
    assert {buffer.name: (buffer.born, buffer.dies) for buffer in found} == buffers


SIZES = {"a": 64, "b": 128, "c": 192, "d": 64, "e": 256, "tiny": 1, "none": 0}


@pytest.mark.parametrize(
    ("lives", "block_bytes"),
    [
        ([("a", 0, 1)], 64),
        ([("tiny", 0, 1), ("a", 0, 1)], 128),
        ([("none", 0, 1)], 0),
        # one after the other in the same place; together side by side
        ([("a", 0, 1), ("b", 2, 3)], 128),
        ([("a", 0, 1), ("b", 1, 2)], 192),
        ([("a", 0, None), ("b", 5, 6)], 192),
        # b frees a gap of 128 between a and c: d lies in it, and e, too large, behind c
        ([("a", 0, 9), ("b", 0, 1), ("c", 0, 9), ("d", 2, 9)], 384),
        ([("a", 0, 9), ("b", 0, 1), ("c", 0, 9), ("e", 2, 9)], 640),
        # of two gaps the tighter one: tiny goes where a was, so b fits where c was
        ([("c", 0, 1), ("d", 0, 9), ("a", 0, 1), ("e", 0, 9), ("tiny", 2, 9), ("b", 2, 9)], 576),
    ],
)
def test_offsets_in_one_block(lives, block_bytes):
    buffers = sorted((Buffer(*life) for life in lives), key=lambda buffer: buffer.born)
    assert pack(buffers, SIZES.__getitem__) == block_bytes


QDQ = ["DequantizeLinear q s z -> f", "DequantizeLinear w s z -> wf", "Conv f wf -> g", "QuantizeLinear g s2 z -> h"]
CONSTANTS = {"s": 4, "s2": 4, "z": 1, "w": 100, "wf": 400}


@pytest.mark.parametrize(
    ("nodes", "joined"),
    [
        (["Conv in w -> out"], [("Conv", ("in", "w"), ("out",))]),
        ([*QDQ, "Foo h -> out"], [("QLinearConv", ("q", "w"), ("h",)), ("Foo", ("h",), ("out",))]),
        # g is read as a float, too: the steps stay
        ([*QDQ, "Foo h g -> out"], None),
        # f is, but that is its reader's matter
        (
            [*QDQ, "Foo h f -> out"],
            [("DequantizeLinear", ("q", "s", "z"), ("f",)), ("QLinearConv", ("q", "w"), ("h",)), ("Foo", ("h", "f"), ("out",))],
        ),
        # an input that was never 8 bits
        (["DequantizeLinear q s z -> f", "Add f in -> g", "QuantizeLinear g s z -> out"], None),
        # moving numbers keeps their scale
        (["DequantizeLinear q s z -> f", "Split f -> g", "QuantizeLinear g s2 z -> out"], None),
        (["DequantizeLinear q s z -> f", "Split f -> g", "QuantizeLinear g s z -> out"], [("QLinearSplit", ("q",), ("out",))]),
        (["DequantizeLinear q s z -> f", "Reshape f -> g", "QuantizeLinear g s z -> out"], [("Reshape", ("q",), ("out",))]),
    ],
)
def test_quantized_operators_are_joined(nodes, joined):
    one = program(*nodes, outputs=["out"], inputs=("in", "q"), weights=CONSTANTS)
    found = join(one)
    if joined is None:
        assert {node.op for node in found.nodes} == {node.op for node in one.nodes}
    else:
        assert [(node.op, node.inputs, node.outputs) for node in found.nodes] == joined


def ints(*values):
    return np.array(values, np.int64)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "value"),
    [
        ("Add", [ints(1, 2), ints(3)], {}, ints(4, 5)),
        ("Sub", [ints(1, 2), ints(3)], {}, ints(-2, -1)),
        ("Mul", [ints(2), ints(3)], {}, ints(6)),
        ("Div", [ints(-7, 7), ints(2)], {}, ints(-3, 3)),
        ("Div", [np.float32([1]), np.float32([4])], {}, np.float32([0.25])),
        ("Mod", [ints(7), ints(4)], {}, ints(3)),
        ("Cast", [np.float32([2.9])], {"to": 7}, ints(2)),
        ("Concat", [ints(1), ints(2, 3)], {"axis": 0}, ints(1, 2, 3)),
        ("ConstantOfShape", [ints(2)], {"value": ints(7)}, ints(7, 7)),
        ("ConstantOfShape", [ints(2)], {}, np.float32([0, 0])),
        ("Equal", [ints(1, 2), ints(1)], {}, np.array([True, False])),
        ("Where", [np.array([True, False]), ints(1, 1), ints(2, 2)], {}, ints(1, 2)),
        ("Expand", [ints(5), ints(3)], {}, ints(5, 5, 5)),
        ("Gather", [ints(10, 20, 30), ints(-1)], {}, ints(30)),
        ("Range", [np.int64(0), np.int64(6), np.int64(2)], {}, ints(0, 2, 4)),
        ("Range", [np.float32(0), np.float32(1), np.float32(0.5)], {}, np.float32([0, 0.5])),
        ("Reshape", [ints(1, 2, 3, 4), ints(2, -1)], {}, ints([1, 2], [3, 4])),
        ("Reshape", [ints([1, 2], [3, 4]), ints(0, 2, 1)], {}, ints([[1], [2]], [[3], [4]])),
        ("Slice", [ints(1, 2, 3, 4), ints(1), ints(9)], {}, ints(2, 3, 4)),
        ("Slice", [ints([1, 2], [3, 4]), ints(0), ints(2), ints(1), ints(2)], {}, ints([1], [3])),
        ("Unsqueeze", [ints(1, 2), ints(0)], {}, ints([1, 2])),
        ("Squeeze", [ints([1, 2]), ints(0)], {}, ints(1, 2)),
        ("Squeeze", [ints([1, 2])], {}, ints(1, 2)),
        ("Tile", [ints(1, 2), ints(2)], {}, ints(1, 2, 1, 2)),
        ("Transpose", [ints([1, 2], [3, 4])], {"perm": [1, 0]}, ints([1, 3], [2, 4])),
        ("Flatten", [ints([1, 2], [3, 4])], {"axis": 0}, ints([1, 2, 3, 4])),
        ("Floor", [np.float32([1.5])], {}, np.float32([1])),
        ("Max", [ints(1), ints(2), ints(0)], {}, ints(2)),
        ("Min", [ints(1), ints(2)], {}, ints(1)),
        ("And", [np.array([True]), np.array([False])], {}, np.array([False])),
        ("Identity", [ints(1)], {}, ints(1)),
        ("Neg", [ints(1)], {}, ints(-1)),
        ("Ceil", [np.float32([1.5])], {}, np.float32([2])),
        # what cannot be is not known
        ("Reshape", [ints(1, 2, 3), ints(2, 2)], {}, None),
        ("Gather", [ints(1), ints(5)], {}, None),
        ("Cast", [ints(1)], {"to": 99}, None),
        ("Unsqueeze", [ints(1), ints(7)], {}, None),
        ("Expand", [ints(5), ints(2_000_000)], {}, None),
        ("Tile", [np.zeros(2_000_000), ints(1)], {}, None),
        # nor does anybody's file make an array of a terabyte here
        ("Expand", [ints(5), ints(10**6, 10**6)], {}, None),
        ("ConstantOfShape", [ints(10**6, 10**6)], {}, None),
        ("Tile", [np.zeros(1000), ints(10**9)], {}, None),
        ("Range", [np.int64(0), np.int64(10**12), np.int64(1)], {}, None),
        ("Range", [np.int64(0), np.int64(9), np.int64(0)], {}, None),
    ],
)
def test_arithmetic_on_shapes(op, inputs, attributes, value):
    assert foldable(op)
    found = fold(op, inputs, attributes)
    if value is None:
        assert found is None
    else:
        assert found is not None
        assert found.dtype == value.dtype
        np.testing.assert_array_equal(found, value)


def test_an_operator_that_looks_at_pixels_is_not_computed_here():
    assert not foldable("Conv")
    assert not foldable("NonMaxSuppression")


@st.composite
def programs(draw):
    """Any graph of up to 12 operators, each reading up to three earlier tensors; now and then one that nobody reads."""
    nodes, names, sizes = [], ["in"], {"in": tensor(8)}
    for number in range(draw(st.integers(1, 12))):
        inputs = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3))
        op = draw(st.sampled_from(("Conv", "Relu", "Add", "Reshape", "Concat")))
        name = f"t{number}"
        first = sizes[inputs[0]]
        sizes[name] = first if op in ("Relu", "Reshape") else tensor(draw(st.sampled_from((8, 8, 16, 100))))
        nodes.append(Node(op, tuple(inputs), (name,)))
        names.append(name)
    outputs = draw(st.lists(st.sampled_from(names[1:]), min_size=1, max_size=2, unique=True))
    return Program(tuple(nodes), ("in",), tuple(outputs), sizes, {})


def _aligned(size):
    return -(-size // 64) * 64


@given(programs(), st.integers(1, 64))
def test_a_block_holds_what_lives_at_once_and_no_more_than_everything(one, batch):
    buffers = assign(one)

    def size_of(name):
        return one.tensors[name].bytes_at(batch)

    block_bytes = pack(buffers, size_of)
    steps = len(one.nodes)
    alive = [
        sum(_aligned(size_of(b.name)) for b in buffers if b.born <= step <= (steps if b.dies is None else b.dies))
        for step in range(steps)
    ]
    assert max(alive, default=0) <= block_bytes <= sum(_aligned(size_of(b.name)) for b in buffers)


@given(programs())
def test_nobody_reads_a_buffer_that_was_given_back(one):
    """Each tensor's buffer lives from the step that makes it to the last step that reads it."""
    buffers = {buffer.name: buffer for buffer in assign(one)}
    steps = {name: step for step, number in enumerate(one.order) for name in one.nodes[number].outputs}
    for name, buffer in buffers.items():
        read_at = [steps[node.outputs[0]] for node in one.nodes if name in node.inputs]
        assert buffer.born == steps[name]
        if read_at and buffer.dies is not None:
            assert buffer.dies >= max(read_at)


@given(programs())
def test_every_operator_runs_once_and_after_those_it_reads_from(one):
    assert sorted(one.order) == list(range(len(one.nodes)))
    position = {number: step for step, number in enumerate(one.order)}
    maker = {node.outputs[0]: number for number, node in enumerate(one.nodes)}
    for number, node in enumerate(one.nodes):
        assert all(position[maker[name]] < position[number] for name in node.inputs if name in maker)


def test_sizes_are_a_line_through_two_batches():
    constant, growing = Tensor(FLOAT, (5, 7), (5, 7)), Tensor(2, (2, 3, 5), (3, 3, 5))
    assert [constant.bytes_at(batch) for batch in (1, 2, 50)] == [140] * 3
    assert [growing.bytes_at(batch) for batch in (1, 2, 50)] == [30, 60, 1500]
    assert all(one.bytes_at(1) <= one.bytes_at(2) for one in itertools.chain([constant, growing]))
