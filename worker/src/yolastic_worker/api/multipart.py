"""multipart/form-data in memory: the files and the fields of one body that is already bounded.

Split with plain searches, never byte by byte: a body made to meet its boundary at every turn costs no more than any other.
"""

import binascii
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from python_multipart.multipart import parse_options_header

from yolastic_worker.api.http import Refusal
from yolastic_worker.api.remote import Url
from yolastic_worker.limits import DEFAULT_LIMITS, Limits

_MAX_BOUNDARY: Final = 70
"""RFC 2046, 5.1.1."""
_MAX_PART_HEAD_BYTES: Final = 4096
_MAX_FIELD_BYTES: Final = 1024
_MAX_SEMICOLONS: Final = 16
"""In a header of parameters, of which there are three at most: the rest of them would be walked over one by one."""


@dataclass(slots=True)
class Form:
    """What a form holds."""

    files: list[bytes | Url] = field(default_factory=list)
    """In their order: parts named `file`, and `source`: decoded from base64, or a URL that is yet to be fetched."""
    fields: dict[str, str] = field(default_factory=dict)


def parse_source(told: bytes | str) -> bytes | Url:
    """An image in base64, also as a data URL, or the URL of one. Never decoded as text: that takes a second for rubbish.

    Raises:
        Refusal: 422 it is none of these.
    """
    source = told.encode() if isinstance(told, str) else told
    if source[:8].lower().startswith((b"http:", b"https:")):
        return Url(source.decode("latin-1"))  # what is not ASCII is no URL, however it is read
    encoded = source.partition(b",")[2] if source.startswith(b"data:") and b"," in source else source
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError as error:
        raise Refusal(422, "bad_source", "source: this is not base64") from error


def parse_form(content_type: bytes, body: bytes, limits: Limits = DEFAULT_LIMITS) -> Form:
    """Files and fields of a multipart body.

    Raises:
        Refusal: 400 the form is broken, 422 a part cannot be used or there are too many.
    """
    form = Form()
    for name, data in _parts(_boundary(content_type), body, limits.files + limits.fields):
        if name == "file":
            form.files.append(data)
        elif name == "source":
            if data:
                form.files.append(parse_source(data.strip()))
        elif len(data) > _MAX_FIELD_BYTES:
            raise Refusal(422, "bad_form", f"a part other than file and source holds at most {_MAX_FIELD_BYTES} bytes")
        else:
            form.fields[name] = data.decode("utf-8", "replace")
    if len(form.files) > limits.files:
        raise Refusal(422, "too_many_images", f"a form has at most {limits.files} images")
    if len(form.fields) > limits.fields:
        raise Refusal(422, "bad_form", f"a form has at most {limits.fields} fields")
    return form


def _boundary(content_type: bytes) -> bytes:
    boundary = _parameter(content_type, b"boundary")
    if not 0 < len(boundary) <= _MAX_BOUNDARY or b"\r" in boundary or b"\n" in boundary:
        raise Refusal(400, "bad_form", "the content type names no boundary, or one that is too long")
    return boundary


def _parameter(value: bytes, name: bytes) -> bytes:
    """One of a header's parameters; empty when there is none."""
    try:
        if value.count(b";") > _MAX_SEMICOLONS:
            raise ValueError
        return parse_options_header(value)[1].get(name, b"")
    except (AssertionError, ValueError) as error:
        raise Refusal(400, "bad_form", "a header of the form cannot be read") from error


def _parts(boundary: bytes, body: bytes, most: int) -> Iterator[tuple[str, bytes]]:
    """Name and data of each part. A line that begins like the boundary is one: RFC 2046 forbids it in the data."""
    delimiter = b"\r\n--" + boundary
    at = 0 if body.startswith(delimiter[2:]) else body.find(delimiter) + 2
    if at == 1:
        raise Refusal(400, "bad_form", "the form does not hold its boundary")
    at += len(delimiter) - 2
    count = 0
    while not body.startswith(b"--", at):
        count += 1
        if count > most:
            raise Refusal(422, "bad_form", f"a form has at most {most} parts")
        line_end = body.find(b"\r\n", at, at + 256)
        if line_end < 0 or body[at:line_end].strip(b" \t"):
            raise Refusal(400, "bad_form", "the form cannot be read")
        end = body.find(delimiter, line_end)  # a part without headers and data ends where its first line does
        if end < 0:
            raise Refusal(400, "bad_form", "the form is cut off")
        head_end = body.find(b"\r\n\r\n", line_end, min(end, line_end + _MAX_PART_HEAD_BYTES))
        if head_end < 0:
            raise Refusal(400, "bad_form", "a part of the form has no end of its headers")
        yield _name_of(body[line_end:head_end]), body[head_end + 4 : end]
        at = end + len(delimiter)


def _name_of(head: bytes) -> str:
    """The name in a part's Content-Disposition; empty when there is none."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-disposition":
            return _parameter(value, b"name").decode("utf-8", "replace")
    return ""
