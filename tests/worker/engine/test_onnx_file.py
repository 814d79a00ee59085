"""Whole, plain ONNX files are accepted; everything else is refused, whatever the bytes."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolastic_worker.engine.onnx_file import NotPlainOnnx, check_plain_onnx

DATA = Path(__file__).resolve().parents[1] / "data"
ROOT = Path(__file__).resolve().parents[3]
MODEL = (DATA / "dynamic.onnx").read_bytes()


@pytest.mark.parametrize(
    "path", [DATA / "dynamic.onnx", DATA / "half.onnx", DATA / "fixed.onnx", ROOT / "examples/models/shapes.onnx"]
)
def test_accepted(path: Path) -> None:
    check_plain_onnx(path.read_bytes())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an ONNX model"),
        (b"\x00" * 100, "protocol buffer"),
        (b"hello", "protocol buffer"),
        (b"PK\x03\x04" + b"\x00" * 60, "protocol buffer"),
        (MODEL[:-20], "cut off"),
        (MODEL[: len(MODEL) // 2], "cut off"),
        ((DATA / "external.onnx").read_bytes(), "external data"),
        ((DATA / "foreign.onnx").read_bytes(), "com.example"),
        (b"\x08" + b"\xff" * 20, "too long"),
    ],
)
def test_refused(content: bytes, words: str) -> None:
    with pytest.raises(NotPlainOnnx, match=words):
        check_plain_onnx(content)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_answered(content: bytes) -> None:
    """Never anything but the one exception."""
    try:
        check_plain_onnx(content)
    except NotPlainOnnx:
        return


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(MODEL) - 1), st.integers(0, 255))
def test_any_flipped_byte_is_answered(at: int, value: int) -> None:
    try:
        check_plain_onnx(MODEL[:at] + bytes([value]) + MODEL[at + 1 :])
    except NotPlainOnnx:
        return
