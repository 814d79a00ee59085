"""An HTTP server on an open socket whose every closing step is ours to order: uvicorn with its own shutdown left out.

uvicorn closes its listening socket and all idle connections at the first signal; a worker must go on accepting until the last
load balancer knows that it leaves.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_KEEP_ALIVE_S: Final = 120
"""Longer than clients and proxies keep an idle connection, so that they close it and not we, just as they use it again."""
_HEADERS_TIMEOUT_S: Final = 20.0
"""From the first byte of a request, or the opening of a connection, to the end of its headers."""
_FIRST_BYTE_S: Final = 1.0
"""A connection this old that has sent nothing carries no request: a draining worker need not wait for it."""
_HEADERS_LIMIT_BYTES: Final = 65536
_BACKLOG: Final = 2048


class Connection(HttpToolsProtocol):
    """A connection that can be told to close after its next answer, tells when its client has gone, and waits only so long."""

    closing = False
    _watcher: Callable[[], None] | None = None
    _headers_timer: asyncio.TimerHandle | None = None
    _headers_bytes = 0
    _opened_s = 0.0
    _silent = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        super().connection_made(transport)
        self.closing = getattr(self.server_state, "closing", False)
        self._opened_s = self.loop.time()
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; so is whoever waited for an answer."""
        super().connection_lost(exc)
        self._headers_arrived()
        if self._watcher is not None:
            self._watcher()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._silent, self._headers_bytes = False, 0
        self._await_headers()

    def on_url(self, url: bytes) -> None:
        """A part of the path and query."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A request's headers are there: its handler starts."""
        self._headers_arrived()
        self.scope["watch"] = self._watch  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()
        if self.closing and self.cycle is not None:
            self.cycle.keep_alive = False

    def close_after_answer(self) -> None:
        """The next answer says `Connection: close`, the one that is under way too unless it has begun."""
        self.closing = True
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    @property
    def idle(self) -> bool:
        """No request is under way, nor begun."""
        if self._silent:
            return self.loop.time() - self._opened_s > _FIRST_BYTE_S
        return self._headers_timer is None and (self.cycle is None or self.cycle.response_complete)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered in the one shape of every error, and the connection closed."""
        body = orjson.dumps({"error": {"code": "bad_request", "message": "this is not a valid HTTP request"}})
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        self.transport.close()

    def _count(self, size: int) -> None:
        self._headers_bytes += size
        if self._headers_bytes > _HEADERS_LIMIT_BYTES:
            raise ValueError("the headers are too long")

    def _watch(self, watcher: Callable[[], None] | None) -> None:
        self._watcher = watcher
        if watcher is not None and self.transport.is_closing():
            watcher()

    def _await_headers(self) -> None:
        if self._headers_timer is None:
            self._headers_timer = self.loop.call_later(_HEADERS_TIMEOUT_S, self.transport.close)

    def _headers_arrived(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None


class HttpServer:
    """One application on one listening socket."""

    def __init__(self, application: Any) -> None:
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
                timeout_keep_alive=_KEEP_ALIVE_S,
                backlog=_BACKLOG,
            )
        )

    async def start(self, listener: socket.socket) -> None:
        """Listen."""
        config = self._server.config
        config.load()
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup(sockets=[listener])

    async def tick(self) -> None:
        """Once a second: the Date header."""
        await self._server.on_tick(0)

    def stop_accepting(self) -> None:
        """Close the listening socket of this process; one that other processes share goes on, with what waits in it."""
        for server in getattr(self._server, "servers", []):
            server.close()

    def close_after_answer(self, *, newcomers: bool) -> None:
        """Every open connection closes after its next answer; with `newcomers` those that are yet to come as well."""
        self._server.server_state.closing = newcomers or getattr(self._server.server_state, "closing", False)  # type: ignore[attr-defined]
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
        return len(self._server.server_state.connections)

    def _connections(self) -> list[Connection]:
        return [item for item in self._server.server_state.connections if isinstance(item, Connection)]


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
            result = act()
            if asyncio.iscoroutine(result):
                await result
            await asyncio.sleep(seconds)

    task = asyncio.create_task(_repeat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
