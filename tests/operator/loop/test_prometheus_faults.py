"""A loop with a real HTTP server for a Prometheus that is stopped, slow, empty, five minutes old or answers 500."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from yolastic_operator.cluster.base import WorkerError
from yolastic_operator.loop import Loop
from yolastic_operator.model import Ref
from yolastic_operator.observe.prometheus import Prometheus

ELASTIC = {"minReplicas": 1, "maxReplicas": 6, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}
NOW_S = 1_000_000.0


class Server:
    """Tells the load ratio 0.9 of every worker, or fails as told."""

    def __init__(self, it: Any) -> None:
        self.it, self.fault, self.ratio = it, "", 0.9

    async def answer(self, request: web.Request) -> web.Response:
        match self.fault:
            case "slow":
                await asyncio.sleep(5)
            case "500":
                return web.Response(status=500, text="boom")
        age_s = 300.0 if self.fault == "old" else 5.0
        value = NOW_S - age_s if request.query["query"].startswith("timestamp(") else self.ratio
        pods = [] if self.fault == "empty" else list(self.it.cluster.workers)
        result = [{"metric": {"pod": pod}, "value": [NOW_S, str(value)]} for pod in pods]
        response = web.Response(text=json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}))
        response.force_close()  # or a server that is stopped would go on answering on the connection there is
        return response


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

    async def turns(number: int) -> None:
        for _ in range(number):
            it.now_s += await it.turn()

    async def scenario() -> None:
        application = web.Application()
        application.router.add_get("/api/v1/query", server.answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        clock = lambda: it.now_s  # noqa: E731
        async with aiohttp.ClientSession() as session:
            prometheus = Prometheus(session, f"http://127.0.0.1:{port}", timeout_s=0.2)
            it.loop = Loop(it.cluster, Ref("plant", "weld"), it.settings, monotonic=clock, wall=clock, prometheus=prometheus)
            await turns(8)
            server.ratio = 1.6
            await turns(4)
            server.ratio = 0.8
            await turns(6)
            size = it.cluster.replicas
            assert size > 1
            assert it.condition("MetricsAvailable")["reason"] == "Fresh"

            server.fault = fault
            if fault == "stopped":
                await site.stop()
            if not workers_answer:
                it.cluster.faults["state"] = WorkerError("connection refused")
            # What the workers would say themselves is as good a figure: full load, so that it asks for no other size.
            it.cluster.demand_per_s = 0.8 * size * 32 / 0.052
            await turns(4)
            metrics = it.condition("MetricsAvailable")
            assert (metrics["status"], metrics["reason"]) == (
                ("True", "WorkersOnly") if workers_answer else ("False", "PrometheusError")
            )
            assert told in metrics["message"]
            assert it.condition("ScalingActive")["status"] == ("True" if workers_answer else "False")
            assert (it.cluster.replicas, it.cluster.told("drain")) == (size, [])

            server.fault = ""
            it.cluster.faults.clear()
            if fault == "stopped":
                site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
                await site.start()
            await turns(2)
            assert it.condition("MetricsAvailable")["reason"] == "Fresh"
            assert it.condition("ScalingActive")["reason"] == "ValidMetrics"
            assert it.status["autoscaling"]["metrics"][0]["source"] == "Prometheus"
            assert it.cluster.replicas == size
        await runner.cleanup()

    asyncio.run(scenario())
