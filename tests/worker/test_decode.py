"""Headers, refusals and pixels of encoded images."""

import contextlib
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from benchmarks import hostile
from hypothesis import example, given
from hypothesis import strategies as st

from yolastic_worker.decode import Header, ImageRefused, decode, decodes_quickly, read_header
from yolastic_worker.limits import ImageFormat, Limits

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
EXTENSIONS = {ImageFormat.JPEG: ".jpg", ImageFormat.PNG: ".png", ImageFormat.WEBP: ".webp", ImageFormat.BMP: ".bmp"}
FORMATS = list(ImageFormat)


def picture(height: int = 60, width: int = 100, channels: int = 3) -> Pixels:
    noise = np.random.default_rng(height * width).integers(0, 256, (height, width, channels), dtype=np.uint8)
    smooth: Pixels = cv2.GaussianBlur(noise, (0, 0), 3).astype(np.uint8)
    return smooth


def encode(image_format: ImageFormat, image: Pixels, *options: int) -> bytes:
    ok, data = cv2.imencode(EXTENSIONS[image_format], image, options)
    assert ok
    return data.tobytes()


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def refusal(body: bytes, limits: Limits | None = None) -> ImageRefused:
    with pytest.raises(ImageRefused) as caught:
        read_header(body, limits or Limits())
    return caught.value


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize(("height", "width"), [(60, 100), (101, 33), (1, 1), (8, 300)])
def test_header_and_pixels_of_every_format(image_format: ImageFormat, height: int, width: int) -> None:
    body = encode(image_format, picture(height, width))
    assert read_header(body) == Header(image_format, width, height)
    expected = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    assert expected is not None
    assert np.array_equal(decode(body), expected[..., ::-1])


VARIANTS = [
    ("progressive JPEG", encode(ImageFormat.JPEG, picture(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
    ("JPEG with restarts", encode(ImageFormat.JPEG, picture(), cv2.IMWRITE_JPEG_RST_INTERVAL, 2)),
    ("grey JPEG", encode(ImageFormat.JPEG, picture(channels=1))),
    ("grey PNG", encode(ImageFormat.PNG, picture(channels=1))),
    ("PNG with alpha", encode(ImageFormat.PNG, picture(channels=4))),
    ("16-bit PNG", cv2.imencode(".png", picture().astype(np.uint16) * 200)[1].tobytes()),
    ("lossless WebP", encode(ImageFormat.WEBP, picture(), cv2.IMWRITE_WEBP_QUALITY, 101)),
    ("WebP with alpha", encode(ImageFormat.WEBP, picture(channels=4))),
    ("grey BMP", encode(ImageFormat.BMP, picture(channels=1))),
    ("BMP with alpha", encode(ImageFormat.BMP, picture(channels=4))),
]


@pytest.mark.parametrize("body", [body for _, body in VARIANTS], ids=[name for name, _ in VARIANTS])
def test_variants_are_what_cv2_reads(body: bytes) -> None:
    header = read_header(body)
    assert (header.width, header.height) == (100, 60)
    expected = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    assert expected is not None
    pixels = decode(body)
    assert np.array_equal(pixels, expected[..., ::-1])
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_as_cv2_does(orientation: int) -> None:
    jpeg = encode(ImageFormat.JPEG, picture())
    body = with_orientation(jpeg, orientation)
    assert read_header(body) == Header(ImageFormat.JPEG, 100, 60)
    expected = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    assert expected is not None
    pixels = decode(body)
    assert np.array_equal(pixels, expected[..., ::-1])
    assert pixels.shape == ((100, 60, 3) if orientation >= 5 else (60, 100, 3))
    assert np.array_equal(pixels, decode(jpeg)) == (orientation == 1)


@pytest.mark.parametrize("image_format", FORMATS)
def test_cut_off_anywhere_is_refused(image_format: ImageFormat) -> None:
    body = encode(image_format, picture())
    for length in sorted({30, 60, 100, len(body) // 2, len(body) - 20, len(body) - 1}):
        error = refusal(body[:length])
        assert error.status == 400, length
        assert image_format.upper() in error.message


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "empty_body"),
        (b"This is a text file named .jpg\n" * 50, 415, "unsupported_format"),
        (b"BMW is a car, this is a text" + b"x" * 100, 415, "unsupported_format"),
        (b"GIF89a" + b"\0" * 100, 415, "unsupported_format"),
        (b"II*\0" + b"\0" * 100, 415, "unsupported_format"),
        (b"RIFF\x24\0\0\0WAVEfmt ", 415, "unsupported_format"),
        (b"\xff", 415, "unsupported_format"),
        (b"\xff\xd8\xff", 400, "broken_image"),
        (b"\xff\xd8\xff\xd9", 400, "broken_image"),
        (b"\xff\xd8" + b"\xff" * 5_000_000, 400, "broken_image"),
        (b"\xff\xd8" + b"\xff\xe0\x00\x02" * 1_000_000, 400, "broken_image"),
        (b"\xff\xd8\xff\xe0\x00\x00" + b"\xff\xe0\x00\x00" * 1000, 400, "broken_image"),
        (b"\xff\xd8\xff\xc0\0\x0b\x08\0\x01\0\x01\x01\x01\x11\0\xff\xda\xff\xd9", 400, "broken_image"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", 400, "broken_image"),
        (b"RIFF\x24\0\0\0WEBPXXXX" + b"\0" * 40, 400, "broken_image"),
        (b"BM\0\0\0\0\0\0\0\0", 400, "broken_image"),
        (png_header(40_000, 40_000), 413, "image_too_large"),
        (png_header(20_000, 10), 413, "image_too_large"),
        (png_header(10_000, 10_000), 413, "image_too_large"),
        (png_header(0, 10), 400, "broken_image"),
        (png_header(10, 10), 400, "broken_image"),
    ],
)
def test_refusals(body: bytes, status: int, code: str) -> None:
    error = refusal(body)
    assert (error.status, error.code) == (status, code)
    assert error.message


def test_limits_are_inclusive() -> None:
    body = encode(ImageFormat.PNG, picture(60, 100))
    read_header(body, Limits(pixels=6000, side=100))
    assert refusal(body, Limits(pixels=5999)).status == 413
    assert refusal(body, Limits(side=99)).status == 413


def test_top_down_bitmap_has_a_positive_height() -> None:
    body = bytearray(encode(ImageFormat.BMP, picture()))
    struct.pack_into("<i", body, 22, -60)
    assert read_header(bytes(body)) == Header(ImageFormat.BMP, 100, 60)


def test_old_bitmap_header() -> None:
    rows = bytes(12 * 2)
    body = b"BM" + struct.pack("<IHHI", 26 + len(rows), 0, 0, 26) + struct.pack("<IHHHH", 12, 4, 2, 1, 24) + rows
    assert read_header(body) == Header(ImageFormat.BMP, 4, 2)


def test_thumbnail_does_not_hide_the_image_or_its_missing_end() -> None:
    thumbnail = encode(ImageFormat.JPEG, picture(12, 16))
    jpeg = encode(ImageFormat.JPEG, picture())
    body = jpeg[:2] + b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + jpeg[2:]
    assert read_header(body) == Header(ImageFormat.JPEG, 100, 60)
    assert refusal(body[:-100]).status == 400


def test_bytes_after_the_end_do_not_matter() -> None:
    for image_format in FORMATS:
        assert decode(encode(image_format, picture()) + b"trailer").shape == (60, 100, 3)


def test_a_jpeg_with_absurdly_many_scans_is_refused() -> None:
    jpeg = encode(ImageFormat.JPEG, picture(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    scans = jpeg[jpeg.index(b"\xff\xda") : -2]
    assert refusal(jpeg[:-2] + scans * 50 + jpeg[-2:]).status == 400


@pytest.mark.parametrize(
    ("body", "quick"),
    [
        (encode(ImageFormat.JPEG, picture()), True),
        (encode(ImageFormat.JPEG, np.zeros((640, 640, 3), np.uint8)), True),
        (encode(ImageFormat.JPEG, np.zeros((1080, 1920, 3), np.uint8)), False),
        (encode(ImageFormat.JPEG, picture(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1), False),
        (encode(ImageFormat.JPEG, picture()) + bytes(2**19), False),
        (encode(ImageFormat.PNG, picture()), False),
        (encode(ImageFormat.WEBP, picture()), False),
    ],
    ids=["JPEG", "JPEG 640x640", "JPEG 1920x1080", "progressive", "half a MiB", "PNG", "WebP"],
)
def test_what_is_decoded_quickly_whatever_its_maker_meant(body: bytes, quick: bool) -> None:
    assert decodes_quickly(read_header(body), body) is quick


def test_damaged_pixels_are_a_refusal_not_an_accident() -> None:
    body = bytearray(encode(ImageFormat.PNG, picture()))
    middle = len(body) // 2
    body[middle : middle + 40] = bytes(40)
    with pytest.raises(ImageRefused) as caught:
        decode(bytes(body))
    assert caught.value.status == 400


SIGNATURES = st.sampled_from(
    [b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xc0", b"\xff\xd8\xff\xe0\x00\x04ab", b"\x89PNG\r\n\x1a\n", png_header(3, 3),
     b"RIFF\x30\0\0\0WEBPVP8 ", b"RIFF\x30\0\0\0WEBPVP8L", b"RIFF\x30\0\0\0WEBPVP8X", b"BM\0\0\0\0\0\0\0\0"]
)  # fmt: skip


@given(SIGNATURES, st.binary(max_size=300))
@example(b"BM\0\0\0\0\0\0\0\0", b"\0" * 4 + b"\x28" + b"\0" * 3 + b"\x04\0\0\0" + b"\0\0\0\x80" + b"\x01\0\x18\0" + b"\0" * 40)
def test_garbage_is_only_ever_refused(signature: bytes, rest: bytes) -> None:
    with contextlib.suppress(ImageRefused):  # and nothing else
        header = read_header(signature + rest)
        assert 1 <= header.width <= 16384
        assert 1 <= header.height <= 16384


WHOLE = {image_format: encode(image_format, picture(20, 24)) for image_format in FORMATS}


@given(st.sampled_from(FORMATS), st.data())
def test_a_damaged_image_decodes_or_is_refused(image_format: ImageFormat, data: st.DataObject) -> None:
    body = bytearray(WHOLE[image_format])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ImageRefused):  # and nothing else
        pixels = decode(bytes(body), Limits(pixels=100_000))
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3


def test_narrow_images_and_formats_that_are_off() -> None:
    body = encode(ImageFormat.PNG, picture(2, 401))
    assert (refusal(body).status, refusal(body).code) == (413, "image_too_narrow")
    assert refusal(encode(ImageFormat.PNG, picture(401, 2))).status == 413
    read_header(encode(ImageFormat.PNG, picture(2, 400)))
    off = Limits(formats=(ImageFormat.JPEG,))
    assert (refusal(body, off).status, refusal(body, off).code) == (415, "unsupported_format")
    read_header(encode(ImageFormat.JPEG, picture()), off)


@pytest.mark.parametrize("hidden", [False, True])
def test_scans_are_counted_wherever_they_hide(hidden: bool) -> None:
    """A comment that reads like one scan of all components does not end the count."""
    assert "too many scans" in refusal(hostile.many_scans_jpeg(101, hidden=hidden)).message


def test_scans_times_pixels_are_bounded() -> None:
    body = hostile.many_scans_jpeg(20)
    read_header(body)
    assert "too many scans" in refusal(body, Limits(pixels=96 * 112)).message
