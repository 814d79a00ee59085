"""Runtimes as the watch showed them, and what to ask the server for because a watch may not tell of it."""

import asyncio
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

from pydantic import ValidationError

from yolastic_contract import names
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.cluster.api import ApiError, KubernetesApi
from yolastic_operator.cluster.base import RefusedError
from yolastic_operator.refusal import describe

MISSING_FOR_S: Final = 60.0
"""A runtime that is not there is asked for again after this long, should the watch not tell; seconds."""
LOOK_AGAIN_S: Final = 110.0
"""A runtime that is known is asked for again after this long: of one that went while the watch was cut nothing tells. A little
less than two minutes, so that after the turn that follows it is within them; seconds."""
LOOK_LIMIT_S: Final = 2.0
"""The longest that this may hold up a turn, seconds."""
REPLACED_IN_S: Final = 15.0
"""A runtime that was deleted counts for so long, because it may be about to be made anew: `kubectl replace --force` does that,
and the first upgrade of the chart. Without that every inference would be not Ready for a moment; seconds."""
_PATH: Final = f"/apis/{names.API_VERSION}/{names.RUNTIME_PLURAL}"


class Runtimes:
    """All runtimes of the cluster."""

    def __init__(self, api: KubernetesApi, known: MutableMapping[str, Mapping[str, Any]], monotonic: Callable[[], float]) -> None:
        """`known` holds them by name as objects; the watch writes to it as well."""
        self._api = api
        self._known = known
        self._monotonic = monotonic
        self._missing: dict[str, float] = {}
        """Runtimes that were asked for, with the time from which to ask again."""
        self._looks: dict[str, float] = {}
        """The same of those that are known."""
        self._last: dict[str, tuple[Mapping[str, Any], float | None]] = {}
        """Runtimes as they were last, with the time from which they count as gone; None: they are there."""

    async def get(self, name: str) -> RuntimeSpec | None:
        """The runtime of that name, or None.

        Raises:
            RefusedError: this version cannot read it.
            ApiError: the server did not tell.
        """
        body = self._known.get(name)
        if body is not None:
            await self._look_again(name, body)
            body = self._known.get(name)
        if body is None and self._monotonic() >= self._missing.get(name, 0.0):
            # Only right after the start: from then on the watch tells, and asking now and then is enough.
            body = await self._api.get(f"{_PATH}/{name}")
            if body is None:
                self._missing[name] = self._monotonic() + MISSING_FOR_S
        body = self._remembered(name, body)
        if body is None:
            return None
        try:
            return RuntimeSpec.model_validate(body.get("spec", {}))
        except ValidationError as error:
            raise RefusedError("RuntimeInvalid", f"YoloRuntime {name}: {describe(error)}") from error

    def _remembered(self, name: str, body: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The runtime as it is, or for a moment as it was."""
        if body is not None:
            self._last[name] = body, None
            return body
        last, gone_s = self._last.get(name, (None, None))
        if last is None:
            return None
        now_s = self._monotonic()
        gone_s = now_s + REPLACED_IN_S if gone_s is None else gone_s
        if now_s >= gone_s:
            del self._last[name]
            return None
        self._last[name] = last, gone_s
        return last

    async def _look_again(self, name: str, known: Mapping[str, Any]) -> None:
        """Drop a known runtime that the server has no more; without an answer it stays."""
        now_s = self._monotonic()
        if now_s < self._looks.setdefault(name, now_s + LOOK_AGAIN_S):
            return
        self._looks[name] = now_s + LOOK_AGAIN_S  # before the answer: the other inferences' turns do not ask as well
        try:
            async with asyncio.timeout(LOOK_LIMIT_S):
                live = await self._api.get(f"{_PATH}/{name}")
        except (ApiError, TimeoutError):
            self._looks[name] = now_s + MISSING_FOR_S
            return
        if live is None and self._known.get(name) is known:  # else the watch told of another one meanwhile
            del self._known[name], self._looks[name]
            self._last.pop(name, None)  # it may have gone long ago
            self._missing[name] = self._monotonic() + MISSING_FOR_S
