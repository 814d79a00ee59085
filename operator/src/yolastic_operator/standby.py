"""Runs the operator only while it holds the Lease: waits for it before, ends when another has it, lets go of it after."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from aiohttp import web

from yolastic_operator.cluster.leadership import Leadership


async def alone(leadership: Leadership, health_port: int, stop: asyncio.Event, operate: Callable[[], Awaitable[None]]) -> None:
    """Wait for the lease, `operate` until `stop` is set, let go of the lease. SIGTERM ends the wait.

    Raises:
        LeadershipLostError: another operator took it, and `stop` was set for that.
        OSError: the port of `/healthz` is taken.
    """
    if not await _acquired(leadership, health_port, stop):
        return
    keeping = asyncio.create_task(_keep(leadership, stop))
    try:
        await operate()
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        await leadership.release()
    if not keeping.cancelled():
        keeping.result()


async def _keep(leadership: Leadership, stop: asyncio.Event) -> None:
    try:
        await leadership.keep()
    finally:
        stop.set()  # whatever ended it: without the lease nothing is done, and the probe would be fine with that for ever


async def _acquired(leadership: Leadership, health_port: int, stop: asyncio.Event) -> bool:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    waits = [asyncio.create_task(leadership.acquire()), asyncio.create_task(stop.wait())]
    try:
        async with _healthy(health_port):
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if waits[0].done():
            waits[0].result()
            return True
        return False
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        for task in waits:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


@asynccontextmanager
async def _healthy(port: int) -> AsyncIterator[None]:
    """`/healthz` while there is nothing else to be asked about."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="waits for the Lease")

    application = web.Application()
    application.router.add_get("/healthz", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, None, port, reuse_address=True).start()
        yield
    finally:
        await runner.cleanup()
