"""A loop with a real HTTP server for a Prometheus that is stopped, slow, empty, five minutes old, replayed or answers 500."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from yolastic_operator.cluster.base import WorkerError
from yolastic_operator.loop import Loop
from yolastic_operator.model import Ref
from yolastic_operator.observe.prometheus import Prometheus

ELASTIC = {"minReplicas": 1, "maxReplicas": 6, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}


class Server:
    """Tells the load ratio 0.9 of every worker, or fails as told."""

    def __init__(self, it: Any) -> None:
        self.it, self.fault, self.ratio = it, "", 0.9
        self.replayed: dict[str, str] = {}

    async def answer(self, request: web.Request) -> web.Response:
        match self.fault:
            case "slow":
                await asyncio.sleep(5)
            case "500":
                return web.Response(status=500, text="boom")
        query = request.query["query"]
        told = self.replayed.setdefault(query, self.vector(query)) if self.fault == "replayed" else self.vector(query)
        response = web.Response(text=told)
        response.force_close()  # or a server that is stopped would go on answering on the connection there is
        return response

    def vector(self, query: str) -> str:
        # What is old tells of a night without load: taken for news it would shrink the fleet.
        age_s, ratio = (300.0, 0.05) if self.fault == "old" else (5.0, self.ratio)
        now_s = self.it.now_s
        assert query.startswith("label_replace(timestamp(")
        pods = [] if self.fault == "empty" else list(self.it.cluster.workers)
        told: list[tuple[dict[str, str], float]] = [({}, ratio), ({"yolastic_told": "time"}, now_s - age_s)]
        result = [{"metric": {"pod": pod, **more}, "value": [now_s, str(value)]} for pod in pods for more, value in told]
        return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


@asynccontextmanager
async def serving(it: Any, server: Server) -> AsyncIterator[web.AppRunner]:
    """The loop of `it` asks the server from now on."""
    application = web.Application()
    application.router.add_get("/api/v1/query", server.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    clock = lambda: it.now_s  # noqa: E731
    try:
        async with aiohttp.ClientSession() as session:
            prometheus = Prometheus(session, f"http://127.0.0.1:{runner.addresses[0][1]}", timeout_s=0.2)
            it.loop = Loop(it.cluster, Ref("plant", "weld"), it.settings, monotonic=clock, wall=clock, prometheus=prometheus)
            yield runner
    finally:
        await runner.cleanup()


async def turns(it: Any, number: int) -> None:
    for _ in range(number):
        it.now_s += await it.turn()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("stopped", "Cannot connect"),
        ("slow", "no answer within 0.2 s"),
        ("500", "status 500"),
        ("empty", "no series"),
        ("old", "nothing newer than 300 s"),
    ],
)
@pytest.mark.parametrize("workers_answer", [True, False], ids=["workers answer", "workers silent"])
def test_no_fault_shrinks_and_all_is_well_a_turn_after_it(world: Any, fault: str, told: str, workers_answer: bool) -> None:
    it = world(autoscaling=ELASTIC)
    server = Server(it)

    async def scenario() -> None:
        async with serving(it, server) as runner:
            port = runner.addresses[0][1]
            await turns(it, 8)
            server.ratio = 1.6
            await turns(it, 4)
            server.ratio = 0.8
            await turns(it, 6)
            size = it.cluster.replicas
            assert size > 1
            assert it.condition("MetricsAvailable")["reason"] == "Fresh"

            server.fault = fault
            if fault == "stopped":
                await next(iter(runner.sites)).stop()
            if not workers_answer:
                it.cluster.faults["state"] = WorkerError("connection refused")
            # What the workers would say themselves is as good a figure: full load, so that it asks for no other size.
            it.cluster.demand_per_s = 0.8 * size * 32 / 0.052
            await turns(it, 16)  # until nobody remembers what silent workers said last
            assert (it.cluster.replicas, it.cluster.told("drain")) == (size, [])
            metrics = it.condition("MetricsAvailable")
            assert (metrics["status"], metrics["reason"]) == (
                ("True", "WorkersOnly") if workers_answer else ("False", "PrometheusError")
            )
            assert told in metrics["message"]
            assert it.condition("ScalingActive")["status"] == ("True" if workers_answer else "False")

            server.fault = ""
            it.cluster.faults.clear()
            if fault == "stopped":
                await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
            await turns(it, 2)
            assert it.condition("MetricsAvailable")["reason"] == "Fresh"
            assert it.condition("ScalingActive")["reason"] == "ValidMetrics"
            assert it.status["autoscaling"]["metrics"][0]["source"] == "Prometheus"
            assert it.cluster.replicas == size

    asyncio.run(scenario())


def test_an_answer_that_is_replayed_is_not_believed_for_ever(world: Any) -> None:
    it = world(autoscaling=ELASTIC)
    server = Server(it)

    async def scenario() -> None:
        async with serving(it, server):
            server.ratio = 0.3
            await turns(it, 8)
            size = it.cluster.replicas
            server.fault = "replayed"
            it.cluster.demand_per_s = 4 * 32 / 0.052
            await turns(it, 8)
            assert (it.condition("MetricsAvailable")["reason"], it.cluster.replicas) == ("Fresh", size)
            await turns(it, 10)
            assert it.condition("MetricsAvailable")["reason"] == "WorkersOnly"
            assert it.cluster.replicas > size

    asyncio.run(scenario())
