"""PNG: the same pixels without what holds none, and no more inflated than there are rows."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from benchmarks import hostile
from hypothesis import given
from hypothesis import strategies as st

from yolastic_worker.decode import ImageRefused, decode
from yolastic_worker.decode.png import PngRefused, tidy

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, depth: int, colour: int, interlaced: int, raw: bytes, pieces: int = 3) -> bytes:
    data = zlib.compress(raw, 0)  # stored: large enough to be looked at
    step = len(data) // pieces + 1
    palette = _chunk(b"PLTE", bytes(range(256)) * 3) if colour == 3 else b""
    parts = b"".join(_chunk(b"IDAT", data[at : at + step]) for at in range(0, len(data), step))
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    return SIGNATURE + head + palette + parts + _chunk(b"IEND", b"")


def _rows(width: int, height: int, bits: int) -> bytes:
    return (b"\0" + bytes((width * bits + 7) // 8)) * height


@pytest.mark.parametrize(
    ("depth", "colour", "bits"), [(8, 2, 24), (8, 6, 32), (16, 2, 48), (8, 0, 8), (1, 0, 1), (8, 3, 8), (8, 4, 16)]
)
@pytest.mark.parametrize("surplus", [0, 1, 5000])
def test_rows_and_not_a_byte_more(depth: int, colour: int, bits: int, surplus: int) -> None:
    width, height = (2001, 131) if bits < 8 else (301, 131)
    body = _png(width, height, depth, colour, 0, _rows(width, height, bits) + bytes(surplus))
    if surplus and len(body) > 17_000:
        with pytest.raises(PngRefused):
            tidy(body)
    else:
        assert decode(body).shape == (height, width, 3)


@given(st.integers(1, 40), st.integers(1, 40))
def test_interlaced_rows_are_counted_as_the_passes_have_them(width: int, height: int) -> None:
    """Against the decoder itself: with one byte less it has too few."""
    from yolastic_worker.decode.png import _raw_bytes

    head = _png(width, height, 8, 2, 1, b"")
    pixels = 3 * width * height
    raw = _raw_bytes(head)
    assert pixels < raw <= pixels + 2 * height + 7
    sound = _png(width, height, 8, 2, 1, bytes(raw))
    assert cv2.imdecode(np.frombuffer(sound, np.uint8), cv2.IMREAD_COLOR) is not None


_FIRST_FRAME = struct.pack(">5I2H2B", 0, 112, 96, 0, 0, 1, 9, 0, 0)
_ASIDE = {
    "text": _chunk(b"tEXt", b"a\0b"), "translated text": _chunk(b"iTXt", b"a\0\0\0\0\0b"),
    "gamma": _chunk(b"gAMA", struct.pack(">I", 100_000)), "time": _chunk(b"tIME", bytes(7)),
    "resolution": _chunk(b"pHYs", bytes(9)), "background": _chunk(b"bKGD", bytes(6)), "unknown": _chunk(b"abCd", b"x"),
    "animation": _chunk(b"acTL", struct.pack(">II", 2, 0)) + _chunk(b"fcTL", _FIRST_FRAME),
}  # fmt: skip


@pytest.mark.parametrize("name", _ASIDE)
@pytest.mark.parametrize("kind", ["png", "png with alpha", "png of 16 bits"])
def test_what_is_no_pixel_is_left_out_and_changes_none(kind: str, name: str) -> None:
    image = hostile.sound_images()[kind]
    dressed = image[:33] + _ASIDE[name] + image[33:]
    assert tidy(dressed) == image
    if (kind, name) != ("png of 16 bits", "animation"):  # of those the decoder rounds the first image in its own way
        assert np.array_equal(decode(dressed), cv2.imdecode(np.frombuffer(dressed, np.uint8), cv2.IMREAD_COLOR_RGB))


def test_pixels_colours_and_orientation_stay() -> None:
    image = hostile.sound_images()["png"]
    turned = image[:33] + _chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0") + image[33:]
    assert tidy(image) is image
    assert tidy(turned) is turned
    assert decode(turned).shape == (112, 96, 3)
    palette = _png(2, 1, 8, 3, 0, b"\0\0\1")
    colours = palette.index(b"IDAT") - 4
    painted = palette[:colours] + _chunk(b"tRNS", b"\x80") + palette[colours:]
    assert tidy(painted) is painted
    assert np.array_equal(decode(painted), decode(palette))


@pytest.mark.parametrize("chunk", [_chunk(b"tRNS", bytes(6)), _chunk(b"PLTE", bytes(3)), _chunk(b"eXIf", b"MM"), _ASIDE["time"]])
def test_the_decoder_has_nothing_to_warn_about_again_and_again(chunk: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """It writes a line to stderr for each chunk it does not like, and the log of a worker is there."""
    image = hostile.sound_images()["png"]
    decode(image[:33] + chunk * 10_000 + image[33:])
    assert len(capfd.readouterr().err.splitlines()) < 4


@pytest.mark.parametrize("content", [SIGNATURE, hostile.png(8, 8)[:-1], hostile.png(8, 8)[:40]])
def test_cut_off(content: bytes) -> None:
    with pytest.raises(PngRefused, match="cut off"):
        tidy(content)


def test_bombs_are_refused_in_a_moment() -> None:
    with pytest.raises(ImageRefused, match="more data than pixels"):
        decode(hostile.png(1, 1, extra=64 * 2**20))
    with pytest.raises(PngRefused, match="too many chunks"):
        tidy(hostile.png_with_chunks(70_000))
    assert decode(hostile.png_with_texts(100, 7 * 2**20)).shape == (8, 8, 3)
