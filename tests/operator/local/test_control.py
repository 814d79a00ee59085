"""The client of control ports, against a server with every fault one can have."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from yolastic_contract.state import CeilingGrant
from yolastic_operator.cluster.base import WorkerError
from yolastic_operator.cluster.control import ControlClient

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LOAD = {
    "ratio": 0.5, "arrived_per_s": 1.0, "refused_per_s": 0.0, "capacity_per_s": 2.0, "queue_images": 0,
    "queue_oldest_age_s": 0.0, "inflight_images": 0, "busy_ratio": 0.1,
}  # fmt: skip
STATE: dict[str, Any] = {
    "worker_id": "a", "version": "0", "phase": "Ready", "backend": "Simulated", "device": "cpu", "device_id": "x",
    "started_s": 1.0, "max_batch": 8, "buckets": [1, 2, 4, 8], "memory": {}, "load": LOAD,
    "ceiling": {"base": 1, "ceiling": 8, "effective": 1, "burst": False, "granted": False},
}  # fmt: skip


def talk(handler: Handler, call: Callable[[ControlClient, str], Awaitable[Any]], timeout_s: float = 2.0) -> Any:
    async def scene() -> Any:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            port = runner.addresses[0][1]
            async with aiohttp.ClientSession() as session:
                return await call(ControlClient(session, timeout_s), f"http://127.0.0.1:{port}")
        finally:
            await runner.cleanup()

    return asyncio.run(scene())


def answering(text: str, status: int = 200, **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=text, status=status, headers=headers)

    return handler


def test_a_state_is_read_with_fields_of_a_newer_version() -> None:
    state = talk(answering(json.dumps({**STATE, "mood": "good"})), lambda client, url: client.state(url))
    assert (state.phase, state.load.ratio, state.buckets) == ("Ready", 0.5, [1, 2, 4, 8])


def test_what_is_told_carries_the_token_and_what_is_asked_does_not() -> None:
    seen: list[tuple[str, str, str | None, str]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.method, request.path, request.headers.get("Authorization"), await request.text()))
        return web.Response(text=json.dumps(STATE))

    async def call(client: ControlClient, url: str) -> None:
        await client.state(url)
        await client.grant(url, "secret", CeilingGrant(base=2, ceiling=8, bounds={"spec": 8}, budget_bytes=900))
        await client.drain(url, "secret")
        await client.rebalance(url, "secret")

    talk(handler, call)
    assert [item[:3] for item in seen] == [
        ("GET", "/state", None),
        ("PUT", "/ceiling", "Bearer secret"),
        ("POST", "/drain", "Bearer secret"),
        ("POST", "/rebalance", "Bearer secret"),
    ]
    assert json.loads(seen[1][3]) == {"base": 2, "ceiling": 8, "bounds": {"spec": 8}, "budget_bytes": 900}


FAULTS: dict[str, tuple[Handler, str]] = {
    "503": (answering('{"error": "starting"}', 503), 'status 503: {"error": "starting"}'),
    "401": (answering("", 401), "status 401"),
    "a redirect": (answering("", 302, Location="http://127.0.0.1:1/"), "status 302"),
    "no JSON": (answering("<html>"), "not the JSON of a state"),
    "a list": (answering("[]"), "the answer: Input should be a valid dictionary"),
    "NaN": (answering(json.dumps({**STATE, "started_s": float("nan")})), "NaN is not a number"),
    "infinity": (answering(json.dumps(STATE).replace("0.5", "1e999")), "load.ratio is not a finite number"),
    "four hundred digits": (answering(json.dumps(STATE).replace("0.5", "5" * 400)), "load.ratio is out of range"),
    "a field missing": (answering(json.dumps({**STATE, "load": {}})), "load.ratio: Field required"),
    "a phase that is none": (answering(json.dumps({**STATE, "phase": "Asleep"})), "phase: Input should be "),
    "too deep": (answering("[" * 200_000), "not the JSON of a state"),
    "endless": (answering(" " * 1_100_000), "the answer is longer than 1048576 bytes"),
}


@pytest.mark.parametrize(("handler", "sentence"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_a_sentence(handler: Handler, sentence: str) -> None:
    with pytest.raises(WorkerError) as caught:
        talk(handler, lambda client, url: client.state(url))
    assert sentence in str(caught.value)
    assert "http://127.0.0.1:" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_worker_that_hangs_costs_its_time_and_no_more() -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    for call in (lambda client, url: client.state(url), lambda client, url: client.drain(url, "t")):
        with pytest.raises(WorkerError, match=r"no answer within 0\.1 s"):
            talk(handler, call, timeout_s=0.1)


def test_a_worker_that_is_not_there() -> None:
    async def scene() -> None:
        async with aiohttp.ClientSession() as session:
            await ControlClient(session).rebalance("http://127.0.0.1:1", "t")

    with pytest.raises(WorkerError, match=r"POST http://127\.0\.0\.1:1/rebalance: Cannot connect"):
        asyncio.run(scene())


@pytest.mark.parametrize("before", [0, 180])
def test_the_token_is_in_no_complaint_though_the_other_side_repeats_it(before: int) -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(status=404, text="." * before + f"you sent {request.headers['Authorization']}")

    with pytest.raises(WorkerError) as caught:
        talk(echo, lambda client, url: client.drain(url, "T0KEN-s3cret"))
    assert "T0K" not in str(caught.value)
    assert "/drain: status 404: " in str(caught.value)
    assert before or str(caught.value).endswith("you sent Bearer ***")


@pytest.mark.parametrize("line", ["{0}", "HTTP/1.1 200 OK\r\nX {0}", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{0}"])
def test_nor_when_it_repeats_it_in_what_is_no_http(line: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.write(line.format(next(part for part in asked.split("\r\n") if "T0KEN" in part)).encode() + b"\r\n\r\n")
        await writer.drain()
        writer.close()

    async def scene() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server, aiohttp.ClientSession() as session:
            await ControlClient(session).drain(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "T0KEN-s3cret")

    with pytest.raises(WorkerError) as caught:
        asyncio.run(scene())
    assert "T0K" not in str(caught.value)
