"""`plan`: reads the file, infers shapes, lays the tensors out, and adds what is known of the rest."""

import math
from pathlib import Path
from typing import Final

from yolastic_contract.names import BUCKETS
from yolastic_contract.quantity import format_bytes
from yolastic_worker.memory.planner.graph import Reading, read
from yolastic_worker.memory.planner.offsets import pack
from yolastic_worker.memory.planner.priors import PRIORS, Prior
from yolastic_worker.memory.planner.quantized import join
from yolastic_worker.memory.planner.result import BatchBytes, NotPlannable, Plan, Term
from yolastic_worker.memory.planner.reuse import assign

_FLOAT, _HALF = 1, 10
_WIDENED: Final = {_HALF: 4}
"""A CPU has no kernels for FP16: it computes, and keeps, such tensors in FP32."""
_HALVED: Final = {_FLOAT: 2}


def plan(
    model: bytes | Path,
    *,
    device: str = "cpu",
    precision: str | None = None,
    input_size: tuple[int, int] | None = None,
    max_batch: int = 256,
    runtime_defaults: bool = False,
) -> Plan:
    """Bytes for each bucket up to `max_batch`, in a few ten milliseconds for a small model.

    `input_size`: (height, width); None: what the model says. `precision`: FP32 or FP16, as if the file were converted; None: as
    it is. `runtime_defaults`: plan for ONNX Runtime's default session settings instead of the worker's.

    Raises:
        NotPlannable: the file is no ONNX model, its batch is fixed, or a shape cannot be told.
    """
    prior = PRIORS.get((device, runtime_defaults))
    if prior is None:
        raise NotPlannable(f"nothing is known of the device {device}; known are cpu and cuda")
    reading = _read(content_of(model), device, precision, input_size)
    program = join(reading.program)
    buffers = assign(program)
    fixed_bytes = math.ceil(prior.process.value + prior.workspace.value + prior.loading.value * program.weights_bytes)
    rows: list[BatchBytes] = []
    block_bytes = 0
    for images in (*(bucket for bucket in BUCKETS if bucket < max_batch), max_batch):
        sizes = {name: tensor.bytes_at(images) for name, tensor in program.tensors.items()}
        block_bytes = max(block_bytes, pack(buffers, sizes.__getitem__))  # best fit may do better by chance with larger pieces
        io_bytes = sum(program.tensors[name].bytes_at(images) for name in (*program.inputs, *program.outputs))
        total_bytes = fixed_bytes + math.ceil(prior.growth.value * block_bytes) + io_bytes
        rows.append(BatchBytes(images, block_bytes, io_bytes, total_bytes))
    return Plan(
        device=device, precision=precision or reading.precision, height=reading.height, width=reading.width,
        weights_bytes=program.weights_bytes, fixed_bytes=fixed_bytes, growth=prior.growth.value, batches=tuple(rows),
        terms=_terms(prior, program.weights_bytes),
    )  # fmt: skip


def content_of(model: bytes | Path) -> bytes:
    """The bytes of a model.

    Raises:
        NotPlannable: the file cannot be read.
    """
    if isinstance(model, bytes):
        return model
    try:
        return model.read_bytes()
    except OSError as error:
        raise NotPlannable(f"{model} cannot be read: {error.strerror}") from error


def _read(content: bytes, device: str, precision: str | None, input_size: tuple[int, int] | None) -> Reading:
    if precision not in (None, "FP32", "FP16"):
        raise NotPlannable(f"a plan for {precision} is made from a file that is {precision}; only FP32 and FP16 can be asked for")
    if device == "cpu" or precision == "FP32":
        reading = read(content, input_size, _WIDENED)
    else:
        reading = read(content, input_size, _HALVED if precision == "FP16" else {})
    if precision is not None and reading.precision == "INT8":
        raise NotPlannable(f"the file is quantized to INT8; it cannot be planned as {precision}")
    return reading


def _terms(prior: Prior, weights_bytes: int) -> tuple[Term, ...]:
    return (
        Term("weights", format_bytes(weights_bytes), "planned", "the file's tensors"),
        Term("activations", "a column", "planned", "shapes, lifetimes and ONNX Runtime's reuse of buffers"),
        Term("io", "a column", "planned", "the shapes of input and outputs"),
        Term("process", format_bytes(int(prior.process.value)), "prior", prior.process.source),
        Term("loading", f"{prior.loading.value:g} x weights", "prior", prior.loading.source),
        Term("workspace", format_bytes(int(prior.workspace.value)), "prior", prior.workspace.source),
        Term("growth", f"{prior.growth.value:g} x activations", "prior", prior.growth.source),
    )
