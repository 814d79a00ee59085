"""Between the operator and the API server: answers with faults, delays, cuts and freezes watches, tells of every request."""

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import web

HOP = {"host", "content-length", "transfer-encoding", "connection", "content-encoding", "accept-encoding"}
GONE = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410, "message": "too old"}


class Proxy:
    """A reverse proxy in a thread of its own. Its fields are set by the test at any time."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self.fault: Callable[[str, str], int | None] = lambda method, path: None
        """Status to answer instead of the server's, by method and path with query; None: pass it on."""
        self.delay_s = 0.0
        self.frozen: str | None = None
        """What watches of paths with this in them are sent does not arrive; nothing is closed."""
        self.before: Callable[[str, str], None] = lambda method, path: None
        """Called with method and path of a request before the server sees it."""
        self.after: Callable[[str, str], None] = lambda method, path: None
        """The same when the server has answered and the operator does not know yet."""
        self._watches: set[asyncio.Queue[bytes | None]] = set()
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        assert self._up.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        """End all watches, without a word."""
        self._call(self._each(None))

    def gone(self) -> None:
        """Tell all watches that the server has forgotten where they were."""
        self.tell(GONE)

    def tell(self, status: dict[str, Any]) -> None:
        """Send all watches this Status as an error."""
        self._call(self._each(json.dumps({"type": "ERROR", "object": status}, separators=(",", ":")).encode() + b"\n"))

    def stop(self) -> None:
        """Nobody listens any more."""
        self._call(self._each(None))
        self._call(self._site.stop())

    def start(self) -> None:
        """Listen again, at the same address."""
        self._call(self._listen())

    async def _each(self, line: bytes | None) -> None:
        for queue in self._watches:
            queue.put_nowait(line)

    async def _end(self) -> None:
        await self._each(None)
        await self._runner.cleanup()
        await self._session.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._begin())
        self._loop.run_forever()

    async def _begin(self) -> None:
        self.port = 0
        self._session = aiohttp.ClientSession(auto_decompress=False)
        application = web.Application(client_max_size=1 << 24)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await self._listen()
        self._up.set()

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await self._site.start()
        self.port = self._site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.url = f"http://127.0.0.1:{self.port}"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        method, path = request.method, request.path_qs
        self.before(method, path)
        await asyncio.sleep(self.delay_s)
        status = self.fault(method, path)
        if status is not None:
            body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": f"fault {status}"}
            return web.json_response(body, status=status, headers={"Retry-After": "1"} if status == 429 else {})
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        asked = self._session.request(
            method, self._upstream + path, data=await request.read() or None, headers=headers, ssl=False,
            skip_auto_headers=["Content-Type"], timeout=aiohttp.ClientTimeout(total=None),
        )  # fmt: skip
        async with asked as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP}
            if re.search(r"[?&]watch=true", path) is None:
                body = await answer.read()
                self.after(method, path)
                return web.Response(status=answer.status, headers=kept, body=body)
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            await self._stream(path, answer, response)
            return response

    async def _stream(self, path: str, answer: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
        lines: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def read() -> None:
            with contextlib.suppress(aiohttp.ClientError, OSError):  # the server is gone: the connection ends here, too
                async for part in answer.content.iter_any():
                    lines.put_nowait(part)
            lines.put_nowait(None)

        self._watches.add(lines)
        reader = asyncio.create_task(read())
        try:
            while (line := await lines.get()) is not None:
                if self.frozen is None or self.frozen not in path:
                    await response.write(line)
        except (OSError, aiohttp.ClientError):
            pass
        finally:
            self._watches.discard(lines)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
