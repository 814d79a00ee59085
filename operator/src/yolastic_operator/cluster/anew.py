"""What would end kopf makes it list anew: between kopf and the API server.

kopf tries again after a lost connection and after 403, 429 and 5xx. Any other refusal of a list or a watch ends its process, and
so does any error within a watch but 410 (kopf 1.45, `_cogs/clients/watching.py`): pages of a list that the server has forgotten,
a proxy that answers 400 or 408, a server that sends an internal error down a watch. Here a refused list becomes an answer that
broke off, and a watch that was refused or failed one that was told 410. After either kopf lists everything and goes on.

Its only patch is that of a finalizer. Every 422 to that it takes for an object that has changed meanwhile, and waits for the
event of it; a 400 it gives up. When a policy or a webhook refused it, no event comes: that becomes a 503, which it tries again.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any, Final, cast

import aiohttp

_LOG = logging.getLogger(__name__)

PAUSE_S: Final = 1.0
"""Before what failed begins anew, seconds."""
CONFLICT: Final = "the server rejected our request due to an error in our request"
"""A patch whose test failed, and no more: the object has changed, and kopf is right to wait for the event."""
_KOPFS: Final = frozenset({401, 403, 429})
"""Refusals that kopf knows what to do about."""
_ERROR: Final = b'{"type":"ERROR"'
_GONE: Final = json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410}}).encode() + b"\n"


async def anew(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send a request of kopf's; this is a middleware of its session.

    Raises:
        ClientPayloadError: a list was refused.
    """
    response = await send(request)
    if request.method == "PATCH":
        return await _again(request, response)
    is_watch, is_list = "watch" in request.url.query, "limit" in request.url.query  # a discovery is neither
    if not (is_watch or is_list):
        return response
    is_refused = 400 <= response.status < 500 and response.status not in _KOPFS
    what = f"{'watch' if is_watch else 'list'} of {request.url.path}"
    if is_refused:
        _LOG.warning("%s: answered %d; begins anew", what, response.status)
        response.release()
        await asyncio.sleep(PAUSE_S)
        if is_list:
            raise aiohttp.ClientPayloadError(f"{what}: answered {response.status}")
        response.status = 200
    if is_watch and response.status == 200:
        response.content = cast(aiohttp.StreamReader, _Lines(response.content, what, is_refused=is_refused))
    return response


async def _again(request: aiohttp.ClientRequest, response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
    if response.status in {400, 422}:
        said = await response.text()
        if CONFLICT not in said:
            _LOG.warning("patch of %s: answered %d; tried again: %s", request.url.path, response.status, said[:500])
            response.status = 503
    return response


class _Lines:
    """The lines of a watch, an error as one after which kopf lists anew; if it was refused, that error alone."""

    def __init__(self, stream: aiohttp.StreamReader, what: str, *, is_refused: bool) -> None:
        self._stream = stream
        self._what = what
        self._is_refused = is_refused

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)  # the response ends its stream when it is closed

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Whole lines, one or several at once, bytes; of one that broke off the server tells again."""
        if self._is_refused:
            yield _GONE
            return
        rest = b""
        async for part in self._stream.iter_chunked(size):
            whole, newline, rest = (rest + part).rpartition(b"\n")
            if _ERROR in whole:
                for line in whole.split(b"\n"):
                    yield await self._told(line) if line.startswith(_ERROR) else line + newline
            elif newline:
                yield whole + newline

    async def _told(self, line: bytes) -> bytes:
        if b'"code":410' not in line:
            _LOG.warning("%s: %s; begins anew", self._what, line.decode(errors="replace")[:500])
            await asyncio.sleep(PAUSE_S)
        return _GONE
