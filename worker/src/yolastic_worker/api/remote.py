"""Images named by URL: fetched over https from hosts on a list, at one resolved address, bounded in bytes and time."""

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import httptools

from yolastic_worker.api.http import ClientGone, Refusal
from yolastic_worker.api.url_rules import Target, UrlError, UrlHosts, is_global, parse_url

MAX_URLS: Final = 16
"""In one request."""
_MAX_FETCHES: Final = 64
"""Under way at once in one worker: each holds a socket, and a place of the resolver."""
_MAX_ADDRESSES: Final = 3
"""Tried one after the other: the first may be of a family that leads nowhere from here."""
_CONNECT_S: Final = 3.0
"""For each address but the last."""
_MAX_HEAD_BYTES: Final = 32768
_BODY_TO_FRAMING: Final = 8
"""Beyond the head a byte of framing for so many of the image: chunks, and trailers, which the parser gathers in memory."""
_CHUNK_BYTES: Final = 65536

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Hold = Callable[[int], None]
Watch = Callable[[Callable[[], None] | None], None]


@dataclass(frozen=True, slots=True)
class Url:
    """An image that is somewhere else."""

    text: str


@dataclass(frozen=True, slots=True)
class RemoteLimits:
    """How much of the world a request may fetch."""

    total_bytes: int
    """All images of one request together."""
    timeout_s: float
    """One image, from the look-up of its host to its last byte; a client's own patience when that is shorter."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """Addresses of a host. The name is looked up as it is: the dot keeps the resolver from adding search domains to it."""
    found = await asyncio.get_running_loop().getaddrinfo(f"{host}.", port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Remote:
    """Fetches what requests name by URL; one a worker. Without hosts it refuses every URL.

    `resolve` and `is_allowed_address` are for tests, which have no name and no address that the world knows.
    """

    def __init__(
        self,
        hosts: UrlHosts | None,
        limits: RemoteLimits,
        *,
        resolve: Resolve = resolve,
        is_allowed_address: Callable[[str], bool] = is_global,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hosts, self._limits = hosts, limits
        self._resolve, self._is_allowed_address, self._clock = resolve, is_allowed_address, clock
        self._trust = _trust() if hosts is not None else None
        self._fetching = 0

    async def collect(self, files: Sequence[bytes | Url], deadline_s: float, hold: Hold, watch: Watch) -> list[bytes]:
        """The bytes of every file, in order; deadline_s: monotonic clock; `hold`: told the size of each part that comes.

        Raises:
            Refusal: 403 the worker fetches no URLs, or none of this host; 422 not such a URL; 413 too large; 424 the other
                server did not give it; 429 too much is being fetched.
            ClientGone: the client left.
        """
        urls = [file for file in files if isinstance(file, Url)]
        if not urls:
            return [file for file in files if isinstance(file, bytes)]
        if len(urls) > MAX_URLS:
            raise Refusal(422, "too_many_urls", f"one request may name {MAX_URLS} URLs")
        targets = [self._permit(url) for url in urls]
        room_bytes = self._limits.total_bytes - sum(len(file) for file in files if isinstance(file, bytes))

        def take(size: int) -> None:
            nonlocal room_bytes
            room_bytes -= size
            if room_bytes < 0:
                raise self._too_large()
            hold(size)

        fetched = iter(await self._together([self._fetch(target, deadline_s, take) for target in targets], watch))
        return [next(fetched) if isinstance(file, Url) else file for file in files]

    def _permit(self, url: Url) -> Target:
        """What a URL names, when it may be fetched. Before anything is looked up: a refused name is not even resolved."""
        if self._hosts is None:
            raise Refusal(403, "url_input_off", "source: this worker fetches no URLs; send the image itself")
        try:
            target = parse_url(url.text)
        except UrlError as error:
            raise Refusal(422, "bad_url", f"source: {error}") from error
        if not self._hosts.allow(target):
            raise Refusal(403, "host_not_allowed", "source: this worker fetches nothing from this host and port")
        return target

    async def _together(self, fetches: list[Awaitable[bytes]], watch: Watch) -> list[bytes]:
        """All of them, or the first refusal; none goes on when it is over or the client has gone."""
        tasks = [asyncio.ensure_future(fetch) for fetch in fetches]
        gone = False

        def leave() -> None:
            nonlocal gone
            gone = True
            for task in tasks:
                task.cancel()

        watch(leave)
        try:
            return await asyncio.gather(*tasks)
        except asyncio.CancelledError:
            if gone:
                raise ClientGone from None
            raise
        finally:
            watch(None)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, target: Target, deadline_s: float, take: Hold) -> bytes:
        if self._fetching >= _MAX_FETCHES:
            raise Refusal(429, "overloaded", "too many URLs are being fetched by this worker", 1)
        self._fetching += 1
        try:
            async with asyncio.timeout(max(0.0, min(self._limits.timeout_s, deadline_s - self._clock()))):
                reader, writer = await self._connect(target, await self._addresses(target))
                try:
                    writer.write(_request(target))
                    return await self._read(reader, take)
                finally:
                    writer.transport.abort()  # nothing more is said: no need to wait for the other side's goodbye
        except TimeoutError as error:
            raise Refusal(424, "url_timeout", "source: the image did not come in time") from error
        except (OSError, EOFError) as error:
            raise _failed("the connection to its server broke") from error
        finally:
            self._fetching -= 1

    async def _addresses(self, target: Target) -> Sequence[str]:
        """Where the host is, looked up once: what is checked here is what is connected to.

        One address that is not global spoils all: a host that is partly inside is not one of the public internet.
        """
        try:
            addresses = await self._resolve(target.host, target.port)
        except (OSError, UnicodeError) as error:
            raise _failed("its host has no address") from error
        if not addresses:
            raise _failed("its host has no address")
        if not all(self._is_allowed_address(address) for address in addresses):
            raise Refusal(403, "address_not_allowed", "source: the host has an address that is not of the public internet")
        return addresses[:_MAX_ADDRESSES]

    async def _connect(self, target: Target, addresses: Sequence[str]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the first address that takes one; its certificate is that of the host's name."""
        for address in addresses:
            try:
                async with asyncio.timeout(None if address == addresses[-1] else _CONNECT_S):
                    return await asyncio.open_connection(
                        address, target.port, ssl=self._trust, server_hostname=target.host, limit=_CHUNK_BYTES
                    )
            except ssl.SSLError as error:
                told = (
                    "its server's certificate is not valid for it"
                    if isinstance(error, ssl.SSLCertVerificationError)
                    else "TLS failed"
                )
                raise _failed(told) from error
            except (OSError, TimeoutError):
                continue
        raise _failed("its server cannot be reached")

    async def _read(self, reader: asyncio.StreamReader, take: Hold) -> bytes:
        """The body of a complete, plain 200."""
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        answer.parser = parser
        read_bytes = body_bytes = 0
        while not answer.complete:
            data = await reader.read(_CHUNK_BYTES)
            if not data:
                raise _failed("its server closed the connection before the end")
            try:
                parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                if not answer.complete:  # after the end it may say what it likes
                    raise _failed("its server does not speak HTTP") from error
            if answer.head_complete:
                self._check(answer)
            new_bytes, body_bytes = answer.body_bytes - body_bytes, answer.body_bytes
            take(new_bytes)
            read_bytes += len(data)
            if not answer.complete and read_bytes - body_bytes > _MAX_HEAD_BYTES + body_bytes // _BODY_TO_FRAMING:
                raise _failed("its server sends too much that is not the image")
        return b"".join(answer.parts)

    def _check(self, answer: "_Answer") -> None:
        """Whether the body that follows these headers is wanted."""
        if answer.status != 200:
            moved = "; redirects are not followed" if 300 <= answer.status < 400 else ""
            raise _failed(f"its server answered {answer.status}{moved}")
        lengths, codings = answer.all_of(b"content-length"), answer.all_of(b"transfer-encoding")
        if answer.all_of(b"content-encoding") not in ([], [b"identity"]):
            raise _failed("its server sent it compressed, though it was asked not to")
        if codings == [b"chunked"] and not lengths:
            return
        # Without either the end of the connection would be the end of the image, and a cut one could pass for whole.
        if codings or len(lengths) != 1 or not lengths[0].isdigit():
            raise _failed("its server does not tell how long it is")
        if int(lengths[0]) > self._limits.total_bytes:
            raise self._too_large()

    def _too_large(self) -> Refusal:
        return Refusal(413, "url_too_large", f"source: larger than {self._limits.total_bytes} bytes, all images together")


class _Answer:
    """What the parser hears, up to the end of the first answer that is one."""

    def __init__(self) -> None:
        self.parser: httptools.HttpResponseParser
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.parts: list[bytes] = []
        self.body_bytes = 0
        self.head_complete = self.complete = False

    def all_of(self, name: bytes) -> list[bytes]:
        return [value.strip().lower() for key, value in self.headers if key.lower() == name]

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_complete:  # later ones are trailers
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if not self.complete:
            self.status = self.parser.get_status_code()
            self.head_complete = True

    def on_body(self, data: bytes) -> None:
        if not self.complete:
            self.parts.append(data)
            self.body_bytes += len(data)

    def on_message_complete(self) -> None:
        if self.complete:
            return
        if 100 <= self.status < 200:  # the answer proper is still to come
            self.head_complete = False
            self.headers.clear()
        else:
            self.complete = True


def _request(target: Target) -> bytes:
    host = target.host if target.port == 443 else f"{target.host}:{target.port}"
    lines = (
        f"GET {target.path} HTTP/1.1", f"Host: {host}", "User-Agent: yolastic-worker", "Accept: image/*",
        "Accept-Encoding: identity", "Connection: close", "", "",
    )  # fmt: skip
    return "\r\n".join(lines).encode("ascii")


def _failed(why: str) -> Refusal:
    # 424, not 502 or 504: proxies take those for this worker's own failure, and whoever may send URLs could have it ejected.
    return Refusal(424, "url_failed", f"source: {why}")


def _trust() -> ssl.SSLContext:
    """Whom to trust: the system's bundle, or what SSL_CERT_FILE and SSL_CERT_DIR name."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
