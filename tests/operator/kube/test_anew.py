"""What would end kopf, between it and a server on loopback."""

import asyncio
import json
from collections.abc import Sequence

import aiohttp
import pytest
from aiohttp import web

from yolastic_operator.cluster import anew as module
from yolastic_operator.cluster.anew import CONFLICT, anew

GONE = {"type": "ERROR", "object": {"kind": "Status", "code": 410}}
ADDED = b'{"type":"ADDED","object":{"note":"{\\"type\\":\\"ERROR\\""}}\n'
INTERNAL = b'{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd"}}\n'
LIST, WATCH, DISCOVERY = "/api/v1/pods?limit=500", "/api/v1/pods?watch=true", "/apis/apps/v1"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)


def ask(
    path: str, status: int, parts: Sequence[bytes] = (b"{}",), method: str = "GET", piece: int = 1 << 20
) -> tuple[int, bytes]:
    """Status and body as kopf gets them, the body read in pieces of so many bytes."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
            await asyncio.sleep(0)
        return response

    async def go() -> tuple[int, bytes]:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        try:
            async with (
                aiohttp.ClientSession(middlewares=(anew,)) as session,
                session.request(method, f"http://127.0.0.1:{port}{path}") as response,
            ):
                return response.status, b"".join([part async for part in response.content.iter_chunked(piece)])
        finally:
            await runner.cleanup()

    return asyncio.run(go())


@pytest.mark.parametrize("status", [400, 404, 408, 409, 410, 422])
def test_a_refused_list_is_one_that_broke_off(status: int) -> None:
    with pytest.raises(aiohttp.ClientPayloadError, match=f"list of /api/v1/pods: answered {status}"):
        ask(LIST, status)


@pytest.mark.parametrize("status", [400, 404, 408, 409, 410, 422])
def test_a_refused_watch_is_one_that_was_told_it_is_too_old(status: int) -> None:
    answered, body = ask(WATCH, status)
    assert (answered, json.loads(body)) == (200, GONE)


@pytest.mark.parametrize("path", [LIST, WATCH])
@pytest.mark.parametrize("status", [200, 401, 403, 429, 500, 503])
def test_what_kopf_knows_is_kopfs(path: str, status: int) -> None:
    assert ask(path, status, [ADDED]) == (status, ADDED)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", DISCOVERY), ("GET", "/api/v1/namespaces/a/pods/b"), ("PATCH", "/api/v1/pods/b")]
)
def test_what_is_no_list_is_left_alone(method: str, path: str) -> None:
    assert ask(path, 404, [b"not here"], method) == (404, b"not here")


@pytest.mark.parametrize("piece", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("parts", [[ADDED, INTERNAL], [ADDED + INTERNAL], [ADDED[:9], ADDED[9:] + INTERNAL[:4], INTERNAL[4:]]])
def test_an_error_within_a_watch_is_told_as_too_old(parts: Sequence[bytes], piece: int) -> None:
    status, body = ask(WATCH, 200, parts, piece=piece)
    added, error = body.splitlines(keepends=True)
    assert (status, added, json.loads(error)) == (200, ADDED, GONE)


def test_what_broke_off_within_a_line_is_not_told() -> None:
    assert ask(WATCH, 200, [ADDED, ADDED[:20]]) == (200, ADDED)


OBJECT = "/apis/yolastic.dev/v1alpha1/namespaces/a/yoloinferences/weld"


@pytest.mark.parametrize("status", [400, 422])
def test_a_finalizer_that_a_policy_holds_is_tried_again(status: int) -> None:
    assert ask(OBJECT, status, [b'{"message":"ValidatingAdmissionPolicy x denied request: not now"}'], "PATCH")[0] == 503


@pytest.mark.parametrize("status", [200, 403, 404, 409, 422, 500])
def test_a_conflict_and_all_else_is_kopfs(status: int) -> None:
    conflict = json.dumps({"message": CONFLICT}).encode()
    assert ask(OBJECT, status, [conflict], "PATCH")[0] == status
