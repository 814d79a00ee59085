"""Broken and enormous images, broken forms: each is answered in time with a status an honest worker may give."""

import http.client
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from benchmarks import hostile

pytestmark = pytest.mark.alone

SEED = 20_241
SLOWEST_S = 20
"""One of them alone, on a machine that does much else; a bomb that goes off takes minutes."""


@pytest.fixture(scope="module")
def send(worker: Any) -> Iterator[Callable[..., int]]:
    """One body on one connection that is kept; the status, which must carry the shape of errors unless it is 200."""
    connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=SLOWEST_S)

    def _send(body: hostile.Body, content_type: str = "image/jpeg") -> int:
        began_s = time.monotonic()
        try:
            connection.request("POST", "/predict", body.content, {"content-type": content_type})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            pytest.fail(f"{body.name}: {error!r}")
        assert answer.status in body.allowed, (body.name, answer.status, content[:200])
        assert answer.status == 200 or content.startswith(b'{"error":{"code":"'), body.name
        assert time.monotonic() - began_s < SLOWEST_S, body.name
        return answer.status

    yield _send
    connection.close()


@pytest.mark.parametrize("body", hostile.bombs(), ids=lambda body: body.name)
def test_bomb(send: Callable[..., int], body: hostile.Body) -> None:
    send(body)


def test_broken_images(send: Callable[..., int]) -> None:
    statuses = [send(body) for body in hostile.broken_images(SEED, 600)]
    assert {200, 400} <= set(statuses)


def test_broken_forms(send: Callable[..., int]) -> None:
    statuses = [send(body, kind) for kind, body in hostile.broken_forms(SEED, 400)]
    assert {200, 400, 422} <= set(statuses)


def test_a_form_full_of_boundaries_costs_no_more_than_any_other(send: Callable[..., int]) -> None:
    body = hostile.Body("storm", hostile.boundary_storm(30_000_000), frozenset({400}))
    assert send(body, "multipart/form-data; boundary=x") == 400


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([("file", b"x")] * 65, b"too_many_images"),
        ([("file", b"x")] + [(f"x{number}", b"1") for number in range(40)], b"bad_form"),
        ([("x", b"1")] * 5000, b"bad_form"),
        ([("file", b"x"), ("note", b"a" * 5000)], b"bad_form"),
    ],
)
def test_too_much_in_a_form(worker: Any, parts: list[tuple[str, bytes]], code: bytes) -> None:
    answer = worker.predict(hostile.form(*parts), content_type="multipart/form-data; boundary=frontier")
    assert answer.status == 422
    assert code in answer.body


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?decimals=%C2%B2", {}), ("?decimals=" + "9" * 5000, {}), ("?conf=1_0", {}), ("?conf=infinity", {}),
        ("?conf=%D9%A1", {}),
        ("?imgsz=" + "9" * 5000, {}), ("?" + "&".join(f"a{number}=1" for number in range(100)), {}),
        ("", {"x_request_timeout_ms": "9" * 5000}), ("", {"x_request_timeout_ms": "1e3"}),
    ],
)  # fmt: skip
def test_numbers_that_are_none(worker: Any, picture: bytes, query: str, headers: dict[str, str]) -> None:
    assert worker.predict(picture, query, **headers).status == 422


def test_nothing_a_client_sent_is_logged(worker: Any) -> None:
    secret = "s3cr3t-value"
    headers = {"authorization": f"Bearer {secret}", "x_source": secret, "cookie": secret}
    for path in ("", f"?api_key={secret}", f"?conf={secret}"):
        assert worker.predict(secret.encode(), path, **headers).status in (400, 415, 422)
    assert worker.predict(b"x", "/" + secret).status == 404
    form = hostile.form((secret, secret.encode()), ("source", secret.encode()))
    assert worker.predict(form, content_type=f"multipart/form-data; boundary=frontier; x={secret}").status == 422
    assert "a request was refused" in worker.log()
    assert secret not in worker.log()


def test_refusals_cannot_flood_the_log(worker: Any) -> None:
    lines = len(worker.log().splitlines())
    for _ in range(200):
        assert worker.predict(b"no image").status == 415
    assert len(worker.log().splitlines()) - lines < 60
