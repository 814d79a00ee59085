"""Forms: what is in them comes out, and no bytes lead anywhere but to a form or a refusal."""

import base64
import contextlib
import math
import time

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
        (TYPE + b";" * 17, _body(("file", b"a")), 400, "bad_form"),
        (TYPE, _body(('file"' + ";" * 17, b"a")), 400, "bad_form"),
        (TYPE, _body(("source", b"\xff" * 9)), 422, "bad_source"),
        (TYPE, _body(("source", b"YWJj YWJj")), 422, "bad_source"),
        (TYPE, _body(("source", b"YWJj=YWJj")), 422, "bad_source"),
    ],
)
def test_refused(content_type: bytes, body: bytes, status: int, code: str) -> None:
    with pytest.raises(Refusal) as refusal:
        parse_form(content_type, body)
    assert (refusal.value.status, refusal.value.code) == (status, code)


_LONG = 8 * 2**20


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (TYPE + b";" * 60_000, _body(("file", b"a"))),
        (TYPE + b';a="' * 15_000, _body(("file", b"a"))),
        (TYPE, _body(*(('file"' + ";" * 4000, b"a"),) * 90)),
        (TYPE, _body(("source", b"\xff" * _LONG))),
        (TYPE, _body(("source", b"\xc3\x28" * (_LONG // 2)))),
        (TYPE, _body(("source", b"A " * (_LONG // 2)))),
        (TYPE, _body(("source", b"https://" + b"\xff" * _LONG))),
    ],
    ids=["type of ;", "type of quotes", "names of ;", "source of ff", "source of halves", "source of spaces", "url of ff"],
)
def test_what_nobody_sends_is_refused_for_little(content_type: bytes, body: bytes) -> None:
    """The event loop reads forms: no client may hold it. Read as text, or parameter by parameter, they took up to a second."""
    best_s = math.inf
    for _ in range(3):
        began_s = time.thread_time()
        with contextlib.suppress(Refusal):
            parse_form(content_type, body)
        best_s = min(best_s, time.thread_time() - began_s)
    assert best_s < 0.03


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes(content: bytes, framed: bool) -> None:
    body = b"--frontier\r\n" + content + b"--frontier--\r\n" if framed else content
    with contextlib.suppress(Refusal):
        parse_form(TYPE, body)
