"""A request that two readers could understand in two ways is refused, and nothing behind it is ever a second request."""

import json
from collections.abc import Callable
from typing import Any

import pytest

HOST = b"host: x\r\n"
POST = b"POST /predict HTTP/1.1\r\n" + HOST + b"content-type: image/jpeg\r\n"
GET = b"GET /info HTTP/1.1\r\n" + HOST
SECOND = b"GET /info HTTP/1.1\r\nhost: x\r\n\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"

REFUSED = {
    "CL.TE": POST + b"content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SECOND,
    "TE.CL": POST + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n25\r\n" + SECOND + b"\r\n0\r\n\r\n",
    "two lengths": POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!" + SECOND,
    "one length twice": POST + b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello" + SECOND,
    "list of lengths": POST + b"content-length: 5, 5\r\n\r\nhello" + SECOND,
    "length with sign": POST + b"content-length: +5\r\n\r\nhello" + SECOND,
    "negative length": POST + b"content-length: -5\r\n\r\nhello" + SECOND,
    "hexadecimal length": POST + b"content-length: 0x5\r\n\r\nhello" + SECOND,
    "length beyond 64 bits": POST + b"content-length: 99999999999999999999999\r\n\r\nhello" + SECOND,
    "length in two words": POST + b"content-length: 5 6\r\n\r\nhello" + SECOND,
    "no length at all": POST + b"content-length:\r\n\r\n" + SECOND,
    "identity": POST + b"transfer-encoding: identity\r\n\r\nhello" + SECOND,
    "chunked, identity": POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SECOND,
    "gzip, chunked": POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "xchunked": POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + SECOND,
    "chunked twice": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SECOND,
    "vertical tab": POST + b"transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + SECOND,
    "space before the colon": POST + b"content-length : 5\r\n\r\nhello" + SECOND,
    "obs-fold": GET + b"x-a: b\r\n c\r\n\r\n" + SECOND,
    "obs-fold of an encoding": POST + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + SECOND,
    "NUL in a value": GET + b"x-a: b\0c\r\n\r\n" + SECOND,
    "NUL in a name": GET + b"x\0a: b\r\n\r\n" + SECOND,
    "NUL in the path": b"GET /info\0 HTTP/1.1\r\n" + HOST + b"\r\n" + SECOND,
    "bare CR in a value": GET + b"x-a: b\rc\r\n\r\n" + SECOND,
    "bare LF": b"GET /info HTTP/1.1\nhost: x\n\n" + SECOND,
    "bytes beyond ASCII in the path": b"GET /inf\xff HTTP/1.1\r\n" + HOST + b"\r\n" + SECOND,
    "space in the path": b"GET /info x HTTP/1.1\r\n" + HOST + b"\r\n" + SECOND,
    "HTTP/0.9": b"GET /info\r\n\r\n",
    "HTTP/1.0 in chunks": CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n" + SECOND,
    "HTTP/1.2": b"GET /info HTTP/1.2\r\n" + HOST + b"\r\n" + SECOND,
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "CONNECT": b"CONNECT example.com:443 HTTP/1.1\r\n" + HOST + b"\r\n" + SECOND,
    "chunk that is no number": CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n" + SECOND,
    "negative chunk": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n" + SECOND,
    "chunk beyond 64 bits": CHUNKED + b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n" + SECOND,
    "chunk longer than told": CHUNKED + b"5\r\nhelloXX0\r\n\r\n" + SECOND,
    "chunk with a space": CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n" + SECOND,
    "chunks with bare LF": CHUNKED + b"5\nhello\n0\n\n" + SECOND,
    "chunk with 0x": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n" + SECOND,
    "2,000 headers": GET + b"".join(b"x-%d: y\r\n" % number for number in range(2000)) + b"\r\n" + SECOND,
    "endless header": GET + b"x: " + b"a" * 600_000,
    "endless path": b"GET /" + b"a" * 600_000,
    "endless trailer": CHUNKED + b"0\r\nx: " + b"a" * 3_000_000,
    "many trailers": CHUNKED + b"0\r\n" + b"".join(b"x-%d: y\r\n" % number for number in range(50_000)) + b"\r\n",
    "endless chunk extension": CHUNKED + b"5;x=" + b"a" * 3_000_000,
    "300 requests at once": SECOND * 300,
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_connection(worker: Any, answered: Callable[..., Any], name: str) -> None:
    count, first, closed = answered(worker.port, REFUSED[name])
    assert count == 1, first[:300]
    assert first.startswith(b"HTTP/1.1 400 ")
    head, body = first.split(b"\r\n\r\n", 1)
    error = json.loads(body)["error"]
    assert set(error) == {"code", "message", "id"}
    assert f"x-request-id: {error['id']}".encode() in head
    assert closed or name == "HTTP/0.9"


@pytest.mark.parametrize("header", ["host", "content-type", "authorization", "x-request-id", "x-request-timeout-ms", "x-source"])
def test_what_may_come_once_comes_once(worker: Any, answered: Callable[..., Any], header: str) -> None:
    head = GET if header != "host" else b"GET /info HTTP/1.1\r\nhost: y\r\n"
    _, first, _ = answered(worker.port, head + f"{header}: x\r\n{header.upper()}: z\r\n\r\n".encode())
    assert first.startswith(b"HTTP/1.1 400 ")
    assert b'"repeated_header"' in first


def test_harmless_headers_may_repeat(worker: Any, answered: Callable[..., Any]) -> None:
    _, first, _ = answered(worker.port, GET + b"accept: a\r\naccept: b\r\ncookie: a\r\ncookie: b\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200 ")


def test_pipelined_requests_are_answered_in_order(worker: Any, answered: Callable[..., Any]) -> None:
    """Two of them; nobody sends more."""
    count, received, _ = answered(worker.port, SECOND + b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n")
    assert count == 2
    assert received.index(b"HTTP/1.1 200 ") < received.index(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "HTTP/3.0"])
def test_an_offered_upgrade_is_ignored_and_the_body_is_not(
    worker: Any, answered: Callable[..., Any], picture: bytes, upgrade: str
) -> None:
    """Java's own client offers h2c with every request."""
    head = POST + f"connection: Upgrade, HTTP2-Settings\r\nupgrade: {upgrade}\r\n".encode()
    _, first, closed = answered(worker.port, head + b"content-length: %d\r\n\r\n" % len(picture) + picture)
    assert first.startswith(b"HTTP/1.1 200 "), first
    assert not closed


OFFERS = {
    "in capitals": b"CONNECTION: UPGRADE\r\nUPGRADE: H2C\r\n",
    "behind a long header": b"x-a: " + b"a" * 5000 + b"\r\nconnection: upgrade\r\nupgrade: h2c\r\n",
    "twice": b"connection: upgrade\r\nupgrade: h2c\r\nupgrade: websocket\r\n",
}


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("cut", ["whole", "before the body", "in the offer", "behind another request"])
def test_the_body_of_an_offered_upgrade_is_never_a_second_request(
    worker: Any, answered: Callable[..., Any], offer: str, cut: str
) -> None:
    """However it is written and wherever its packets end: what a proxy before this worker counts as the body, is the body."""
    head = POST + OFFERS[offer] + b"content-length: %d\r\n\r\n" % len(SECOND)
    parts = {
        "whole": [head + SECOND], "before the body": [head, SECOND], "in the offer": [head[:-40], head[-40:] + SECOND],
        "behind another request": [SECOND + head + SECOND],
    }  # fmt: skip
    count, received, closed = answered(worker.port, *parts[cut])
    assert count == (2 if cut == "behind another request" else 1), received
    assert b"HTTP/1.1 415 " in received, received
    assert not closed


def test_requests_that_offer_upgrades_may_follow_each_other(worker: Any, answered: Callable[..., Any]) -> None:
    offer = GET + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n"
    count, received, closed = answered(worker.port, offer * 3 + SECOND)
    assert (count, received.count(b"HTTP/1.1 200 "), closed) == (4, 4, False)


@pytest.mark.parametrize(
    "trailer", [b"content-type: image/jpeg", b"x-request-timeout-ms: 0", b"x-request-id: of-a-trailer", b"authorization: x"]
)
def test_a_trailer_is_never_a_header(worker: Any, answered: Callable[..., Any], trailer: bytes) -> None:
    """A proxy that looks at the headers has not seen it."""
    head = b"POST /predict HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n"
    _, received, _ = answered(worker.port, head + b"5\r\nhello\r\n0\r\n" + trailer + b"\r\n\r\n")
    assert b'"unsupported_content_type"' in received, received
    assert b"of-a-trailer" not in received


def test_request_ids(worker: Any) -> None:
    own = [worker.predict(b"x", x_request_id=told).headers["x-request-id"] for told in ("abc-1.2:3_4", "a b", "x" * 129, "é")]
    assert own[0] == "abc-1.2:3_4"
    assert len(set(own)) == 4
    assert all(len(value) <= 32 for value in own)
    assert worker.control("GET", "/livez").headers["x-request-id"]
