"""One connection of the data port or the control port: what it may send, how long, and what becomes of one too many."""

import asyncio
import logging
import select
import time
from collections.abc import Callable
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from yolastic_worker.api.http import error_body, new_id
from yolastic_worker.limits import Limits
from yolastic_worker.logs import Tap

logger = logging.getLogger(__name__)

_FIRST_BYTE_S: Final = 1.0
"""A connection this old that has sent nothing carries no request: a draining worker need not wait for it."""
_STALE_S: Final = 5.0
"""A connection without a request for so long makes room for another when there are too many."""
_ROOM_AGAIN_S: Final = 0.25
"""How long a vain search for such connections is not repeated."""
_MAX_PIPELINED: Final = 16
"""Requests that wait on one connection for the answer of the one before: each holds its headers in memory."""
_MAX_READ_BYTES: Final = 2**18
"""What the event loop reads at once."""
_MAX_TURNED_AWAY: Final = 128
_TURNED_AWAY_S: Final = 1.0
"""So many refused connections linger for so long, so that their clients read why; more are closed at once."""
_HUNG_UP: Final = getattr(select, "POLLRDHUP", select.POLLHUP)
"""The peer has closed its side (Linux); elsewhere only a connection that is broken shows."""
_STATUS_LINES: Final = {400: b"HTTP/1.1 400 Bad Request\r\n", 503: b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n"}


class Door(ServerState):
    """What the connections of one server share."""

    def __init__(self, limits: Limits, answered: Callable[[int], None]) -> None:
        super().__init__()
        self.limits, self._answered = limits, answered
        self.closing = False
        self.turned_away: set[TurnedAway] = set()
        self._tap = Tap()
        self._no_room_until_s = 0.0

    def make_room(self, now_s: float) -> bool:
        """Close connections that carry no request, the longest without one first; False when there is none."""
        if now_s < self._no_room_until_s:
            return False
        stale = [(item.stale_since_s(now_s), item) for item in self.connections if isinstance(item, Connection)]
        found = sorted((since_s, id(item), item) for since_s, item in stale if since_s is not None)
        for _, _, item in found[: max(1, self.limits.connections // 16)]:
            item.transport.close()
        if not found:
            self._no_room_until_s = now_s + _ROOM_AGAIN_S
        return bool(found)

    def refuse(self, transport: asyncio.Transport, status: int, code: str, message: str, client: Any) -> None:
        """An answer without a request, in the shape of every error; the caller closes."""
        request_id = new_id()
        body = error_body(code, message, request_id)
        head = b"content-type: application/json\r\nconnection: close\r\nx-request-id: %b\r\n" % request_id.encode()
        transport.write(_STATUS_LINES[status] + head + b"content-length: %d\r\n\r\n" % len(body) + body)
        self._answered(status)
        held_back = self._tap.open(code, time.monotonic())
        if held_back is not None:
            fields = {"id": request_id, "status": status, "code": code, "client": client[0] if client else "-"}
            more = {"more_like_it": held_back} if held_back else {}
            logger.info("a connection was refused", extra={"fields": fields | more})


class TurnedAway(asyncio.Protocol):
    """One connection too many: it has its answer, and a moment to read it; what it sends goes nowhere."""

    def __init__(self, door: Door, transport: asyncio.Transport, now_s: float) -> None:
        self.door, self.transport, self.since_s = door, transport, now_s
        door.turned_away.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self.door.turned_away.discard(self)

    def look(self, now_s: float) -> None:
        """Once a second: its moment is over."""
        if now_s - self.since_s > _TURNED_AWAY_S:
            self.transport.abort()


class Connection(HttpToolsProtocol):
    """A connection that can be told to close after its next answer, tells when its client has gone, and waits only so long.

    Deadlines are kept as times and looked at once a second, not as a timer for each request.
    """

    closing = False
    _offer = b""
    """The head of a request that offers an upgrade, without the offer, until it has been read again."""
    _watcher: Callable[[], None] | None = None
    _awaiting_s: float | None = None
    """Since when the end of a request's headers is awaited."""
    _unsent_s: float | None = None
    """Since when part of an answer has been waiting for its reader, as far as was looked."""
    _headers_bytes = 0
    _unexplained_bytes = 0
    """Received since the request began, less twice its body: heads, trailers and framing."""
    _opened_s = 0.0
    _silent = True
    _refused_s: float | None = None
    """Since when it has its last answer, a 400: what still comes goes nowhere."""
    door: Door

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        super().connection_made(transport)
        assert isinstance(self.server_state, Door)
        self.door = self.server_state
        self.closing = self.door.closing
        self._opened_s = self._awaiting_s = self.loop.time()
        if len(self.connections) > self.door.limits.connections and not self.door.make_room(self._opened_s):
            self._turn_away()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; so is whoever waited for an answer."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # also after an error: the timer would keep all of this for minutes
        self._awaiting_s = None
        if self._watcher is not None:
            self._watcher()

    def data_received(self, data: bytes) -> None:
        """Bytes: counted, so that neither an endless header nor endless trailers gather in memory."""
        if self._refused_s is not None:
            return
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.send_400_response("")
            return
        self._unexplained_bytes += len(data)
        if self._unexplained_bytes > self.door.limits.header_bytes + _MAX_READ_BYTES and not self.transport.is_closing():
            self.send_400_response("")

    def _feed(self, data: bytes) -> None:
        """Parse; a request that offers an upgrade is parsed again without its offer, as any server may ignore it.

        The parser would take its body for whatever is spoken after the upgrade: a proxy before this worker, which takes it for a
        body, could be made to carry requests it has not seen. Java's own client offers h2c with every POST, curl with --http2.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stop:
                data, self._offer = self._offer + data[stop.args[0] :], b""
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            else:
                return

    def on_message_begin(self) -> None:
        """A request begins: only this, and no stray line ends, makes an idle connection a busy one."""
        self._unset_keepalive_if_required()
        super().on_message_begin()
        self._silent, self._headers_bytes, self._unexplained_bytes = False, 0, 0
        if self._awaiting_s is None:
            self._awaiting_s = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """A part of the path and query."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers are counted, and are no headers."""
        self._count(len(name) + len(value))
        if self._awaiting_s is None:
            return
        if len(self.headers) >= self.door.limits.header_count:
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A request's headers are there: its handler starts."""
        if self.parser.should_upgrade():
            self._offer = self._head_without_offer()
            return
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise ValueError("too many requests at once on one connection")
        self._awaiting_s = None
        self.scope["watch"] = self._watch  # type: ignore[typeddict-unknown-key]
        self.scope["gone"] = self._gone  # type: ignore[typeddict-unknown-key]
        # When the loop found its bytes: on a busy one well before its handler runs, and the client's patience runs already.
        self.scope["arrived_s"] = self.loop.time()  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()
        if self.closing and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A part of the body; it excuses as many bytes of framing."""
        self._unexplained_bytes -= 2 * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole, unless it is to be read again."""
        if not self._offer:
            super().on_message_complete()

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
        return self._awaiting_s is None and (self.cycle is None or self.cycle.response_complete)

    def stale_since_s(self, now_s: float) -> float | None:
        """Since when it has carried no request, if that is long enough to close it for another's sake."""
        if self._refused_s is not None:
            return self._refused_s
        if self._awaiting_s is not None:
            return self._awaiting_s if now_s - self._awaiting_s > (_FIRST_BYTE_S if self._silent else _STALE_S) else None
        if self.timeout_keep_alive_task is None:
            return None
        idle_since_s: float = self.timeout_keep_alive_task.when() - self.timeout_keep_alive
        return idle_since_s if now_s - idle_since_s > _STALE_S else None

    def look(self, now_s: float) -> None:
        """Once a second: has it waited too long for the end of the headers, or for its answer to be read?"""
        limits = self.door.limits
        if self._refused_s is not None and now_s - self._refused_s > _TURNED_AWAY_S:
            self.transport.abort()
        if self._awaiting_s is not None and now_s - self._awaiting_s > limits.header_timeout_s:
            self.transport.close()
        if not self.transport.get_write_buffer_size():
            self._unsent_s = None
        elif self._unsent_s is None:
            self._unsent_s = now_s
        elif now_s - self._unsent_s > limits.send_timeout_s:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered in the one shape of every error, and nothing more is said here.

        The connection lingers: closing it while bytes still come would reset it, and the client might never read why.
        """
        self.door.refuse(self.transport, 400, "bad_request", "this is not a valid HTTP request", self.client)
        self._refused_s, self._awaiting_s = self.loop.time(), None
        self._unset_keepalive_if_required()
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self._watcher is not None:
            self._watcher()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _turn_away(self) -> None:
        """One connection too many."""
        self.connections.discard(self)
        self.door.refuse(self.transport, 503, "too_many_connections", "too many connections are open", self.client)
        if len(self.door.turned_away) >= _MAX_TURNED_AWAY:
            self.transport.close()
            return
        self.transport.set_protocol(TurnedAway(self.door, self.transport, self._opened_s))
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _count(self, size: int) -> None:
        self._headers_bytes += size
        if self._headers_bytes > self.door.limits.header_bytes:
            raise ValueError("the headers are too long")

    def _head_without_offer(self) -> bytes:
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise ValueError("this is no proxy")
        lines = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode("ascii"))]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _gone(self) -> bool:
        """Has the client hung up, also where the loop has not read that far yet? Under a crowd most of what it finds is dead."""
        if self.transport.is_closing() or self._refused_s is not None:
            return True
        poller = select.poll()
        poller.register(self.transport.get_extra_info("socket").fileno(), _HUNG_UP)
        return bool(poller.poll(0))

    def _watch(self, watcher: Callable[[], None] | None) -> None:
        self._watcher = watcher
        if watcher is not None and self.transport.is_closing():
            watcher()
