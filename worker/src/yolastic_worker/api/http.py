"""The little HTTP both ports share: a request over ASGI, bounded bodies, JSON replies, and errors in one shape."""

import asyncio
import itertools
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from yolastic_worker.limits import DEFAULT_LIMITS, Limits
from yolastic_worker.logs import Tap

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON: Final = b"application/json"
_LOOP_CLOCK_S: Final = 0.002
"""uvloop tells the time in whole milliseconds: less than this is no wait."""
_LINGER_S: Final = 2.0
"""How long a refused body is read and thrown away, so that its sender reads the answer instead of a reset connection."""
_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_SINGLE: Final = frozenset({
    b"authorization", b"content-length", b"content-type", b"expect", b"host", b"transfer-encoding",
    b"x-envoy-expected-rq-timeout-ms", b"x-request-id", b"x-request-timeout-ms", b"x-source",
})  # fmt: skip
"""Headers that may come once: of two, a proxy before this worker might have believed the other."""
_ID_PREFIX: Final = secrets.token_hex(6)
_ids: Final = itertools.count(1)


def new_id() -> str:
    """A request id, unique in the world as far as 48 random bits a process go."""
    return f"{_ID_PREFIX}-{next(_ids):x}"


class Refusal(Exception):  # noqa: N818 - an answer, not an accident
    """The request is answered with an error: `{"error": {"code", "message", "id"}}`."""

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


def error_body(code: str, message: str, request_id: str) -> bytes:
    """The one shape of every error."""
    return orjson.dumps({"error": {"code": code, "message": message, "id": request_id}})


def error_reply(refusal: Refusal, request_id: str) -> Reply:
    """A refusal as an answer."""
    body = error_body(refusal.code, refusal.message, request_id)
    retry = () if refusal.retry_after_s is None else ((b"retry-after", str(refusal.retry_after_s).encode()),)
    return Reply(body, refusal.status, JSON, (*retry, *refusal.headers))


class Request:
    """One HTTP request."""

    def __init__(self, scope: Scope, receive: Receive, limits: Limits = DEFAULT_LIMITS) -> None:
        self.scope, self._receive, self._limits = scope, receive, limits
        now_s = time.monotonic()
        found_s = min(now_s, scope.get("arrived_s", now_s))
        waited_s = now_s - found_s if now_s - found_s > _LOOP_CLOCK_S else 0.0
        self.arrived_s: float = now_s - 2 * waited_s
        """When its client sent it, as far as that can be known: as long as it waited in the loop after it was found, so long had
        it probably waited in the socket before. On a loop that is not busy both are nothing."""
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.whole = False
        """The body was read to its end."""
        self.client = ""
        """Name of the API key it came with; empty where none is asked for."""

    @cached_property
    def id(self) -> str:
        """The client's own X-Request-Id if it is a sane one, else made here."""
        told: bytes = self.headers.get(b"x-request-id", b"")
        return told.decode("ascii") if _SANE_ID.fullmatch(told) else new_id()

    def check_headers(self) -> None:
        """Refuse a request two readers could understand in two ways.

        Raises:
            Refusal: 400.
        """
        version = self.scope.get("http_version")
        if version == "0.9" or (version == "1.0" and b"transfer-encoding" in self.headers):  # RFC 9112, 6.1
            raise Refusal(400, "bad_request", f"HTTP/{version} is not spoken here, or not in chunks")
        if self.headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            raise Refusal(400, "bad_request", "no transfer encoding but chunked is understood")
        if len(self.headers) == len(self.scope["headers"]):
            return
        seen: set[bytes] = set()
        for name, _ in self.scope["headers"]:
            if name in _SINGLE and name in seen:
                raise Refusal(400, "repeated_header", f"the header {name.decode('ascii')} may come only once")
            seen.add(name)

    @cached_property
    def query(self) -> Mapping[str, str]:
        """Query parameters; the last of a name counts."""
        try:
            return dict(
                parse_qsl(self.scope["query_string"].decode("ascii"), keep_blank_values=True, max_num_fields=self._limits.fields)
            )
        except ValueError as error:
            raise Refusal(422, "bad_query", "the query string cannot be read") from error

    @property
    def content_type(self) -> str:
        """Lower case, without parameters; empty when there is none."""
        return self.headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower().decode("latin-1")

    async def body(self, limit_bytes: int, timeout_s: float, hold: Callable[[int], None] = lambda size: None) -> bytes:
        """The whole body, counted while it comes; `hold` is told the size of each part and may refuse it.

        Raises:
            Refusal: 413 over the limit, by Content-Length before anything is read; 408 when it does not arrive in time, or
                after its grace comes slower than the least rate.
            ClientGone: the client left.
        """
        announced = self.headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > limit_bytes:
            raise _too_large(limit_bytes)
        parts: list[bytes] = []
        size = 0
        grace_s, rate = self._limits.body_grace_s, self._limits.body_bytes_per_s
        began_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(grace_s, timeout_s)) as patience:
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    part = message.get("body", b"")
                    size += len(part)
                    if size > limit_bytes:
                        raise _too_large(limit_bytes)
                    hold(len(part))
                    parts.append(part)
                    if not message.get("more_body", False):
                        self.whole = True
                        return parts[0] if len(parts) == 1 else b"".join(parts)
                    patience.reschedule(began_s + min(timeout_s, grace_s + size / rate))
        except TimeoutError as error:
            raise Refusal(408, "body_timeout", "the body did not arrive in time") from error

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


def _too_large(limit_bytes: int) -> Refusal:
    # Made where it is raised: a variable that held it would, by its traceback, keep the parts that were read.
    return Refusal(413, "body_too_large", f"the body is larger than {limit_bytes} bytes")


Handler = Callable[[Request], Awaitable[Reply]]


class Application:
    """An ASGI application: exact paths, errors in one shape with an id, no traceback to anybody."""

    def __init__(
        self,
        routes: Mapping[str, Mapping[str, Handler]],
        answered: Callable[[int], None] = lambda status: None,
        *,
        limits: Limits = DEFAULT_LIMITS,
        log: bool = False,
    ) -> None:
        """`routes`: path -> method -> handler; `answered`: told the status of every answer; `log`: a line for each refusal."""
        self._routes, self._answered, self._limits, self._log = routes, answered, limits, log
        self._tap = Tap()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive, self._limits)
        try:
            request.check_headers()
            reply = await self._handler(request)(request)
        except ClientGone:
            return
        except Refusal as refusal:
            if self._log:
                self._tell(request, refusal)
            reply = error_reply(refusal, request.id)
        except Exception as error:
            failure = Refusal(500, "internal", "an internal error; it is in the worker's log")
            self._tell(request, failure, error)
            reply = error_reply(failure, request.id)
        self._answered(reply.status)
        await self._send(request, reply, send)

    def _tell(self, request: Request, refusal: Refusal, error: Exception | None = None) -> None:
        """A line about a request that was not served, unless too many of its kind were told lately."""
        now_s = time.monotonic()
        held_back = self._tap.open((refusal.status, refusal.code), now_s)
        if held_back is None:
            return
        client = request.scope.get("client")
        fields = {
            "id": request.id, "method": request.method, "path": request.path if request.path in self._routes else "-",
            "status": refusal.status, "code": refusal.code, "seconds": round(now_s - request.arrived_s, 4),
            "client": client[0] if client else "-",
        }  # fmt: skip
        if held_back:
            fields["more_like_it"] = held_back
        level = logging.ERROR if error is not None else logging.WARNING if refusal.status >= 500 else logging.INFO
        words = "a request failed" if error is not None else "a request was refused"
        logger.log(level, words, exc_info=error, extra={"fields": fields})

    def _handler(self, request: Request) -> Handler:
        methods = self._routes.get(request.path)
        if methods is None:
            raise Refusal(404, "not_found", "there is no such path")
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])
            headers = ((b"allow", allowed.encode()),)
            raise Refusal(405, "method_not_allowed", f"this path takes {allowed}", headers=headers)
        return handler

    async def _send(self, request: Request, reply: Reply, send: Send) -> None:
        unread = not request.whole and (b"content-length" in request.headers or b"transfer-encoding" in request.headers)
        unread = unread and request.headers.get(b"content-length") != b"0"
        headers = [
            (b"content-type", reply.content_type), (b"content-length", str(len(reply.body)).encode()),
            (b"x-request-id", request.id.encode()), *reply.headers,
        ]  # fmt: skip
        if unread:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body, "more_body": unread})
        if unread:
            if request.headers.get(b"expect", b"").lower() != b"100-continue":
                await request.discard()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
