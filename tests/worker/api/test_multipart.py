"""Forms: what is in them comes out, and no bytes lead anywhere but to a form or a refusal."""

import base64
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolastic_worker.api.http import Refusal
from yolastic_worker.api.multipart import parse_form
from yolastic_worker.api.remote import Url

TYPE = b"multipart/form-data; boundary=frontier"


def _body(*parts: tuple[str, bytes]) -> bytes:
    lines = [
        f'--frontier\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + data + b"\r\n" for name, data in parts
    ]
    return b"".join(lines) + b"--frontier--\r\n"


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=200), max_size=5), st.dictionaries(st.sampled_from(["conf", "iou", "x"]), st.text(max_size=20))
)
def test_files_in_order_and_fields(files: list[bytes], fields: dict[str, str]) -> None:
    files = [data for data in files if b"--frontier" not in data]
    body = _body(*(("file", data) for data in files), *((name, value.encode()) for name, value in fields.items()))
    form = parse_form(TYPE, body)
    assert form.files == files
    assert form.fields == fields


def test_source_is_base64_also_as_a_data_url() -> None:
    encoded = base64.b64encode(b"picture")
    form = parse_form(TYPE, _body(("source", encoded), ("source", b"data:image/png;base64," + encoded), ("source", b"")))
    assert form.files == [b"picture", b"picture"]


def test_source_may_be_a_url_that_is_fetched_later() -> None:
    form = parse_form(TYPE, _body(("file", b"a"), ("source", b" HTTPS://example.com/ "), ("source", b"http://169.254.169.254/")))
    assert form.files == [b"a", Url("HTTPS://example.com/"), Url("http://169.254.169.254/")]


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        (b"multipart/form-data", _body(), 400, "bad_form"),
        (b"multipart/form-data; boundary=", _body(), 400, "bad_form"),
        (TYPE, b"", 400, "bad_form"),
        (TYPE, b"rubbish", 400, "bad_form"),
        (TYPE, _body(("file", b"a" * 100))[:-20], 400, "bad_form"),
        (TYPE, _body(("source", b"file:///etc/passwd")), 422, "bad_source"),
        (TYPE, _body(*(("x", b"1"),) * 300), 422, "bad_form"),
    ],
)
def test_refused(content_type: bytes, body: bytes, status: int, code: str) -> None:
    with pytest.raises(Refusal) as refusal:
        parse_form(content_type, body)
    assert (refusal.value.status, refusal.value.code) == (status, code)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes(content: bytes, framed: bool) -> None:
    body = b"--frontier\r\n" + content + b"--frontier--\r\n" if framed else content
    with contextlib.suppress(Refusal):
        parse_form(TYPE, body)
