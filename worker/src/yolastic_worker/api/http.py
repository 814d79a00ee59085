"""The little HTTP both ports share: a request over ASGI, bounded bodies, JSON replies, and errors in one shape."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON: Final = b"application/json"
_LINGER_S: Final = 2.0
"""How long a refused body is read and thrown away, so that its sender reads the answer instead of a reset connection."""


class Refusal(Exception):  # noqa: N818 - an answer, not an accident
    """The request is answered with an error: `{"error": {"code", "message"}}`."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        retry_after_s: int | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after_s = status, code, message, retry_after_s
        self.headers = headers


class ClientGone(Exception):  # noqa: N818 - nobody is left to answer
    """The client closed the connection."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json_reply(value: Any, status: int = 200) -> Reply:
    """A value as JSON; numpy scalars too."""
    return Reply(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), status)


def error_reply(refusal: Refusal) -> Reply:
    """The one shape of every error."""
    body = orjson.dumps({"error": {"code": refusal.code, "message": refusal.message}})
    retry = () if refusal.retry_after_s is None else ((b"retry-after", str(refusal.retry_after_s).encode()),)
    return Reply(body, refusal.status, JSON, (*retry, *refusal.headers))


class Request:
    """One HTTP request."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope, self._receive = scope, receive
        self.arrived_s = time.monotonic()
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.whole = False
        """The body was read to its end."""
        self.client = ""
        """Name of the API key it came with; empty where none is asked for."""

    @cached_property
    def query(self) -> Mapping[str, str]:
        """Query parameters; the last of a name counts."""
        try:
            return dict(parse_qsl(self.scope["query_string"].decode("ascii"), keep_blank_values=True, max_num_fields=64))
        except ValueError as error:
            raise Refusal(422, "bad_query", "the query string cannot be read") from error

    @property
    def content_type(self) -> str:
        """Lower case, without parameters; empty when there is none."""
        return self.headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower().decode("latin-1")

    async def body(self, limit_bytes: int, timeout_s: float, hold: Callable[[int], None] = lambda size: None) -> bytes:
        """The whole body, counted while it comes; `hold` is told the size of each part and may refuse it.

        Raises:
            Refusal: 413 over the limit, by Content-Length before anything is read; 408 when it does not arrive in time.
            ClientGone: the client left.
        """
        too_large = Refusal(413, "body_too_large", f"the body is larger than {limit_bytes} bytes")
        announced = self.headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > limit_bytes:
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    part = message.get("body", b"")
                    size += len(part)
                    if size > limit_bytes:
                        raise too_large
                    hold(len(part))
                    parts.append(part)
                    if not message.get("more_body", False):
                        self.whole = True
                        return parts[0] if len(parts) == 1 else b"".join(parts)
        except TimeoutError as error:
            raise Refusal(408, "body_timeout", f"the body did not arrive within {timeout_s:g} s") from error

    async def discard(self) -> None:
        """Read what is left of the body and forget it, for a bounded time."""
        try:
            async with asyncio.timeout(_LINGER_S):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
        except TimeoutError:
            return


Handler = Callable[[Request], Awaitable[Reply]]


class Application:
    """An ASGI application: exact paths, errors in one shape, no traceback to anybody."""

    def __init__(
        self, routes: Mapping[str, Mapping[str, Handler]], answered: Callable[[int], None] = lambda status: None
    ) -> None:
        """`routes`: path -> method -> handler; `answered`: told the status of every answer."""
        self._routes, self._answered = routes, answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            reply = await self._handler(request)(request)
        except ClientGone:
            return
        except Refusal as refusal:
            reply = error_reply(refusal)
        except Exception:
            logger.exception("a request failed")
            reply = error_reply(Refusal(500, "internal", "an internal error; it is in the worker's log"))
        self._answered(reply.status)
        await self._send(request, reply, send)

    def _handler(self, request: Request) -> Handler:
        methods = self._routes.get(request.path)
        if methods is None:
            raise Refusal(404, "not_found", "there is no such path")
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            raise Refusal(405, "method_not_allowed", f"this path takes {', '.join(methods)}")
        return handler

    async def _send(self, request: Request, reply: Reply, send: Send) -> None:
        unread = not request.whole and (b"content-length" in request.headers or b"transfer-encoding" in request.headers)
        unread = unread and request.headers.get(b"content-length") != b"0"
        headers = [(b"content-type", reply.content_type), (b"content-length", str(len(reply.body)).encode()), *reply.headers]
        if unread:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body, "more_body": unread})
        if unread:
            if request.headers.get(b"expect", b"").lower() != b"100-continue":
                await request.discard()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
