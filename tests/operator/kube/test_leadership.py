"""Who may take the Lease, and that two never hold it, whatever fails and however the clocks differ."""

import asyncio
import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scene import free_port

from yolastic_operator import standby
from yolastic_operator.cluster import leadership
from yolastic_operator.cluster.api import ApiError
from yolastic_operator.cluster.leadership import DURATION_S, Leadership, step


def lease(holder: str, duration_s: int | None = DURATION_S) -> dict[str, Any]:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": duration_s, "leaseTransitions": 4, "acquireTime": "then"}
    return {"metadata": {"resourceVersion": "7"}, "spec": spec}


@pytest.mark.parametrize(
    ("seen", "unchanged_s", "transitions"),
    [
        (None, 0.0, 0),
        (lease(""), 0.0, 5),  # let go of
        (lease("me"), 0.0, 4),  # renewed, or of the process before in the same pod
        (lease("other"), 14.9, None),
        (lease("other"), 15.0, 5),
        (lease("other", 60), 59.0, None),  # it is good for as long as its holder says
        (lease("other", None), 14.9, None),
        (lease("other", None), 15.0, 5),
        ({"metadata": {"resourceVersion": "7"}}, 0.0, 1),
    ],
)
def test_who_may_write_it(seen: dict[str, Any] | None, unchanged_s: float, transitions: int | None) -> None:
    before = copy.deepcopy(seen)
    following = step(seen, "me", unchanged_s, 0.0)
    assert seen == before
    if transitions is None:
        assert (following.write, following.holder) == (None, "other")
        return
    assert following.write is not None
    spec = following.write["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("me", 15, transitions)
    assert spec["renewTime"] == "1970-01-01T00:00:00.000000Z"
    assert spec["acquireTime"] == ("then" if transitions == 4 else spec["renewTime"])
    assert following.write.get("metadata") == (seen or {}).get("metadata")


class Server:
    """One lease, with the precondition of a real API server. `fails` may refuse a request before or after it is carried out."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.fails: str | None = None

    async def get(self, path: str) -> dict[str, Any] | None:
        self._fail("before")
        return copy.deepcopy(self.lease)

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._write(body, self.lease is None)

    async def replace(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        held = self.lease is not None and body["metadata"]["resourceVersion"] == self.lease["metadata"]["resourceVersion"]
        return self._write(body, held)

    def _write(self, body: dict[str, Any], is_current: bool) -> dict[str, Any]:
        if not is_current:
            raise ApiError("conflict", 409)
        self.version += 1
        self.lease = copy.deepcopy(body) | {"metadata": {"resourceVersion": str(self.version)}}
        self._fail("after")
        return self.lease

    def _fail(self, moment: str) -> None:
        if self.fails == moment:
            raise ApiError("no answer", 0)


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([0.0, 1.0, 3.0, 7.0, 16.0]), st.sampled_from([None, None, "before", "after"])),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_two_never_act(steps: list[tuple[int, float, str | None]]) -> None:
    server: Any = Server()
    now_s = 0.0
    three = [
        Leadership(server, "ns", "l", name, lambda *_: None, monotonic=lambda: now_s, wall=lambda n=n: 1e6 * n)  # type: ignore[misc]
        for n, name in enumerate("abc")
    ]
    for who, later_s, server.fails in steps:
        now_s += later_s
        with contextlib.suppress(ApiError):
            asyncio.run(three[who]._attempt())
        assert sum(each.holds() for each in three) <= 1


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_lease_that_may_not_be_read_is_told_instead_of_waited_for(code: int) -> None:
    class Refusing(Server):
        async def get(self, path: str) -> dict[str, Any] | None:
            raise ApiError(f"get {path}: {code}", code)

    server: Any = Refusing()
    with pytest.raises(ApiError, match=str(code)):
        asyncio.run(Leadership(server, "ns", "l", "me", lambda *_: None).acquire())


def test_whatever_ends_the_keeping_of_the_lease_ends_the_operator_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nonsense(Server):
        async def get(self, path: str) -> dict[str, Any] | None:
            return await super().get(path) and {"spec": {"holderIdentity": "other"}}

    async def scenario() -> None:
        keeper: Any = Leadership(server, "ns", "l", "me", lambda *_: None)
        stop = asyncio.Event()
        async with asyncio.timeout(10):
            await standby.alone(keeper, free_port(), stop, operate=stop.wait)

    monkeypatch.setattr(leadership, "RENEW_S", 0.0)
    server: Any = Nonsense()
    with pytest.raises(KeyError):
        asyncio.run(scenario())


def test_a_server_that_does_not_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership, "TRY_S", 0.0)
    server: Any = Server()
    server.fails = "before"
    told: list[tuple[str, bool]] = []

    def tell(holder: str, mine: bool) -> None:
        told.append((holder, mine))
        server.fails = None

    asyncio.run(Leadership(server, "ns", "l", "me", tell).acquire())
    assert told == [("", False), ("me", True)]
