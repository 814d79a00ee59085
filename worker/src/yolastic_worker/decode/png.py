"""What a PNG may make its decoder do beyond its pixels: inflate texts, and data that belong to no row. Neither is allowed to.

Measured with OpenCV 5: 100 compressed texts in a body of 0.7 MB took 14 s of a core, data behind the last pixel 7 s a MB. And
libpng writes a line to stderr for every chunk that comes twice: 60,000 lines in the log for a body of 1 MB.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final

_ONCE: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IEND"})
"""With the data all that makes pixels: gamma and profiles are not applied, and of an animation the first image counts."""
_MAX_CHUNKS: Final = 16384
"""Writers make chunks of 8 KiB and more, or one a row."""
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_HARMLESS_BYTES: Final = 16384
"""So little compressed data inflate to 16 MiB at most: not worth a look."""
_PIECE_BYTES: Final = 2**18
"""Inflated at once, and forgotten: fresh memory for all rows would cost as much time as to inflate them."""
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and steps, of each pass of an interlaced image."""


class PngRefused(ValueError):  # noqa: N818 - an answer, not an accident
    """The data are more than the image."""


def tidy(body: bytes) -> bytes:
    """The same image without what holds no pixels: texts, colour profiles, animations, whatever a stranger invents.

    Raises:
        PngRefused: a chunk is cut off, there are too many, or the data inflate to more than the rows of the image.
    """
    kept, data, dropped = [body[:8]], [], False
    wanted = set(_ONCE)
    for kind, start, end in _chunks(body):
        if kind == b"IDAT":
            data.append(body[start + 8 : end - 4])
        elif kind in wanted:
            wanted.remove(kind)
        else:
            dropped = True
            continue
        kept.append(body[start:end])
    if sum(map(len, data)) > _HARMLESS_BYTES:
        _check_data(data, _raw_bytes(body))
    return b"".join(kept) if dropped else body


def _chunks(body: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk, to the end of the image."""
    position = 8
    for _ in range(_MAX_CHUNKS):
        if position + 12 > len(body):
            raise PngRefused("is cut off")
        length, kind = struct.unpack_from(">I4s", body, position)
        end = position + 12 + length
        if end > len(body):
            raise PngRefused("is cut off")
        yield kind, position, end
        if kind == b"IEND":
            return
        position = end
    raise PngRefused("has too many chunks")


def _raw_bytes(body: bytes) -> int:
    """Bytes of all rows with their filter bytes, before compression (PNG, 9 and 8)."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", body, 16)
    bits = depth * _CHANNELS.get(colour, 4)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, step_x, step_y in passes:
        columns, rows = -(-(width - left) // step_x), -(-(height - top) // step_y)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total


def _check_data(data: list[bytes], raw_bytes: int) -> None:
    """Inflate once, no further than the rows go, and keep nothing of it; releases the GIL."""
    inflater = zlib.decompressobj()
    left = raw_bytes
    try:
        for part in data:
            rest = part
            while rest:
                left -= len(inflater.decompress(rest, _PIECE_BYTES))
                if left < 0:
                    raise PngRefused("holds more data than pixels")
                rest = inflater.unconsumed_tail
    except zlib.error as error:
        raise PngRefused("has broken data") from error
