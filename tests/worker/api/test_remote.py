"""Images by URL: a real TLS server on loopback, and every way in which a URL, a name, an address or an answer can be bad.

Two seams stand for the world: a resolver that says what a name server would, and the word that 127.0.0.1 counts as global.
"""

import asyncio
import contextlib
import itertools
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from yolastic_worker.api.http import ClientGone, Refusal
from yolastic_worker.api.remote import MAX_URLS, Remote, RemoteLimits, Url
from yolastic_worker.api.url_rules import parse_hosts

T = TypeVar("T")
TLS = Path(__file__).resolve().parents[1] / "data/tls"
HOST = "images.example.test"
IMAGE = bytes(range(256)) * 400
OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(IMAGE)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def _trusts_the_test_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an admin lets workers trust a private authority; a proxy in the environment must not matter."""
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "authority.pem"))
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def run(main: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(30):
            return await main

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(bounded())


def answers(*parts: bytes, close: bool = True) -> Serve:
    """A server that says this, whatever it is asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            if not close:
                await reader.read()

    return serve


class Server:
    """Listens on loopback; counts who comes."""

    def __init__(self, serve: Serve, certificate: str | None = "good.pem") -> None:
        self._serve, self._certificate = serve, certificate
        self.connections = 0
        self.port = 0

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._serve(reader, writer)
        writer.transport.abort() if writer.transport.is_closing() else writer.close()

    async def __aenter__(self) -> "Server":
        context = None
        if self._certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(TLS / self._certificate)
        self._server = await asyncio.start_server(self._one, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.sleep(0)


class Names:
    """A resolver that answers from a list, one entry a question; the last goes on."""

    def __init__(self, *entries: Sequence[str] | OSError) -> None:
        self._entries = list(entries)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        entry = self._entries.pop(0) if len(self._entries) > 1 else self._entries[0]
        if isinstance(entry, OSError):
            raise entry
        return entry


class Client:
    """A worker's side: collects files for one request."""

    def __init__(self, port: int, names: Names | None = None, *, limit_bytes: int = 1 << 20, timeout_s: float = 10.0) -> None:
        self.names = names or Names(["127.0.0.1"])
        self.held_bytes = 0
        self.leave: Callable[[], None] | None = None
        self.remote = Remote(
            parse_hosts(f"{HOST}:{port},*.cdn.example.test:{port}"),
            RemoteLimits(limit_bytes, timeout_s),
            resolve=self.names,
            is_allowed_address=lambda address: address == "127.0.0.1",
        )

    def _hold(self, size: int) -> None:
        self.held_bytes += size

    def _watch(self, leave: Callable[[], None] | None) -> None:
        self.leave = leave

    async def get(self, *files: bytes | str, patience_s: float = 20.0) -> list[bytes]:
        wanted = [Url(file) if isinstance(file, str) else file for file in files]
        return await self.remote.collect(wanted, time.monotonic() + patience_s, self._hold, self._watch)


async def fetch(serve: Serve, *, certificate: str | None = "good.pem", **options: Any) -> bytes:
    async with Server(serve, certificate) as server:
        (image,) = await Client(server.port, **options).get(f"https://{HOST}:{server.port}/a.jpg?b=c")
        return image


def refusal_of(main: Coroutine[Any, Any, Any]) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        run(main)
    assert HOST not in refusal.value.message
    assert "127.0.0.1" not in refusal.value.message
    return refusal.value


# --- what works


def chunked(data: bytes, size: int) -> bytes:
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nX-Trailer: 1\r\n\r\n"


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        (OK + LENGTH + IMAGE,),
        (OK + b"Content-Encoding: identity\r\n" + LENGTH + IMAGE,),
        (b"HTTP/1.0 200 OK\r\n" + LENGTH + IMAGE,),
        (CHUNKED, chunked(IMAGE, 1000)),
        (CHUNKED, chunked(IMAGE, 100_000)),
        (b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", OK + LENGTH, IMAGE[:5], IMAGE[5:]),
        (OK + LENGTH + IMAGE + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",),
        (OK + LENGTH + IMAGE + b"rubbish",),
    ],
    ids=["length", "identity", "1.0", "chunks", "one chunk", "hints", "a second answer", "rubbish behind"],
)
def test_an_image_arrives_whole(parts: tuple[bytes, ...]) -> None:
    assert run(fetch(answers(*parts))) == IMAGE


def test_what_is_asked_of_the_server() -> None:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        ssl_object = writer.get_extra_info("ssl_object")
        heard.append(ssl_object.version().encode())
        writer.write(OK + LENGTH + IMAGE)

    run(fetch(serve))
    first, *headers = heard[0].decode().split("\r\n")
    assert first == "GET /a.jpg?b=c HTTP/1.1"
    assert headers[0].startswith(f"Host: {HOST}:")
    assert "Accept-Encoding: identity" in headers
    assert "Connection: close" in headers
    assert not any(name in heard[0].lower() for name in (b"authorization", b"cookie", b"referer"))
    assert heard[1] in (b"TLSv1.2", b"TLSv1.3")


def test_files_and_urls_come_in_their_order_and_are_counted() -> None:
    async def main() -> None:
        async with Server(answers(OK + LENGTH + IMAGE)) as server:
            client = Client(server.port)
            url = f"https://{HOST}:{server.port}/"
            assert await client.get(b"first", url, b"third", url) == [b"first", IMAGE, b"third", IMAGE]
            assert client.held_bytes == 2 * len(IMAGE)
            assert client.leave is None
            assert await client.get(b"alone") == [b"alone"]
            sub = f"https://eu.cdn.example.test:{server.port}/"
            with pytest.raises(Refusal, match="certificate"):
                await client.get(sub)

    run(main())


def test_an_address_that_leads_nowhere_is_passed_over() -> None:
    async def main() -> None:
        async with Server(answers(OK + LENGTH + IMAGE)) as server:
            client = Client(server.port, Names(["127.0.0.2", "127.0.0.1"]))
            client.remote._is_allowed_address = lambda address: True
            assert await client.get(f"https://{HOST}:{server.port}/") == [IMAGE]

    run(main())


# --- the matrix: URLs and what their names resolve to


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        (f"http://{HOST}:PORT/", 422, "bad_url"),
        (f"https://user:secret@{HOST}:PORT/", 422, "bad_url"),
        (f"https://{HOST}:PORT@evil.example/", 422, "bad_url"),
        (f"https://{HOST}:PORT/#x", 422, "bad_url"),
        (f"https://{HOST}:PORT\\@evil.example/", 422, "bad_url"),
        ("https://127.0.0.1:PORT/", 422, "bad_url"),
        ("https://[::ffff:127.0.0.1]:PORT/", 422, "bad_url"),
        ("https://2130706433:PORT/", 422, "bad_url"),
        ("https://0x7f.0.0.1:PORT/", 422, "bad_url"),
        ("https://localhost:PORT/", 422, "bad_url"),
        ("https://169.254.169.254/latest/meta-data/", 422, "bad_url"),
        ("https://metadata.google.internal/", 403, "host_not_allowed"),
        ("https://kubernetes.default.svc/", 403, "host_not_allowed"),
        (f"https://{HOST}/", 403, "host_not_allowed"),
        (f"https://{HOST}:1/", 403, "host_not_allowed"),
        (f"https://{HOST}.evil.example:PORT/", 403, "host_not_allowed"),
        (f"https://evil-{HOST}:PORT/", 403, "host_not_allowed"),
        ("https://cdn.example.test:PORT/", 403, "host_not_allowed"),
    ],
)
def test_a_url_that_is_refused_is_not_even_resolved(url: str, status: int, code: str) -> None:
    async def main() -> None:
        async with Server(answers(OK + LENGTH + IMAGE)) as server:
            client = Client(server.port)
            try:
                await client.get(url.replace("PORT", str(server.port)))
            finally:
                assert client.names.asked == []
                assert server.connections == 0

    refusal = refusal_of(main())
    assert (refusal.status, refusal.code) == (status, code)
    assert "secret" not in refusal.message


INSIDE = [
    ["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"], ["100.64.0.1"], ["0.0.0.0"], ["224.0.1.1"], ["::1"], ["::ffff:127.0.0.1"],
    ["::ffff:8.8.8.8"], ["64:ff9b::7f00:1"], ["2002:7f00:1::1"], ["2001:0:7f00:1::"], ["fe80::1"], ["fd00:ec2::254"], ["ff0e::1"],
    ["8.8.8.8", "127.0.0.1"], ["2606:4700::1111", "10.0.0.1"], ["8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "192.168.0.1"],
]  # fmt: skip


@pytest.mark.parametrize("addresses", INSIDE, ids="+".join)
def test_a_name_with_an_address_inside_is_not_connected_to(addresses: list[str]) -> None:
    """With the real rule for addresses: one that is not global spoils all, and nobody is connected to."""

    async def main() -> None:
        async with Server(answers(OK + LENGTH + IMAGE)) as server:
            names = Names(addresses)
            remote = Remote(parse_hosts(f"{HOST}:{server.port}"), RemoteLimits(1 << 20, 5.0), resolve=names)
            try:
                wanted = [Url(f"https://{HOST}:{server.port}/")]
                await remote.collect(wanted, time.monotonic() + 5, lambda size: None, lambda leave: None)
            finally:
                assert names.asked == [(HOST, server.port)]
                assert server.connections == 0

    refusal = refusal_of(main())
    assert (refusal.status, refusal.code) == (403, "address_not_allowed")


def test_rebinding_a_name_changes_nothing() -> None:
    """The name is looked up once; what was checked is what is connected to, whatever the name says a moment later."""

    async def main() -> None:
        async with Server(answers(OK + LENGTH + IMAGE)) as good, Server(answers(OK + LENGTH + b"x" * len(IMAGE))) as inside:
            # To the second question it would say the address inside; there is none.
            names = Names(["127.0.0.1"], ["127.0.0.3"])
            client = Client(good.port, names)
            assert await client.get(f"https://{HOST}:{good.port}/") == [IMAGE]
            assert names.asked == [(HOST, good.port)]
            # The next request asks anew, and is refused.
            with pytest.raises(Refusal) as refusal:
                await client.get(f"https://{HOST}:{good.port}/")
            assert refusal.value.code == "address_not_allowed"
            assert (good.connections, inside.connections) == (1, 0)

    run(main())


@pytest.mark.parametrize(
    "entry", [socket.gaierror(socket.EAI_NONAME, "unknown"), [], OSError("no network")], ids=["unknown", "none", "no network"]
)
def test_a_name_without_an_address(entry: Any) -> None:
    refusal = refusal_of(fetch(answers(), names=Names(entry)))
    assert (refusal.status, refusal.code) == (424, "url_failed")


def test_by_default_no_url_is_fetched() -> None:
    remote = Remote(None, RemoteLimits(1 << 20, 5.0))
    refusal = refusal_of(
        remote.collect([b"a", Url(f"https://{HOST}/")], time.monotonic() + 5, lambda size: None, lambda leave: None)
    )
    assert (refusal.status, refusal.code) == (403, "url_input_off")


def test_more_urls_than_a_request_may_name() -> None:
    async def main() -> None:
        await Client(443).get(*[f"https://{HOST}/"] * (MAX_URLS + 1))

    assert refusal_of(main()).code == "too_many_urls"


# --- who answers


@pytest.mark.parametrize("certificate", ["other-name.pem", "unknown-authority.pem"])
def test_a_certificate_that_is_not_good_for_the_name(certificate: str) -> None:
    refusal = refusal_of(fetch(answers(OK + LENGTH + IMAGE), certificate=certificate))
    assert (refusal.status, refusal.code) == (424, "url_failed")
    assert "certificate" in refusal.message


def test_a_server_without_tls() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(OK + LENGTH + IMAGE)
        await writer.drain()

    assert refusal_of(fetch(serve, certificate=None)).code == "url_failed"


def test_nobody_listens() -> None:
    async def main() -> None:
        async with Server(answers()) as server:
            port = server.port
        await Client(port).get(f"https://{HOST}:{port}/")

    assert "cannot be reached" in refusal_of(main()).message


# --- what it answers

BAD_ANSWERS = {
    "moved": (b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1/\r\nContent-Length: 0\r\n\r\n", "redirects are not followed"),
    "moved to itself": (b"HTTP/1.1 308 Moved\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n", "redirects are not followed"),
    "not there": (b"HTTP/1.1 404 Not Found\r\n" + LENGTH + IMAGE, "answered 404"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", "answered 204"),
    "a part": (b"HTTP/1.1 206 Partial Content\r\n" + LENGTH + IMAGE, "answered 206"),
    "another protocol": (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "speak HTTP"),
    "compressed": (OK + b"Content-Encoding: gzip\r\n" + LENGTH + IMAGE, "compressed"),
    "compressed in transfer": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + chunked(IMAGE, 999), "how long"),
    "no length": (OK + b"\r\n" + IMAGE, "how long"),
    "two lengths": (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", ""),
    "length and chunks": (OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n", ""),
    "a length that is none": (OK + b"Content-Length: -5\r\n\r\nabcde", ""),
    "a cut body": (OK + LENGTH + IMAGE[:-1], "before the end"),
    "a cut chunk": (CHUNKED + b"ff\r\nabc", "before the end"),
    "a bad chunk": (CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n", "speak HTTP"),
    "nothing": (b"", "before the end"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n", "speak HTTP"),
    "an old protocol": (b"ICY 200 OK\r\n\r\n", "speak HTTP"),
    "a broken header": (OK + b"Content-Length : 5\r\n\r\nabcde", ""),
    "endless headers": (OK + b"X: y\r\n" * 40_000, "not the image"),
    "one endless header": (OK + b"X: " + b"y" * 400_000, "not the image"),
    "endless hints": (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 8_000, "not the image"),
    "endless trailers": (CHUNKED + b"1\r\na\r\n0\r\n" + b"X: y\r\n" * 40_000, "not the image"),
    "tiny chunks": (CHUNKED + b"1\r\na\r\n" * 40_000, "not the image"),
    "long chunk extensions": (CHUNKED + b"1;" + b"x" * 200_000, "not the image"),
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_an_answer_that_is_not_a_whole_plain_image(case: str) -> None:
    answer, told = BAD_ANSWERS[case]
    refusal = refusal_of(fetch(answers(answer)))
    assert (refusal.status, refusal.code) == (424, "url_failed")
    assert told in refusal.message


def read(parts: Sequence[bytes]) -> bytes:
    """What the reader makes of an answer that comes in these parts."""

    async def main() -> bytes:
        remote, reader = Remote(None, RemoteLimits(1 << 20, 5.0)), asyncio.StreamReader(limit=1 << 16)
        task = asyncio.create_task(remote._read(reader, lambda size: None))
        for part in parts:
            reader.feed_data(part)
            await asyncio.sleep(0)
        reader.feed_eof()
        return await task

    return run(main())


PIECES = st.sampled_from([
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 301 No\r\n", b"HTTP/9.9 200 OK\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: br\r\n", b"X: y\r\n", b"\r\n", b"\n", b"\r",
    b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\n", b"ffffffffffffffff\r\n", b"\x00", b" ", b":",
])  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=12))
def test_any_answer_is_an_image_or_a_refusal(parts: list[bytes]) -> None:
    with contextlib.suppress(Refusal):
        read(parts)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 400), max_size=20), st.integers(1, 50), st.booleans())
def test_how_an_answer_is_cut_into_packets_does_not_matter(cuts: list[int], chunk: int, in_chunks: bool) -> None:
    image = bytes(range(256))
    whole = CHUNKED + chunked(image, chunk) if in_chunks else OK + b"Content-Length: 256\r\n\r\n" + image
    places = sorted({0, *cuts, len(whole)})
    assert read([whole[start:end] for start, end in itertools.pairwise(places)]) == image


@pytest.mark.parametrize(
    "parts",
    [
        (OK + LENGTH + IMAGE,),
        (OK + LENGTH,),
        (CHUNKED, chunked(IMAGE, 9999)),
        (OK + b"Content-Length: 99999999999999\r\n\r\n",),
    ],
    ids=["length", "only announced", "chunks", "absurd"],
)
def test_too_large(parts: tuple[bytes, ...]) -> None:
    refusal = refusal_of(fetch(answers(*parts, close=False), limit_bytes=len(IMAGE) - 1))
    assert (refusal.status, refusal.code) == (413, "url_too_large")


def test_all_images_of_a_request_share_the_limit() -> None:
    async def main() -> None:
        async with Server(answers(OK + LENGTH + IMAGE)) as server:
            client = Client(server.port, limit_bytes=2 * len(IMAGE))
            url = f"https://{HOST}:{server.port}/"
            assert await client.get(url, url) == [IMAGE, IMAGE]
            for files in ((url, url, url), (b"x", url, url)):
                with pytest.raises(Refusal) as refusal:
                    await client.get(*files)
                assert refusal.value.code == "url_too_large"

    run(main())


# --- how long it takes


async def _slow_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(OK + LENGTH)
    for byte in IMAGE:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize("certificate", ["good.pem", None], ids=["after TLS", "before TLS"])
@pytest.mark.parametrize("serve", [_slow_body, _silent])
@pytest.mark.parametrize(("timeout_s", "patience_s"), [(0.3, 20.0), (20.0, 0.3)], ids=["cap", "patience"])
def test_a_server_that_dawdles(serve: Serve, certificate: str | None, timeout_s: float, patience_s: float) -> None:
    if certificate is None:
        serve = _silent

    async def main() -> None:
        async with Server(serve, certificate) as server:
            client, began_s = Client(server.port, timeout_s=timeout_s), time.monotonic()
            try:
                await client.get(f"https://{HOST}:{server.port}/", patience_s=patience_s)
            finally:
                assert time.monotonic() - began_s < 5

    refusal = refusal_of(main())
    assert (refusal.status, refusal.code) == (424, "url_timeout")


def test_a_resolver_that_dawdles() -> None:
    class Never(Names):
        async def __call__(self, host: str, port: int) -> Sequence[str]:
            await asyncio.Event().wait()
            raise AssertionError

    assert refusal_of(fetch(answers(), names=Never([]), timeout_s=0.1)).code == "url_timeout"


def test_a_client_that_leaves_ends_the_fetch() -> None:
    async def main() -> None:
        gone = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            assert client.leave is not None
            client.leave()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            gone.set()

        async with Server(serve) as server:
            client = Client(server.port)
            with pytest.raises(ClientGone):
                await client.get(f"https://{HOST}:{server.port}/")
            await gone.wait()
            assert client.remote._fetching == 0

    run(main())


def test_a_refusal_ends_the_other_fetches() -> None:
    async def main() -> None:
        async with Server(_silent) as silent:
            client = Client(silent.port)
            with pytest.raises(Refusal) as refusal:
                await client.get(f"https://{HOST}:{silent.port}/", f"https://other.cdn.example.test:{silent.port}/")
            assert "certificate" in refusal.value.message
            assert client.remote._fetching == 0

    run(main())


@contextlib.asynccontextmanager
async def _many(client: Client, url: str, count: int) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(client.get(url)) for _ in range(count)]
    try:
        while client.remote._fetching < count:  # noqa: ASYNC110 - they begin when the loop turns
            await asyncio.sleep(0)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_only_so_many_at_once() -> None:
    async def main() -> None:
        async with Server(_silent) as server:
            client, url = Client(server.port), f"https://{HOST}:{server.port}/"
            async with _many(client, url, 64):
                with pytest.raises(Refusal) as refusal:
                    await client.get(url)
                assert (refusal.value.status, refusal.value.retry_after_s) == (429, 1)
            assert client.remote._fetching == 0

    run(main())
    assert threading.active_count() < 20
