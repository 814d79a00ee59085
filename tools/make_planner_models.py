"""Make the graph skeletons that the memory planner's tests work with: tests/goldens/planner/*.onnx.xz.

Ultralytics architectures are built from their YAML files with random weights and exported with a dynamic batch; the values of
every large tensor are then left out, because memory depends on shapes alone. `refill` in tests/worker/memory puts zeros back.
Needs the `export` extra and ONNX Runtime: `python tools/make_planner_models.py [NAME ...]`.
"""

import argparse
import lzma
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_OFFLINE", "true")

GOLDENS = Path(__file__).resolve().parent.parent / "tests/goldens/planner"
KEEP_BYTES = 1024
"""Tensors up to this size keep their values: shapes, scales and indices decide what the graph does."""
OPSET = 17

EXPORTS = {
    "yolov8n": 640, "yolov8s": 640, "yolov8m": 640, "yolo11n": 640, "yolo26n": 640,
    "yolo11n-seg": 640, "yolo26n-seg": 640, "yolo11n-pose": 640, "yolo11n-obb": 640, "yolo11n-cls": 224,
}  # fmt: skip
"""Architecture: input side, pixels."""
CONVERTED: dict[str, tuple[str, str]] = {
    "yolov8n-fp16": ("yolov8n", "half"),
    "yolov8n-int8": ("yolov8n", "quantized"),
    "yolo11n-int8": ("yolo11n", "quantized"),
}


def export(architecture: str, side: int, work: Path) -> Path:
    """Export a model with random weights; its path."""
    from ultralytics import YOLO  # noqa: PLC0415 - 6 GB that --help does not need

    model = YOLO(f"{architecture}.yaml")
    model.save(str(work / f"{architecture}.pt"))
    exported = YOLO(str(work / f"{architecture}.pt")).export(format="onnx", dynamic=True, imgsz=side, opset=OPSET, device="cpu")
    return Path(exported)


def half(source: Path, target: Path) -> None:
    """Weights and activations in FP16, input and output in FP32: what Ultralytics exports without a device."""
    import onnx  # noqa: PLC0415
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415

    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


def quantized(source: Path, target: Path) -> None:
    """QDQ around every convolution with unsigned activations; the head's other operators stay in FP32."""
    import numpy as np  # noqa: PLC0415
    import onnx  # noqa: PLC0415
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static  # noqa: PLC0415

    class Noise(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = 2

        def get_next(self) -> dict[str, Any] | None:
            self._left -= 1
            name = onnx.load(source, load_external_data=False).graph.input[0].name
            return {name: np.random.default_rng(self._left).random((1, 3, 640, 640), np.float32)} if self._left >= 0 else None

    quantize_static(
        source, target, Noise(), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "Gemm", "MatMul", "Sigmoid", "Mul", "Add", "Concat", "MaxPool"],
    )  # fmt: skip


CONVERTERS: dict[str, Callable[[Path, Path], None]] = {"half": half, "quantized": quantized}


def skeleton(source: Path) -> bytes:
    """The model without the values of its large tensors."""
    import onnx  # noqa: PLC0415

    model = onnx.load(source)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > KEEP_BYTES:
            tensor.ClearField("raw_data")
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "value" and len(attribute.t.raw_data) > KEEP_BYTES:
                raise ValueError(f"{source.name}: a large constant inside node {node.name}")
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for entry in list(model.metadata_props):
        if entry.key in ("date", "description", "docs"):
            model.metadata_props.remove(entry)
    return bytes(model.SerializeToString(deterministic=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[*EXPORTS, *CONVERTED])
    parser.add_argument("--keep", type=Path, help="folder that keeps the whole models")
    options = parser.parse_args()
    GOLDENS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = options.keep.resolve() if options.keep else Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        os.chdir(work)
        for name in options.names:
            whole = work / f"{name}.onnx"
            if name in EXPORTS and not whole.exists():
                shutil.move(export(name, EXPORTS[name], work), whole)
            elif not whole.exists():
                base, how = CONVERTED[name]
                source = work / f"{base}.onnx"
                if not source.exists():
                    shutil.move(export(base, EXPORTS[base], work), source)
                CONVERTERS[how](source, whole)
            packed = lzma.compress(skeleton(whole), preset=9 | lzma.PRESET_EXTREME)
            (GOLDENS / f"{name}.onnx.xz").write_bytes(packed)
            print(f"{name}: {len(packed)} bytes", flush=True)


if __name__ == "__main__":
    main()
