"""Bad input gets its status at once, and a prober beside it loses nothing."""

import http.client
import json
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

SIMULATED = ("--backend", "simulated", "--simulate", "fixed_ms=5,per_image_ms=0.5", "--input-size", "64x64")


def _png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\x00" * 64


@pytest.fixture(scope="module")
def worker(module_worker: Callable[..., Any]) -> Any:
    return module_worker(*SIMULATED)


@pytest.fixture(autouse=True)
def _prober(worker: Any, jpeg: bytes, prober: Callable[..., Any]) -> Iterator[None]:
    with prober(worker.port, jpeg, period_s=0.01) as beside:
        beside.wait_answers(3)
        yield
        beside.wait_answers(3)
    beside.assert_lossless()
    assert beside.slowest_s < 2


@pytest.mark.parametrize(
    ("body", "content_type", "query", "status", "code"),
    [
        (b"", "image/jpeg", "", 400, None),
        (b"this is a text file, whatever its name is", "image/jpeg", "", 415, None),
        (_png_header(40_000, 40_000), "image/png", "", 413, None),
        (b"GIF89a" + b"\x00" * 100, "image/gif", "", 415, None),
        (None, "image/jpeg", "?conf=2", 422, "bad_parameter"),
        (None, "image/jpeg", "?conf=0.001", 422, "bad_parameter"),
        (None, "image/jpeg", "?conf=nan", 422, "bad_parameter"),
        (None, "image/jpeg", "?iou=-1", 422, "bad_parameter"),
        (None, "image/jpeg", "?imgsz=33", 422, "bad_parameter"),
        (None, "image/jpeg", "?imgsz=320", 422, "bad_parameter"),
        (None, "image/jpeg", "?decimals=10", 422, "bad_parameter"),
        (None, "image/jpeg", "?normalize=perhaps", 422, "bad_parameter"),
        (None, "text/plain", "", 415, "unsupported_content_type"),
        (None, "application/json", "", 415, "unsupported_content_type"),
        (None, "", "", 415, "unsupported_content_type"),
        (b"--x\r\nrubbish", "multipart/form-data; boundary=x", "", 400, "bad_form"),
        (b"--x--\r\n", "multipart/form-data; boundary=x", "", 422, "no_image"),
        (b"--x--\r\n", "multipart/form-data", "", 400, "bad_form"),
        (
            b'--x\r\nContent-Disposition: form-data; name="source"\r\n\r\nhttps://example.com/a.jpg\r\n--x--\r\n',
            "multipart/form-data; boundary=x", "", 403, "url_input_off",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="source"\r\n\r\n!!!\r\n--x--\r\n',
            "multipart/form-data; boundary=x", "", 422, "bad_source",
        ),
    ],
)  # fmt: skip
def test_status_of_bad_input(
    worker: Any, jpeg: bytes, body: bytes | None, content_type: str, query: str, status: int, code: str | None
) -> None:
    start_s = time.monotonic()
    answer = worker.predict(jpeg if body is None else body, query, content_type)
    assert answer.status == status, answer.body
    assert code in (None, answer.code)
    assert answer.code
    assert time.monotonic() - start_s < 2


def test_truncated_jpeg(worker: Any, jpeg: bytes) -> None:
    for share in (0.2, 0.5, 0.9):
        answer = worker.predict(jpeg[: int(len(jpeg) * share)])
        assert answer.status == 400, answer.body
        assert answer.code


@pytest.mark.parametrize("value", ["0", "-5", "soon", "99999999999"])
def test_bad_patience(worker: Any, jpeg: bytes, value: str) -> None:
    assert worker.predict(jpeg, x_request_timeout_ms=value).status == 422


def test_unknown_path_and_method(worker: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=10)
    for method, path, status, code in (
        ("GET", "/", 404, "not_found"), ("GET", "/docs", 404, "not_found"), ("GET", "/predict", 405, "method_not_allowed"),
        ("POST", "/info", 405, "method_not_allowed"), ("PUT", "/ceiling", 404, "not_found"), ("GET", "/state", 404, "not_found"),
    ):  # fmt: skip
        connection.request(method, path)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]["code"]) == (status, code)
    connection.close()


def test_body_over_the_limit_is_refused_unread(worker: Any) -> None:
    """413 comes on the announcement alone: not a byte of the 50 MB is sent."""
    with socket.create_connection(("127.0.0.1", worker.port), 10) as raw:
        raw.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\ncontent-length: 50000000\r\n\r\n")
        raw.settimeout(1)
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_client_that_sends_it_all_anyway_reads_its_413(worker: Any) -> None:
    start_s = time.monotonic()
    answer = worker.predict(b"\xff\xd8\xff" + b"\x00" * 50_000_000)
    assert (answer.status, answer.code) == (413, "body_too_large")
    assert answer.headers["connection"] == "close"
    assert time.monotonic() - start_s < 5


def test_chunked_body_over_the_limit(worker: Any) -> None:
    """Without a Content-Length the body is counted while it comes."""

    def chunks() -> Iterator[bytes]:
        for _ in range(50):
            yield b"\x00" * 1_000_000

    connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=20)
    connection.request("POST", "/predict", chunks(), {"content-type": "image/jpeg"}, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_client_gone_mid_upload(worker: Any, jpeg: bytes) -> None:
    before = worker.metric("yolastic_images_total")
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", worker.port), 10) as raw:
            raw.sendall(
                b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\ncontent-length: 100000\r\n\r\n" + jpeg[:100]
            )
    assert worker.predict(jpeg).status == 200
    assert worker.metric("yolastic_images_total") > before
    assert "Traceback" not in worker.log()
    assert worker.state()["load"]["inflight_images"] <= 1


def test_what_is_no_http(worker: Any) -> None:
    for rubbish in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"a" * 100_000 + b"\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", worker.port), 10) as raw:
            raw.sendall(rubbish)
            answer = raw.recv(4096)
            assert answer.startswith(b"HTTP/1.1 400 "), answer
            error = json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]
            assert error["code"] == "bad_request"
            assert error["id"]


def test_expect_100_continue_with_a_body_too_large(worker: Any) -> None:
    with socket.create_connection(("127.0.0.1", worker.port), 10) as raw:
        raw.sendall(
            b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\n"
            b"content-length: 50000000\r\nexpect: 100-continue\r\n\r\n"
        )
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")
