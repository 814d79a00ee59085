"""What an encoded image is, from its bytes alone, before anything is decoded.

A header is read with plain comparisons: bodies come from strangers, and every step here is bounded by a small count.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from yolastic_worker.limits import DEFAULT_LIMITS, ImageFormat, Limits


class ImageRefused(Exception):  # noqa: N818 - an answer, not an accident
    """This image will not be decoded.

    `status` is the HTTP status (400, 413 or 415), `code` a stable word, `message` a sentence for the client.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


SMALL_PIXELS: Final = 4 * 2**20
"""Up to 4 megapixels an image is small."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of an image tell; sides in pixels as stored, before EXIF orientation."""

    format: ImageFormat
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """How many."""
        return self.width * self.height

    @property
    def large(self) -> bool:
        """It is decoded behind other large ones: every camera's frame up to 1440p is not."""
        return self.pixels > SMALL_PIXELS


_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_END: Final = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_JPEG_START, _JPEG_END, _JPEG_SCAN = b"\xff\xd8\xff", b"\xff\xd9", b"\xff\xda"
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF0..SOF15 without DHT, JPG and DAC, which share their range."""
_JPEG_PIXELS_OR_END: Final = frozenset({0xD9, 0xDA})
_JPEG_SEQUENTIAL: Final = frozenset({0xC0, 0xC1})
_QUICK_PIXELS: Final = 2**19
"""640 x 640 and 800 x 600: 2 to 5 ms."""
_QUICK_BYTES: Final = 2**19
_JPEG_BARE: Final = frozenset(range(0xD0, 0xD9)) | {0x00, 0x01}
"""Markers without a length, and the escaped 0xFF of stray data."""
_MAX_JPEG_SEGMENTS: Final = 4096
_MAX_JPEG_SCANS: Final = 100
_MAX_JPEG_SCAN_IMAGES: Final = 15
"""Progressive files have about 10 scans; each makes the decoder walk over all pixels. Times the most pixels of an image: what
all scans together may walk."""
_BMP_UNCOMPRESSED: Final = frozenset({0, 3, 6})


class _Cut(Exception):  # noqa: N818 - private
    """The data end before what is needed."""


def read_header(body: bytes, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Format and size of an image, without decoding it; also refuses data that are visibly cut off.

    Raises:
        ImageRefused: 400 empty, broken or cut off; 413 too many pixels or a side too long; 415 not a known format.
    """
    if not body:
        raise ImageRefused(400, "empty_body", "the body is empty")
    image_format = _sniff(body)
    if image_format not in limits.formats:
        raise ImageRefused(415, "unsupported_format", f"{image_format.upper()} images are not served here")
    sides_of, is_complete = _PARSERS[image_format]
    try:
        width, height = sides_of(body)
        _check_size(image_format, width, height, limits)
        complete = is_complete(body, width * height, limits)
    except (_Cut, struct.error, IndexError):
        raise _broken(image_format, "is cut off or its header is broken") from None
    if not complete:
        raise _broken(image_format, "is cut off")
    return Header(image_format, width, height)


def decodes_quickly(header: Header, body: bytes) -> bool:
    """Whether an image takes a few milliseconds whatever its maker meant: a JPEG of few pixels that one walk decodes.

    Of a PNG 15 KiB can take 30 ms, and a progressive JPEG makes the decoder walk over its pixels again and again.
    """
    small = header.format is ImageFormat.JPEG and header.pixels <= _QUICK_PIXELS and len(body) <= _QUICK_BYTES
    return small and _jpeg_in_one_walk(body, *_jpeg_parts_at(body))


def _check_size(image_format: ImageFormat, width: int, height: int, limits: Limits) -> None:
    if width < 1 or height < 1:
        raise _broken(image_format, "has no pixels")
    if max(width, height) > limits.side:
        raise ImageRefused(413, "image_too_large", f"{width} x {height} pixels: no side may exceed {limits.side}")
    if width * height > limits.pixels:
        raise ImageRefused(413, "image_too_large", f"{width} x {height} pixels: at most {limits.pixels} are allowed")
    if max(width, height) > limits.aspect * min(width, height):
        raise ImageRefused(413, "image_too_narrow", f"{width} x {height} pixels: at most {limits.aspect} times as long as wide")


def _broken(image_format: ImageFormat, what: str) -> ImageRefused:
    return ImageRefused(400, "broken_image", f"the {image_format.upper()} image {what}")


def _sniff(body: bytes) -> ImageFormat:
    if body.startswith(_JPEG_START):
        return ImageFormat.JPEG
    if body.startswith(_PNG_SIGNATURE):
        return ImageFormat.PNG
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        return ImageFormat.WEBP
    if body[:2] == b"BM" and body[6:10] == b"\0\0\0\0":  # the reserved words: two letters alone may begin a text
        return ImageFormat.BMP
    raise ImageRefused(415, "unsupported_format", "the body is not a JPEG, PNG, WebP or BMP image")


def _jpeg_marker_at(body: bytes, position: int, wanted: frozenset[int], refused: frozenset[int]) -> int:
    """Walk the segments (ITU T.81 B.2.2) from `position` to one of the wanted markers: the position behind it."""
    for _ in range(_MAX_JPEG_SEGMENTS):
        position = body.find(b"\xff", position)  # decoders skip stray bytes between segments, so does this
        if position < 0:
            raise _Cut
        marker = body[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        position += 2
        if marker in _JPEG_BARE:
            continue
        if marker in wanted:
            return position
        if marker in refused:
            raise _Cut
        (length,) = struct.unpack_from(">H", body, position)
        position += length
    raise _Cut


def _jpeg_frame_at(body: bytes) -> int:
    """The position of the frame header behind its length field."""
    return _jpeg_marker_at(body, 2, _JPEG_FRAMES, _JPEG_PIXELS_OR_END) + 2


def _jpeg_sides(body: bytes) -> tuple[int, int]:
    height, width = struct.unpack_from(">HH", body, _jpeg_frame_at(body) + 1)
    return width, height


def _jpeg_parts_at(body: bytes) -> tuple[int, int]:
    """The positions of the frame header behind its length field, and of the first scan's marker."""
    frame = _jpeg_frame_at(body)
    (length,) = struct.unpack_from(">H", body, frame - 2)
    return frame, _jpeg_marker_at(body, frame - 2 + length, frozenset({0xDA}), frozenset({0xD9})) - 2


def _jpeg_in_one_walk(body: bytes, frame: int, scan: int) -> bool:
    """All components are in the first scan of a sequential file: decoders read no other."""
    return body[frame - 3] in _JPEG_SEQUENTIAL and body[scan + 4] == body[frame + 5]


def _jpeg_is_complete(body: bytes, pixels: int, limits: Limits) -> bool:
    """Has a scan and an end after it; a file whose scans would make the decoder walk for long is refused here as well."""
    frame, scan = _jpeg_parts_at(body)
    if scan >= len(body) - 4 or not (body.endswith(_JPEG_END) or body.rfind(_JPEG_END, scan) >= 0):
        return False
    if _jpeg_in_one_walk(body, frame, scan):
        return True
    scans = body.count(_JPEG_SCAN, scan)
    if scans > _MAX_JPEG_SCANS or scans * pixels > _MAX_JPEG_SCAN_IMAGES * limits.pixels:
        raise _broken(ImageFormat.JPEG, f"has too many scans: {scans}")
    return True


def _png_sides(body: bytes) -> tuple[int, int]:
    if body[12:16] != b"IHDR":
        raise _Cut
    width, height = struct.unpack_from(">II", body, 16)
    return width, height


def _png_is_complete(body: bytes, pixels: int, limits: Limits) -> bool:
    return body.rfind(_PNG_END) >= 0


def _webp_sides(body: bytes) -> tuple[int, int]:
    """The first chunk tells: VP8X (canvas), VP8L (lossless) or VP8 (a key frame), after RFC 9649."""
    chunk = body[12:16]
    if chunk == b"VP8X":
        if len(body) < 30:
            raise _Cut
        return 1 + int.from_bytes(body[24:27], "little"), 1 + int.from_bytes(body[27:30], "little")
    if chunk == b"VP8L":
        if body[20] != 0x2F:
            raise _Cut
        (bits,) = struct.unpack_from("<I", body, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        if body[23:26] != b"\x9d\x01\x2a":
            raise _Cut
        width, height = struct.unpack_from("<HH", body, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise _Cut


def _webp_is_complete(body: bytes, pixels: int, limits: Limits) -> bool:
    return int.from_bytes(body[4:8], "little") + 8 <= len(body)


def _bmp_fields(body: bytes) -> tuple[int, int, int, int]:
    """Width, height, bits a pixel, compression."""
    (size,) = struct.unpack_from("<I", body, 14)
    if size == 12:  # the OS/2 header
        width, height, _, bits = struct.unpack_from("<HHHH", body, 18)
        return width, height, bits, 0
    if size < 40:
        raise _Cut
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", body, 18)
    return width, abs(height), bits, compression  # a negative height: rows from the top


def _bmp_sides(body: bytes) -> tuple[int, int]:
    width, height, _, _ = _bmp_fields(body)
    return width, height


def _bmp_is_complete(body: bytes, pixels: int, limits: Limits) -> bool:
    """Rows of four-byte multiples from the pixel offset; the file size field is often wrong and not asked."""
    width, height, bits, compression = _bmp_fields(body)
    if compression not in _BMP_UNCOMPRESSED:
        return True  # run lengths: the decoder notices
    (offset,) = struct.unpack_from("<I", body, 10)
    return bool(offset + (width * bits + 31) // 32 * 4 * height <= len(body))


_Sides = Callable[[bytes], tuple[int, int]]
_Complete = Callable[[bytes, int, Limits], bool]
_PARSERS: Final[dict[ImageFormat, tuple[_Sides, _Complete]]] = {
    ImageFormat.JPEG: (_jpeg_sides, _jpeg_is_complete),
    ImageFormat.PNG: (_png_sides, _png_is_complete),
    ImageFormat.WEBP: (_webp_sides, _webp_is_complete),
    ImageFormat.BMP: (_bmp_sides, _bmp_is_complete),
}
