"""An HTTP server on an open socket whose every closing step is ours to order: uvicorn with its own shutdown left out.

uvicorn closes its listening socket and all idle connections at the first signal; a worker must go on accepting until the last
load balancer knows that it leaves.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import uvicorn

from yolastic_worker.connection import Connection, Door
from yolastic_worker.limits import DEFAULT_LIMITS, Limits

logger = logging.getLogger(__name__)

_BACKLOG: Final = 2048


class HttpServer:
    """One application on one listening socket."""

    def __init__(
        self, application: Any, limits: Limits = DEFAULT_LIMITS, answered: Callable[[int], None] = lambda status: None
    ) -> None:
        """`answered` is told the status of what is refused before it is a request."""
        self._server = uvicorn.Server(
            uvicorn.Config(
                application,
                http=Connection,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=limits.idle_timeout_s,  # type: ignore[arg-type]  # a timer's delay: seconds of any kind
                backlog=_BACKLOG,
            )
        )
        self._door = self._server.server_state = Door(limits, answered)

    async def start(self, listener: socket.socket) -> None:
        """Listen."""
        config = self._server.config
        config.load()
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup(sockets=[listener])

    async def tick(self) -> None:
        """Once a second: the Date header, and the clients' deadlines."""
        await self._server.on_tick(0)
        now_s = asyncio.get_running_loop().time()
        for connection in self._connections():
            connection.look(now_s)
        for guest in list(self._door.turned_away):
            guest.look(now_s)

    def stop_accepting(self) -> None:
        """Close the listening socket of this process; one that other processes share goes on, with what waits in it."""
        for server in getattr(self._server, "servers", []):
            server.close()

    def close_after_answer(self, *, newcomers: bool) -> None:
        """Every open connection closes after its next answer; with `newcomers` those that are yet to come as well."""
        self._door.closing = newcomers or self._door.closing
        for connection in self._connections():
            connection.close_after_answer()

    def close_idle(self) -> None:
        """Close the connections that carry no request."""
        for connection in self._connections():
            if connection.idle:
                connection.transport.close()

    @property
    def open_connections(self) -> int:
        """Connections that are open."""
        return len(self._door.connections)

    def _connections(self) -> list[Connection]:
        return [item for item in self._door.connections if isinstance(item, Connection)]


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket bound to host and port.

    Raises:
        OSError: the port is taken, or the address is not here.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


@contextlib.asynccontextmanager
async def every(seconds: float, act: Callable[[], Any]) -> AsyncIterator[None]:
    """Call `act` every so often while the body runs."""

    async def _repeat() -> None:
        while True:
            try:
                result = act()
                if asyncio.iscoroutine(result):
                    await result
            except Exception:
                logger.exception("what is done every %g s failed", seconds)
            await asyncio.sleep(seconds)

    task = asyncio.create_task(_repeat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
