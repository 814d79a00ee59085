"""Load ratios from a Prometheus: a real HTTP server with every fault one can have."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from yolastic_operator.model import Fresh, Missing, Ref, Stale
from yolastic_operator.observe.prometheus import Advance, LoadRatios, Prometheus, Series, fold, parse_vector

REF = Ref("plant", "weld.line")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def vector(*series: tuple[str, object], at_s: float = 1000.0) -> str:
    result = [{"metric": {"__name__": "x", "pod": pod, "namespace": "plant"}, "value": [at_s, value]} for pod, value in series]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


def told(values: dict[str, object], times: dict[str, object], at_s: float = 1000.0) -> str:
    """The answer to the one query: the values and, under a label of their own, their times."""
    answers = [json.loads(vector(*part.items(), at_s=at_s))["data"]["result"] for part in (values, times)]
    for item in answers[1]:
        item["metric"] = {name: value for name, value in item["metric"].items() if name != "__name__"} | {"yolastic_told": "time"}
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": [*answers[1], *answers[0]]}})


def folded(values: dict[str, object], times: dict[str, object], at_s: float = 1000.0) -> LoadRatios:
    return fold(parse_vector(200, told(values, times, at_s).encode()), 60)


async def ask(handler: Handler, timeout_s: float = 2.0) -> LoadRatios:
    application = web.Application()
    application.router.add_get("/prom/api/v1/query", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession() as session:
            client = Prometheus(session, f"http://{host}:{port}/prom/", stale_after_s=60, timeout_s=timeout_s)
            return await client.load_ratios(REF)
    finally:
        await runner.cleanup()


def test_values_come_with_the_age_of_their_sample() -> None:
    queries = []

    async def handler(request: web.Request) -> web.Response:
        queries.append(request.query["query"])
        return web.Response(text=told({"weld-1": "0.75", "weld-2": "1.5"}, {"weld-1": "990", "weld-2": "900.5"}))

    answer = asyncio.run(ask(handler))
    assert answer.pods == {"weld-1": Fresh(0.75, 10.0), "weld-2": Stale(1.5, 99.5)}
    assert answer.newest == Fresh(10.0, 10.0)
    series = 'yolastic_load_ratio{namespace="plant",model="weld.line",pod!=""}'
    assert queries == [f'label_replace(timestamp({series}), "yolastic_told", "time", "pod", ".+") or {series}'], (
        "in one: behind one Service there may be two of them"
    )


def test_without_series_there_is_no_number() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=vector())

    assert asyncio.run(ask(handler)) == LoadRatios({}, Missing("Prometheus: no series"))


VALUELESS = '{"resultType":"vector","result":[{"metric":{}}]}'
FAULTS = {
    "not found": (404, "404 page not found", "status 404 and an answer that is no JSON"),
    "gateway": (502, "<html>Bad Gateway</html>", "status 502 and an answer that is no JSON"),
    "bad query": (400, '{"status":"error","errorType":"bad_data","error":"parse error"}', "status 400: parse error"),
    "overloaded": (503, '{"status":"error","error":"query timed out"}', "status 503: query timed out"),
    "error with 200": (200, '{"status":"error","error":"no"}', "status 200: no"),
    "cut off": (200, '{"status":"success","data":{"resultT', "status 200 and an answer that is no JSON"),
    "a list": (200, "[1, 2]", "status 200"),
    "matrix": (200, '{"status":"success","data":{"resultType":"matrix","result":[]}}', "a matrix where a vector was asked for"),
    "no data": (200, '{"status":"success"}', "an answer that is no instant vector"),
    "null data": (200, '{"status":"success","data":null}', "an answer that is no instant vector"),
    "no value": (200, f'{{"status":"success","data":{VALUELESS}}}', "an answer that is no instant vector"),
    "words": (200, vector(("weld-1", "much")), "could not convert string to float: 'much'"),
    "no time": (200, vector(("weld-1", "0.5"), at_s=float("nan")), "an answer that is no instant vector"),
    "a number of four hundred digits": (
        200, f'{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[1{"0" * 400},"1"]}}]}}}}',
        "an answer that is no instant vector",
    ),
    "half a character": (400, '{"status":"error","error":"\\ud800 is none"}', "status 400: ? is none"),
    "deep": (200, "[" * 100_000, "status 200 and an answer that is no JSON"),
}  # fmt: skip


@pytest.mark.parametrize(("status", "body", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_missing_with_its_reason(status: int, body: str, reason: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    assert asyncio.run(ask(handler)) == LoadRatios({}, Missing(f"Prometheus: {reason}"))


def test_nobody_is_followed_to_another_place() -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.query.get("again"):
            return web.Response(text=vector(("weld-1", "0.5")))
        raise web.HTTPFound(f"{request.path}?query=x&again=1")

    assert asyncio.run(ask(handler)).newest == Missing("Prometheus: status 302 and an answer that is no JSON")


def test_a_prometheus_that_hangs_is_missing_after_its_time() -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    assert asyncio.run(ask(handler, timeout_s=0.1)).newest == Missing("Prometheus: no answer within 0.1 s")


def test_a_prometheus_that_is_not_there_is_missing() -> None:
    async def scenario() -> LoadRatios:
        async with aiohttp.ClientSession() as session:
            return await Prometheus(session, "http://127.0.0.1:1").load_ratios(REF)

    newest = asyncio.run(scenario()).newest
    assert isinstance(newest, Missing)
    assert newest.reason.startswith("Prometheus: Cannot connect")


def test_an_endless_answer_is_cut_off() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b" " * 100_000)
        return response

    assert asyncio.run(ask(handler)).newest == Missing("Prometheus: the answer is longer than 4194304 bytes")


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-0.5", "1e9"])
def test_a_ratio_that_cannot_be_is_missing(value: str) -> None:
    reading = folded({"weld-1": value}, {"weld-1": "999"}).pods["weld-1"]
    assert isinstance(reading, Missing)
    assert "load ratio is" in reading.reason


def test_of_two_series_of_a_pod_the_newer_counts() -> None:
    def two(old: str, new: str, **more: str) -> list[Series]:
        result = [
            {"metric": {"pod": "weld-1", "container": name, **more}, "value": [1000, value]}
            for name, value in (("a", old), ("b", new))
        ]
        return parse_vector(200, json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode())

    for first, second in ((900, 995), (995, 900), (1003, 1005), (1005, 1003)):  # of the last two the clocks differ a little
        both = [*two("0.1", "0.9"), *two(str(first), str(second), yolastic_told="time")]
        age_s = 5.0 if max(first, second) < 1000 else 0.0
        assert fold(both, 60).pods == {"weld-1": Fresh(0.9 if second > first else 0.1, age_s)}


def test_a_value_without_a_time_does_not_count() -> None:
    nothing = LoadRatios({}, Missing("Prometheus: no series"))
    assert (
        folded({"weld-1": "0.5"}, {}) == folded({}, {"weld-1": "990"}) == folded({"weld-1": "0.5"}, {"weld-2": "990"}) == nothing
    )
    for none in ("NaN", "1061"):
        assert folded({"weld-1": "0.5"}, {"weld-1": none}) == nothing
    assert folded({"weld-1": "0.5"}, {"weld-1": "1001"}).pods == {"weld-1": Fresh(0.5, 0.0)}, "the clocks differ a little"


def answer(evaluated_s: float) -> LoadRatios:
    """The ratio 0.5, five seconds old."""
    return folded({"weld-1": "0.5"}, {"weld-1": str(evaluated_s - 5)}, evaluated_s)


def test_an_answer_that_is_replayed_grows_old_by_our_own_clock() -> None:
    advance, told = Advance(60), answer(1000)
    ages = {}
    for now_s in (100.0, 110.0, 155.0, 155.5, 700.0):
        found = advance.aged(told, now_s)
        ages[now_s] = found.pods["weld-1"]
        assert found.newest == type(found.pods["weld-1"])(found.pods["weld-1"].age_s, found.pods["weld-1"].age_s)
    assert ages == {
        100.0: Fresh(0.5, 5.0),
        110.0: Fresh(0.5, 15.0),
        155.0: Fresh(0.5, 60.0),
        155.5: Stale(0.5, 60.5),
        700.0: Stale(0.5, 605.0),
    }
    assert advance.aged(answer(1001), 705.0).pods == {"weld-1": Fresh(0.5, 5.0)}, "it goes on"


def test_of_another_cluster_with_the_same_name_no_sample_is_news() -> None:
    both = folded({"weld-1": "0.5", "weld-9": "0.5"}, {"weld-1": "920", "weld-9": "999"})
    assert both.newest == Fresh(1.0, 1.0)
    assert both.newest_of({"weld-1", "weld-9"}) == both.newest
    assert both.newest_of({"weld-1"}) == Stale(80.0, 80.0)
    assert both.newest_of({"weld-2"}) == Missing("Prometheus: no series of these workers")
    nothing = Missing("Prometheus: no answer within 3 s")
    assert LoadRatios(newest=nothing).newest_of({"weld-1"}) == nothing


def test_a_clock_that_is_set_back_and_an_answer_without_series_are_got_over() -> None:
    advance = Advance(60)
    assert advance.aged(answer(9000), 100).pods == {"weld-1": Fresh(0.5, 5.0)}
    assert advance.aged(answer(1000), 105).pods == {"weld-1": Fresh(0.5, 10.0)}
    assert advance.aged(answer(1005), 110).pods == {"weld-1": Fresh(0.5, 5.0)}
    none = LoadRatios({}, Missing("Prometheus: no series"))
    assert advance.aged(none, 115) == none
    assert advance.aged(answer(1005), 120).pods == {"weld-1": Fresh(0.5, 15.0)}
