"""Plans of whole models: what holds for each, what is refused, and the child that makes them for a worker."""

import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from planner_kit import MODELS, chain, model

from yolastic_contract.names import BUCKETS
from yolastic_worker.memory.planner import BatchBytes, NotPlannable, Plan, plan, plan_in_child
from yolastic_worker.memory.planner.priors import PRIORS
from yolastic_worker.memory.planner.skeleton import skeleton

DATA = Path(__file__).resolve().parents[1] / "data"
MIB = 2**20


@pytest.fixture(scope="module")
def plans():
    return {name: plan(model(name), device="cuda") for name in MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_every_task_head_and_precision_has_a_plan(plans, name):
    made = plans[name]
    assert [row.images for row in made.batches] == list(BUCKETS)
    assert (made.height, made.width) == ((224, 224) if "cls" in name else (640, 640))
    assert made.precision == {"fp16": "FP16", "int8": "INT8"}.get(name.rpartition("-")[2], "FP32")
    totals = [row.total_bytes for row in made.batches]
    assert totals == sorted(totals)
    for row in made.batches:
        assert row.total_bytes >= made.fixed_bytes + row.block_bytes + row.io_bytes > made.weights_bytes
        assert row.io_bytes >= row.images * 3 * made.height * made.width * 4
    assert made.fit.residual <= 1e-3 * totals[0], "memory is a line in the batch"
    assert made.fit.samples == 0


@given(st.sampled_from(MODELS), st.integers(1, 600), st.integers(1, 600))
@settings(max_examples=50, deadline=None)
def test_more_images_never_take_less(name, one, other):
    made = _cached(name)
    few, many = sorted((one, other))
    assert made.weights_bytes < made.bytes_at(few) <= made.bytes_at(many)


@given(st.sampled_from(MODELS), st.integers(0, 64 * 1024))
@settings(max_examples=50, deadline=None)
def test_the_largest_batch_fits_and_the_next_does_not(name, budget_mib):
    made, budget = _cached(name), budget_mib * MIB
    largest = made.largest(budget)
    assert largest == 0 or made.bytes_at(largest) <= budget
    assert made.bytes_at(largest + 1) > budget


_PLANS: dict[str, Plan] = {}


def _cached(name):
    if name not in _PLANS:
        _PLANS[name] = plan(model(name), device="cuda")
    return _PLANS[name]


def test_half_precision_halves_what_lies_between_input_and_output():
    whole, half = plan(model("yolov8n"), device="cuda"), plan(model("yolov8n"), device="cuda", precision="FP16")
    native = plan(model("yolov8n-fp16"), device="cuda")
    for full, asked, given_so in zip(whole.batches, half.batches, native.batches, strict=True):
        assert asked.block_bytes == pytest.approx(full.block_bytes / 2, rel=0.01)
        assert given_so.block_bytes == pytest.approx(asked.block_bytes, rel=0.01)
        assert asked.io_bytes == full.io_bytes, "a conversion leaves input and output as they are"
    assert half.weights_bytes == pytest.approx(whole.weights_bytes / 2, rel=0.01)


def test_a_cpu_computes_half_precision_in_full():
    assert plan(model("yolov8n-fp16")).batches[3].block_bytes == pytest.approx(
        plan(model("yolov8n")).batches[3].block_bytes, rel=0.01
    )


def test_eight_bits_take_about_half_with_float_steps_between(plans):
    for name in ("yolov8n", "yolo11n"):
        assert plans[f"{name}-int8"].batches[4].block_bytes < 0.6 * plans[name].batches[4].block_bytes
        assert plans[f"{name}-int8"].weights_bytes < 0.3 * plans[name].weights_bytes


def test_the_input_size_decides():
    small, large = plan(model("yolo11n"), input_size=(320, 320)), plan(model("yolo11n"), input_size=(640, 640))
    assert large.batches[2].block_bytes == pytest.approx(4 * small.batches[2].block_bytes, rel=0.05)
    wide = plan(model("yolo11n"), input_size=(384, 640))
    assert (wide.height, wide.width) == (384, 640)
    assert small.bytes_at(8) < wide.bytes_at(8) < large.bytes_at(8)


def test_the_sum_is_the_terms(plans):
    made = plans["yolov8n"]
    prior = PRIORS["cuda", False]
    fixed = prior.process.value + prior.workspace.value + prior.loading.value * made.weights_bytes
    assert made.fixed_bytes == pytest.approx(fixed, abs=1)
    for row in made.batches:
        assert row.total_bytes == pytest.approx(fixed + prior.growth.value * row.block_bytes + row.io_bytes, abs=2)
    assert {term.name: term.known for term in made.terms} == {
        "weights": "planned", "activations": "planned", "io": "planned",
        "process": "prior", "loading": "prior", "workspace": "prior", "growth": "prior",
    }  # fmt: skip
    assert all(term.source for term in made.terms)


def test_default_settings_of_the_runtime_take_nearly_twice_as_much():
    for device in ("cpu", "cuda"):
        ours, defaults = (plan(model("yolov8n"), device=device, runtime_defaults=default) for default in (False, True))
        assert 1.6 < defaults.growth / ours.growth <= 2.0
        assert defaults.bytes_at(32) > 1.3 * ours.bytes_at(32)


def test_between_and_beyond_the_planned_batches_it_is_a_line():
    rows = tuple(BatchBytes(images, 0, 0, 100 + 10 * images) for images in (1, 2, 4))
    made = Plan("cpu", "FP32", 64, 64, 5, 100, 1.0, rows, ())
    assert [made.bytes_at(batch) for batch in (1, 2, 3, 4, 100)] == [110, 120, 130, 140, 1100]
    assert [made.largest(budget) for budget in (0, 109, 110, 135, 1105)] == [0, 0, 1, 3, 100]
    flat = replace(made, batches=tuple(replace(row, total_bytes=100) for row in rows))
    assert [flat.largest(budget) for budget in (99, 100)] == [0, 4]


def test_no_batch_above_the_limit_is_planned():
    assert [row.images for row in plan(model("yolo11n-cls"), max_batch=6).batches] == [1, 2, 4, 6]
    single = plan(model("yolo11n-cls"), max_batch=1)
    assert single.bytes_at(1) == single.batches[0].total_bytes
    assert single.fit.fixed == pytest.approx(single.fixed_bytes)


def _edited(change):
    made = onnx.load_from_string((DATA / "dynamic.onnx").read_bytes())
    change(made)
    return made.SerializeToString()


def _two_inputs(made):
    made.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["batch", 3, 64, 64]))


def _branch(made):
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "inner", [], [])
    made.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=inner, else_branch=inner))


def _circle(made):
    made.graph.node.extend([helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Relu", ["y"], ["x"])])


def _unmade(made):
    made.graph.node[1].input[1] = "nobody"


def _torn(made):
    made.graph.initializer[0].dims[0] += 1


_COUNTING = [helper.make_node("NonZero", ["t"], ["n"]), helper.make_node("Cast", ["n"], ["out"], to=TensorProto.FLOAT)]
_MIXING = [helper.make_node("ReduceMax", ["t"], ["out"], axes=[0])]


@pytest.mark.parametrize(
    ("content", "asked", "words"),
    [
        (b"", {}, "not an ONNX model"),
        (b"# a readme\n" * 50, {}, "not an ONNX model"),
        (model("yolov8n")[:5000], {}, "not an ONNX model"),
        ((DATA / "fixed.onnx").read_bytes(), {}, "its batch is fixed at 1; export it with a dynamic batch: yolo export"),
        ((DATA / "careless.onnx").read_bytes(), {}, "cannot be told for every batch; export it with a dynamic batch"),
        ((DATA / "external.onnx").read_bytes(), {}, "weights are in another file"),
        ((DATA / "dynamic.onnx").read_bytes(), {"input_size": (128, 128)}, "fixed at 64x64"),
        (model("yolo11n-cls"), {"input_size": (100, 100)}, "not a multiple of 32"),
        (model("yolo11n-cls"), {"device": "tpu"}, "nothing is known of the device tpu"),
        (model("yolo11n-cls"), {"precision": "INT8"}, "a plan for INT8 is made from a file that is INT8"),
        (model("yolov8n-int8"), {"precision": "FP16"}, "quantized to INT8"),
        (_edited(_two_inputs), {}, "does not take one batch of images"),
        (_edited(_branch), {}, "branches or loops"),
        (_edited(_circle), {}, "in a circle"),
        (_edited(_unmade), {}, "it reads nobody, which nothing makes|cannot be told"),
        (_edited(_torn), {}, "damaged"),
        (
            chain([helper.make_node("NonZero", ["t"], ["n"]), helper.make_node("Cast", ["n"], ["out"], to=1)], {}),
            {},
            "cannot be told",
        ),
        (chain([helper.make_node("ReduceMax", ["t"], ["out"], axes=[0])], {}), {}, "not one answer for each image"),
    ],
)
def test_what_cannot_be_planned_says_why(content, asked, words):
    with pytest.raises(NotPlannable, match=words):
        plan(content, **asked)


def test_a_skeleton_has_all_that_a_plan_is_made_of():
    for name in ("yolov8s", "yolov8n-fp16", "yolo11n-int8"):
        content = model(name)
        bones = skeleton(content)
        assert len(bones) < len(content) / 5
        assert skeleton(bones) == bones
        assert plan(bones) == plan(content)
        left, whole = onnx.load_from_string(bones).graph, onnx.load_from_string(content).graph
        assert list(left.node) == list(whole.node)
        assert [(t.name, t.dims, t.data_type) for t in left.initializer] == [
            (t.name, t.dims, t.data_type) for t in whole.initializer
        ]
        assert [t for t in left.initializer if t.raw_data] == [
            t for t in whole.initializer if t.ByteSize() <= 4096 and t.raw_data
        ]


@given(st.binary(max_size=300), st.integers(0, 20_000))
@settings(max_examples=100, deadline=None)
def test_no_bytes_crash_it(noise, place):
    """Any file gives a plan or a sentence."""
    content = bytearray((DATA / "dynamic.onnx").read_bytes())
    place %= len(content)
    content[place : place + len(noise)] = noise
    for damaged in (noise, bytes(content), bytes(content[:place])):
        with suppress(NotPlannable):
            made = plan(damaged, max_batch=2)
            assert made.bytes_at(1) <= made.bytes_at(2)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(NotPlannable, match="cannot be read"):
        plan(tmp_path / "no.onnx")
    with pytest.raises(NotPlannable, match="cannot be read"):
        plan_in_child(tmp_path / "no.onnx")


def test_an_image_whose_channels_come_last():
    """A model whose input was rewritten to take pixels as they are decoded."""
    made = onnx.load_from_string((DATA / "dynamic.onnx").read_bytes())
    for node in made.graph.node:
        node.input[:] = ["planes" if name == "images" else name for name in node.input]
    made.graph.node.insert(0, helper.make_node("Cast", ["turned"], ["planes"], to=TensorProto.FLOAT))
    made.graph.node.insert(0, helper.make_node("Transpose", ["images"], ["turned"], perm=[0, 3, 1, 2]))
    del made.graph.input[:]
    made.graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 64, 64, 3]))
    rewritten, plain = plan(made.SerializeToString()), plan(DATA / "dynamic.onnx")
    pixels = 3 * 64 * 64
    assert plain.batches[0].io_bytes - rewritten.batches[0].io_bytes == 3 * pixels
    assert rewritten.batches[0].block_bytes >= plain.batches[0].block_bytes + 4 * pixels


def test_a_child_makes_the_same_plan():
    asked = {"device": "cuda", "precision": "FP16", "input_size": (320, 416), "max_batch": 12, "runtime_defaults": True}
    assert plan_in_child(model("yolo26n"), **asked) == plan(model("yolo26n"), **asked)
    with pytest.raises(NotPlannable, match="fixed at 1"):
        plan_in_child(DATA / "fixed.onnx")


def test_a_child_that_takes_too_long_is_ended():
    with pytest.raises(NotPlannable, match="could not be made"):
        plan_in_child(model("yolo26n"), timeout_s=0.01)


_IN_A_WORKER = """
import sys
from pathlib import Path
from yolastic_worker.memory.probe import resident_bytes
import json, subprocess, numpy, yolastic_worker.engine.metadata, yolastic_contract.state, yolastic_contract.quantity
before = resident_bytes()
from yolastic_worker.memory.planner import plan_in_child
plan_in_child(Path(sys.argv[1]))
print(resident_bytes() - before, "onnx" in sys.modules)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_nothing_of_a_plan_stays_in_the_worker():
    done = subprocess.run(
        [sys.executable, "-c", _IN_A_WORKER, DATA / "dynamic.onnx"], capture_output=True, text=True, check=True, timeout=60
    )
    grown_bytes, loaded = done.stdout.split()
    assert loaded == "False"
    assert int(grown_bytes) < 5 * MIB
