"""A known runtime is known until the server says that it is gone."""

import asyncio
import time
from typing import Any, cast

import pytest

from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.cluster import runtimes as module
from yolastic_operator.cluster.api import ApiError, KubernetesApi
from yolastic_operator.cluster.runtimes import LOOK_AGAIN_S, MISSING_FOR_S, REPLACED_IN_S, Runtimes


class UnsureApi:
    """A server that does not say whether the runtime is there, or says no after another one was made."""

    def __init__(self, fault: str, known: dict[str, Any]) -> None:
        self.fault, self.known, self.asked = fault, known, 0

    async def get(self, path: str) -> None:
        self.asked += 1
        match self.fault:
            case "refuses":
                raise ApiError("get: 503", 503)
            case "hangs":
                await asyncio.sleep(60)
        self.known["fast"] = {"spec": {"image": "worker:2"}}


@pytest.mark.parametrize("fault", ["refuses", "hangs", "is late"])
def test_a_runtime_is_known_until_the_server_says_that_it_is_gone(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_LIMIT_S", 0.2)
    now_s, known = 1000.0, {"fast": {"spec": {"image": "worker:1"}}}
    api = UnsureApi(fault, known)
    runtimes = Runtimes(cast(KubernetesApi, api), known, lambda: now_s)

    async def scenario() -> None:
        nonlocal now_s
        before_s = time.monotonic()
        for _ in range(35):
            found = await runtimes.get("fast")
            assert found == RuntimeSpec(image="worker:2" if fault == "is late" and api.asked else "worker:1")
            now_s += 5
        assert time.monotonic() - before_s < 5, "a turn is late, and not by much"
        assert api.asked == (1 if fault == "is late" else 2), "who did not say is asked again a minute later"

    asyncio.run(scenario())


class NoRuntimes:
    def __init__(self) -> None:
        self.asked = 0

    async def get(self, path: str) -> None:
        self.asked += 1


def test_a_runtime_that_the_server_has_no_more_is_gone_at_once_and_is_asked_for_once_a_minute() -> None:
    now_s, known = 1000.0, {"fast": {"spec": {"image": "worker:1"}}}
    api = NoRuntimes()
    runtimes = Runtimes(cast(KubernetesApi, api), known, lambda: now_s)

    async def scenario() -> None:
        nonlocal now_s
        assert await runtimes.get("fast") is not None
        now_s += LOOK_AGAIN_S
        assert await runtimes.get("fast") is None, "it may have gone long ago: nobody is about to replace it"
        assert api.asked == 1
        for _ in range(30):
            now_s += 5
            assert await runtimes.get("fast") is None
        assert api.asked == 1 + 150 // MISSING_FOR_S

    asyncio.run(scenario())


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_runtime_that_is_made_anew_was_never_away(comes_back: bool) -> None:
    now_s, known = 1000.0, {"fast": {"spec": {"image": "worker:1"}}}
    runtimes = Runtimes(cast(KubernetesApi, NoRuntimes()), known, lambda: now_s)

    async def scenario() -> None:
        nonlocal now_s
        assert await runtimes.get("other") is None
        for _ in range(2):  # the second time as the first
            assert await runtimes.get("fast") == RuntimeSpec(image="worker:1")
            del known["fast"]  # the watch told of it
            assert await runtimes.get("fast") == RuntimeSpec(image="worker:1")
            now_s += REPLACED_IN_S - 1
            assert await runtimes.get("fast") == RuntimeSpec(image="worker:1")
            if comes_back:
                known["fast"] = {"spec": {"image": "worker:2"}}
                now_s += 2
                assert await runtimes.get("fast") == RuntimeSpec(image="worker:2")
            else:
                now_s += 2
                assert await runtimes.get("fast") is None
                assert not runtimes._last
            known["fast"] = {"spec": {"image": "worker:1"}}

    asyncio.run(scenario())
