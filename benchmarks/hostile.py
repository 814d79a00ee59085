"""Bodies and connections that mean a worker ill: seeded and bounded, for the abuse tests and for the benchmark beside them."""

import base64
import random
import socket
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

HOST: Final = "127.0.0.1"
_PNG: Final = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Body:
    """One body, and the statuses an honest worker may answer it with."""

    name: str
    content: bytes
    allowed: frozenset[int]


def sound_images(side: int = 96) -> dict[str, bytes]:
    """One small image of every format and of the variants whose decoders differ."""
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 256, (side, side + 16, 3), dtype=np.uint8)
    colour = cv2.GaussianBlur(noise, (0, 0), 3).astype(np.uint8)
    alpha = np.dstack([colour, colour[..., :1]])
    return {
        "jpeg": _encoded(".jpg", colour), "grey jpeg": _encoded(".jpg", colour[..., 0]),
        "progressive jpeg": _encoded(".jpg", colour, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "jpeg with restarts": _encoded(".jpg", colour, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        "png": _encoded(".png", colour), "png with alpha": _encoded(".png", alpha),
        "png of 16 bits": _encoded(".png", colour.astype(np.uint16) * 257),
        "webp": _encoded(".webp", colour, cv2.IMWRITE_WEBP_QUALITY, 80),
        "lossless webp": _encoded(".webp", alpha, cv2.IMWRITE_WEBP_QUALITY, 101),
        "animated webp": animated_webp(3, side), "bmp": _encoded(".bmp", colour),
    }  # fmt: skip


def broken_images(seed: int, count: int) -> Iterator[Body]:
    """Sound images cut, flipped, spliced and lied about: any answer that is not the worker's own failure is right."""
    rng = random.Random(seed)
    images = list(sound_images().items())
    allowed = frozenset({200, 400, 413, 415})
    for number in range(count):
        name, sound = images[number % len(images)]
        how, content = _damaged(rng, bytearray(sound), images)
        yield Body(f"{number} {name} {how}", content, allowed)


def bombs() -> list[Body]:
    """Small bodies that are, or pretend to be, enormous."""
    refused, broken, either = frozenset({413}), frozenset({400}), frozenset({200, 400})
    scans, hidden = many_scans_jpeg(3000), many_scans_jpeg(3000, hidden=True)
    return [
        Body("png that says 40000x40000", png_header(40_000, 40_000) + bytes(64), refused),
        Body("png that says 2^31-1 a side", png_header(2**31 - 1, 2**31 - 1) + bytes(64), refused),
        Body("png of one endless line", png(65_535, 1), refused),
        Body("png of 225 megapixels of nothing", png(15_000, 15_000), refused),
        Body("png of 24 megapixels of nothing", png(6000, 4000), frozenset({200, 429})),
        Body("png of 1 pixel with 256 MiB of data", png(1, 1, extra=256 * 2**20), broken),
        Body("png with 100 texts of 7 MiB", png_with_texts(100, 7 * 2**20), frozenset({200})),
        Body("png with 50,000 empty chunks", png_with_chunks(50_000), either),
        Body("jpeg that says 65000x65000", _jpeg_that_says(65_000, 65_000), refused),
        Body("jpeg that says 7000x7000 and holds 96x112", _jpeg_that_says(7000, 7000), frozenset({200, 400, 429})),
        Body("jpeg with 3,000 scans", scans, broken),
        Body("jpeg with 3,000 scans behind a comment that looks like one", hidden, broken),
        Body("webp that says 16384x16384", _webp_that_says(16_384, 16_384), refused),
        Body("webp whose canvas is smaller than its picture", _webp_that_says(8, 8), either),
        Body("animated webp of 200 frames", animated_webp(200, 64), either),
        Body("bmp that says 30000x30000", bmp_header(30_000, 30_000, 24, 0), refused),
        Body("bmp of 49 megapixels in no bytes", bmp_header(7000, 7000, 24, 0), broken),
        Body("bmp of 49 megapixels of run lengths", bmp_header(7000, 7000, 8, 1) + bytes(1024 + 64), frozenset({200, 400, 429})),
        Body("bmp of negative width", bmp_header(-100, 100, 24, 0) + bytes(30_000), broken),
    ]


def _encoded(extension: str, pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8 | np.uint16]]", *options: int) -> bytes:
    done, data = cv2.imencode(extension, pixels, options)
    if not done:
        raise RuntimeError(f"no {extension} can be made here")
    return data.tobytes()


def _damaged(rng: random.Random, content: bytearray, images: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    how = rng.choice(["cut", "flipped", "head flipped", "spliced", "zeroed", "doubled", "grown"])
    at = rng.randrange(len(content))
    if how == "cut":
        del content[at:]
    elif how == "flipped":
        for _ in range(rng.randint(1, 20)):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif how == "head flipped":
        for _ in range(rng.randint(1, 6)):
            content[rng.randrange(2, min(64, len(content)))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    elif how == "spliced":
        other = rng.choice(images)[1]
        content[at:] = other[rng.randrange(len(other)) :]
    elif how == "zeroed":
        length = rng.randint(1, 200)
        content[at : at + length] = bytes(length)
    elif how == "doubled":
        content += bytes(content)
    else:
        content[at:at] = rng.randbytes(rng.randint(1, 300))
    return how, bytes(content)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """Signature and header of an RGB image."""
    return _PNG + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def png(width: int, height: int, extra: int = 0) -> bytes:
    """A valid black image, deflated to next to nothing; `extra` bytes of data follow its pixels."""
    deflate, row, parts = zlib.compressobj(9), bytes(1 + 3 * width), []
    for _ in range(height):
        parts.append(deflate.compress(row))
    for _ in range(extra // 2**20):
        parts.append(deflate.compress(bytes(2**20)))
    parts.append(deflate.flush())
    return png_header(width, height) + _chunk(b"IDAT", b"".join(parts)) + _chunk(b"IEND", b"")


def png_with_texts(count: int, size: int) -> bytes:
    """A small image with compressed texts that are `size` bytes long when inflated."""
    image = png(8, 8)
    text = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(size), 9))
    return image[:33] + text * count + image[33:]


def png_with_chunks(count: int) -> bytes:
    """A small image with so many empty chunks before its pixels."""
    image = png(8, 8)
    return image[:33] + _chunk(b"abCd", b"") * count + image[33:]


def _jpeg_that_says(width: int, height: int) -> bytes:
    content = bytearray(sound_images()["jpeg"])
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def many_scans_jpeg(count: int, *, hidden: bool = False) -> bytes:
    """A progressive image whose last scan comes so many times.

    `hidden`: it calls itself sequential, and a comment before its first scan reads like one scan of all components.
    """
    content = sound_images()["progressive jpeg"]
    first, last = content.index(b"\xff\xda"), content.rindex(b"\xff\xda")
    scans = content[last:-2] * count + b"\xff\xd9"
    if not hidden:
        return content[:last] + scans
    return content[:first].replace(b"\xff\xc2", b"\xff\xc1", 1) + b"\xff\xfe\x00\x08\xff\xda\x00\x0c\x03\x00" + scans


def _webp_that_says(width: int, height: int) -> bytes:
    picture = sound_images()["webp"]
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + _three(width - 1) + _three(height - 1)
    chunks = canvas + picture[12:]
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def animated_webp(frames: int, side: int) -> bytes:
    """An animation of so many equal frames (RFC 9649)."""
    picture = _encoded(".webp", np.full((side, side, 3), 90, np.uint8), cv2.IMWRITE_WEBP_QUALITY, 50)[12:]
    frame = bytes(6) + _three(side - 1) * 2 + _three(40) + b"\0" + picture
    one = b"ANMF" + struct.pack("<I", len(frame)) + frame + bytes(len(frame) % 2)
    head = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + _three(side - 1) * 2
    chunks = head + b"ANIM" + struct.pack("<IIH", 6, 0, 0) + one * frames
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _three(number: int) -> bytes:
    return number.to_bytes(3, "little")


def bmp_header(width: int, height: int, bits: int, compression: int) -> bytes:
    """File and info header; the pixels would follow."""
    return b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)


def broken_forms(seed: int, count: int) -> Iterator[tuple[str, Body]]:
    """Content type and body of forms that are cut, flipped, badly framed, too many, or all boundary."""
    rng = random.Random(seed)
    image = sound_images()["jpeg"]
    allowed = frozenset({200, 400, 413, 415, 422, 403})
    for number in range(count):
        body = bytearray(form(("file", image), ("conf", b"0.3"), ("source", base64.b64encode(image)))[:])
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(body))
            match rng.randrange(5):
                case 0:
                    body[at] ^= 1 << rng.randrange(8)
                case 1:
                    del body[at : at + rng.randint(1, 40)]
                case 2:
                    body[at:at] = rng.choice(
                        [b"\r\n--frontier", b"--frontier--", b"\r\n\r\n", b"\0", b"\xff" * 9, b'";name="file"']
                    )
                case 3:
                    body[: rng.randrange(60)] = b""
                case _:
                    body += bytes(body[: rng.randrange(200)])
            if not body:
                body = bytearray(b"-")
        kind = rng.choice(
            ["multipart/form-data; boundary=frontier"] * 8
            + ['multipart/form-data; boundary="frontier";;=; x', "multipart/form-data"]
        )
        yield kind, Body(f"form {number}", bytes(body), allowed)


def form(*parts: tuple[str, bytes], boundary: str = "frontier") -> bytes:
    """A sound form."""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'
    return b"".join((head % name).encode() + data + b"\r\n" for name, data in parts) + f"--{boundary}--\r\n".encode()


def boundary_storm(size: int) -> bytes:
    """A part full of what is almost its boundary: slow for a parser that walks from one to the next."""
    storm = b"\r\n--xZ" * (size // 6)
    return b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + storm + b"\r\n--x--\r\n"


def connect(port: int, timeout_s: float = 10.0) -> socket.socket:
    """A bare connection to a worker on this machine."""
    return socket.create_connection((HOST, port), timeout_s)


def post_head(length: int, *headers: str) -> bytes:
    """The head of `POST /predict` with an image of so many bytes."""
    lines = ["POST /predict HTTP/1.1", "host: x", "content-type: image/jpeg", f"content-length: {length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()
