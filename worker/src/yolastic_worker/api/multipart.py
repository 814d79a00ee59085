"""multipart/form-data in memory: the files and the fields of one body that is already bounded."""

import base64
import binascii
from dataclasses import dataclass, field

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from yolastic_worker.api.http import Refusal
from yolastic_worker.api.remote import Url

_MAX_PARTS = 256


@dataclass(slots=True)
class Form:
    """What a form holds."""

    files: list[bytes | Url] = field(default_factory=list)
    """In their order: parts named `file`, and `source`: decoded from base64, or a URL that is yet to be fetched."""
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Part:
    header_name: bytearray = field(default_factory=bytearray)
    header_value: bytearray = field(default_factory=bytearray)
    disposition: bytes = b""
    data: list[bytes] = field(default_factory=list)


class _Collector:
    """Gathers the parser's callbacks into parts."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self._part = _Part()
        self.ended = False

    def on_part_begin(self) -> None:
        if len(self.parts) >= _MAX_PARTS:
            raise Refusal(422, "bad_form", f"a form has at most {_MAX_PARTS} parts")
        self._part = _Part()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._part.data.append(data[start:end])

    def on_part_end(self) -> None:
        self.parts.append(self._part)

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value += data[start:end]

    def on_header_end(self) -> None:
        if self._part.header_name.lower() == b"content-disposition":
            self._part.disposition = bytes(self._part.header_value)
        self._part.header_name.clear()
        self._part.header_value.clear()

    def on_end(self) -> None:
        self.ended = True


def parse_source(text: str) -> bytes | Url:
    """An image in base64, also as a data URL, or the URL of one.

    Raises:
        Refusal: 422 it is none of these.
    """
    if text[:8].lower().startswith(("http:", "https:")):
        return Url(text)
    encoded = text.split(",", 1)[1] if text.startswith("data:") and "," in text else text
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(422, "bad_source", "source: this is not base64") from error


def parse_form(content_type: bytes, body: bytes) -> Form:
    """Files and fields of a multipart body.

    Raises:
        Refusal: 400 the form is broken, 422 a part cannot be used.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise Refusal(400, "bad_form", "the content type names no boundary")
    collector = _Collector()
    names = [name for name in dir(collector) if name.startswith("on_")]
    try:
        parser = MultipartParser(boundary, {name: getattr(collector, name) for name in names})  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except (MultipartParseError, ValueError) as error:
        raise Refusal(400, "bad_form", "the form cannot be read") from error
    if not collector.ended:
        raise Refusal(400, "bad_form", "the form is cut off")
    form = Form()
    for part in collector.parts:
        options = parse_options_header(part.disposition)[1]
        name, data = options.get(b"name", b"").decode("utf-8", "replace"), b"".join(part.data)
        if name == "file":
            form.files.append(data)
        elif name == "source" and data:
            form.files.append(parse_source(data.decode("utf-8", "replace").strip()))
        elif len(data) <= 1024:
            form.fields[name] = data.decode("utf-8", "replace")
    return form
