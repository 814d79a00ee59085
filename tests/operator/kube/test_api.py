"""What an error of the API server means for whoever would ask again, and how long an answer is waited for."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from yolastic_operator.cluster import api as module
from yolastic_operator.cluster.api import ApiError, KubernetesApi, connect


@pytest.mark.parametrize("code", [0, 401, 408, 409, 429, 500, 503])
def test_what_may_be_over_soon_is_worth_another_try(code: int) -> None:
    assert not ApiError("create", code).in_vain


@pytest.mark.parametrize("code", [400, 403, 404, 410, 413, 422])
def test_what_was_refused_is_refused_again(code: int) -> None:
    assert ApiError("create", code).in_vain


SILENCE_S, REQUEST_S = 0.5, 2.0


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_S", SILENCE_S)
    monkeypatch.setattr(module, "REQUEST_TIMEOUT_S", REQUEST_S)


def kubeconfig(folder: Path, port: int) -> str:
    entry = {"name": "x", "context": {"cluster": "x", "user": "x"}}
    cluster = {"name": "x", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    config = {"current-context": "x", "contexts": [entry], "clusters": [cluster], "users": [{"name": "x", "user": {}}]}
    file = folder / "config"
    file.write_text(json.dumps(config))
    return str(file)


@asynccontextmanager
async def served(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[int]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    finally:
        await runner.cleanup()


async def refusal(ask: Callable[[KubernetesApi], Awaitable[Any]], folder: Path, port: int) -> tuple[str, float]:
    """What an ApiError without a code says, and after how many seconds."""
    async with connect(lambda verb, code: None, kubeconfig(folder, port)) as api:
        start_s = time.monotonic()
        with pytest.raises(ApiError) as caught:
            await ask(api)
        assert caught.value.code == 0
        return str(caught.value), time.monotonic() - start_s


READ: Callable[[KubernetesApi], Awaitable[Any]] = lambda api: api.get("/api/v1/namespaces/x/pods/y")  # noqa: E731
LONG: dict[str, Callable[[KubernetesApi], Awaitable[Any]]] = {
    "list": lambda api: api.list("/api/v1/pods", "a=b"),
    "apply": lambda api: api.apply("/apis/apps/v1/namespaces/x/deployments/y", {"kind": "Deployment"}),
    "patch": lambda api: api.merge("/apis/apps/v1/namespaces/x/deployments/y/scale", {"spec": {"replicas": 3}}),
    "create": lambda api: api.create("/api/v1/namespaces/x/events", {"kind": "Event"}),
}


def test_a_read_that_is_swallowed_does_not_hold_up_a_turn_for_long(tmp_path: Path) -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async def scenario() -> tuple[str, float]:
        async with served(silent) as port:
            return await refusal(READ, tmp_path, port)

    said, seconds = asyncio.run(scenario())
    assert said == "get /api/v1/namespaces/x/pods/y: no answer within 0.5 s"
    assert SILENCE_S <= seconds < REQUEST_S


@pytest.mark.parametrize("verb", LONG)
def test_a_list_and_a_write_may_take_long(tmp_path: Path, verb: str) -> None:
    """A list has much to read, and a write waits for whoever admits it."""

    async def slow(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(2 * SILENCE_S)
        return web.json_response({"items": [{"kind": "Pod"}]})

    async def scenario() -> Any:
        async with served(slow) as port, connect(lambda verb, code: None, kubeconfig(tmp_path, port)) as api:
            return await LONG[verb](api)

    assert asyncio.run(scenario())


@pytest.mark.parametrize("verb", ["list", "apply"])
def test_but_not_for_ever(tmp_path: Path, verb: str) -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async def scenario() -> tuple[str, float]:
        async with served(silent) as port:
            return await refusal(LONG[verb], tmp_path, port)

    said, seconds = asyncio.run(scenario())
    assert said.endswith("no answer within 2 s")
    assert seconds >= REQUEST_S


@pytest.mark.parametrize("ask", [READ, *LONG.values()], ids=["get", *LONG])
def test_whoever_does_not_even_take_the_connection_is_given_up_soon(tmp_path: Path, ask: Any) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]  # with these the system answers nobody any more
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        try:
            said, seconds = asyncio.run(refusal(ask, tmp_path, address[1]))
        finally:
            for one in waiting:
                one.close()
    assert said.endswith("no answer within 0.5 s")
    assert SILENCE_S <= seconds < REQUEST_S


def test_who_waits_for_a_free_connection_is_not_taken_for_one_who_gets_no_answer(tmp_path: Path) -> None:
    """With hundreds of inferences a turn may stand in line for long though each answer comes at once."""

    async def quick(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.05)
        return web.json_response({"kind": "Pod"})

    async def scenario() -> Any:
        async with served(quick) as port, connect(lambda verb, code: None, kubeconfig(tmp_path, port)) as api:
            return await asyncio.gather(*(READ(api) for _ in range(16 * module.CONNECTIONS)))

    assert len(asyncio.run(scenario())) == 16 * module.CONNECTIONS
