"""A client of the workers' control ports: state in; ceilings, drain and rebalance out."""

import json
import math
from typing import Any, Final, NoReturn

import aiohttp
from pydantic import ValidationError

from yolastic_contract.state import CeilingGrant, WorkerState
from yolastic_operator.cluster.base import WorkerError

MAX_ANSWER_BYTES: Final = 1 << 20
"""A state is a few kilobytes; whatever is much larger is not one."""
MAX_INTEGER: Final = 2**63


class ControlClient:
    """Talks to control ports; every call ends within `timeout_s` seconds.

    All methods raise WorkerError with a sentence that names the address when a worker does not answer in time,
    answers anything but 200, or answers what the contract does not allow.
    """

    def __init__(self, session: aiohttp.ClientSession, timeout_s: float = 2.0) -> None:
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._timeout_s = timeout_s

    async def state(self, base_url: str) -> WorkerState:
        """`GET /state` of the worker whose control port is at `base_url`, such as `http://10.0.0.7:9000`."""
        body = await self._request("GET", f"{base_url}/state", None, None)
        return parse_state(body, base_url)

    async def grant(self, base_url: str, token: str, grant: CeilingGrant) -> None:
        """`PUT /ceiling`."""
        await self._request("PUT", f"{base_url}/ceiling", token, grant.model_dump(mode="json", exclude_none=True))

    async def drain(self, base_url: str, token: str) -> None:
        """`POST /drain`."""
        await self._request("POST", f"{base_url}/drain", token, None)

    async def rebalance(self, base_url: str, token: str) -> None:
        """`POST /rebalance`."""
        await self._request("POST", f"{base_url}/rebalance", token, None)

    async def _request(self, method: str, url: str, token: str | None, payload: dict[str, Any] | None) -> bytes:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        try:
            # A control port never redirects: following one would carry the token to somebody else.
            async with self._session.request(
                method, url, json=payload, headers=headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                body = await _read_at_most(response.content, MAX_ANSWER_BYTES)
                status = response.status
        except TimeoutError as error:
            raise WorkerError(f"{method} {url}: no answer within {self._timeout_s:g} s") from error
        except aiohttp.ClientResponseError as error:
            # Its text is what came, escaped and cut: it may hold a part of the token.
            raise WorkerError(f"{method} {url}: what answers does not speak HTTP") from error
        except OSError as error:  # the network's words, not the other side's
            raise WorkerError(f"{method} {url}: {_sentence(error)}") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise WorkerError(f"{method} {url}: {_without(token, _sentence(error))}") from error
        if body is None:
            raise WorkerError(f"{method} {url}: the answer is longer than {MAX_ANSWER_BYTES} bytes")
        if status != 200:
            raise WorkerError(f"{method} {url}: status {status}{_excerpt(body, token)}", status)
        return body


def parse_state(body: bytes, source: str) -> WorkerState:
    """A worker's state from its JSON.

    Raises:
        WorkerError: it is no JSON, holds a number that is not finite, or is not a WorkerState; `source` is named.
    """
    try:
        data = json.loads(body, parse_constant=_refuse_constant)
        _check_finite(data, "")
        return WorkerState.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the answer"
        raise WorkerError(f"{source}/state: {field}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise WorkerError(f"{source}/state: not the JSON of a state: {_sentence(error)}") from error


async def _read_at_most(content: aiohttp.StreamReader, limit_bytes: int) -> bytes | None:
    parts: list[bytes] = []
    size_bytes = 0
    async for part in content.iter_any():
        size_bytes += len(part)
        if size_bytes > limit_bytes:
            return None
        parts.append(part)
    return b"".join(parts)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _check_finite(value: object, path: str) -> None:
    # 1e999 is valid JSON and reads as infinity; json's parse_constant does not see it.
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path} is not a finite number")
    # So is a whole number of four hundred digits, which no float holds: the first sum with it would fail.
    if isinstance(value, int) and abs(value) >= MAX_INTEGER:
        raise ValueError(f"{path} is out of range")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_finite(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_finite(item, f"{path}[{index}]")


def _excerpt(body: bytes, token: str | None) -> str:
    # First without the token, then cut: the other way round a part of it would stay.
    text = " ".join(_without(token, body.decode("utf-8", "replace"))[:200].split())
    return f": {text}" if text else ""


def _without(token: str | None, text: str) -> str:
    """The text for a log: whoever answers may repeat what it was sent."""
    return text.replace(token, "***") if token else text


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
