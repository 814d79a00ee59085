"""Bytes of an encoded image -> letterboxed RGB pixels in a preallocated slot."""

from yolastic_worker.decode.header import Header, ImageRefused, decodes_quickly, read_header
from yolastic_worker.decode.images import decode, decode_as
from yolastic_worker.decode.letterbox import letterbox
from yolastic_worker.decode.pool import DecodePool

__all__ = ["DecodePool", "Header", "ImageRefused", "decode", "decode_as", "decodes_quickly", "letterbox", "read_header"]
