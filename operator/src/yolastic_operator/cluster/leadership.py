"""One operator at a time: a Lease, kept as client-go's leader election keeps it.

Whoever holds it renews it every 5 s. Whoever does not waits until the holder lets go of it, or until it has stood unchanged for
as long as it is good for, by this process's own clock: clocks need not agree. A write names the resourceVersion it rests on.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Any, Final

from yolastic_operator.cluster.api import ApiError, KubernetesApi
from yolastic_operator.cluster.base import ClusterError

DURATION_S: Final = 15
"""An unchanged lease is good for so long, seconds."""
RENEW_S: Final = 5.0
"""Between two renewals, seconds."""
TRY_S: Final = 2.0
"""Between two looks at a lease that another holds, or two attempts to renew one after a failure, seconds."""
ACT_S: Final = 10.0
"""Whoever could not renew for so long does nothing any more, seconds: well before another may take it."""
_API: Final = "coordination.k8s.io/v1"
_HOPELESS: Final = frozenset({401, 403, 404})

Lease = dict[str, Any]


class LeadershipLostError(ClusterError):
    """Another operator holds the lease now."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do about a lease."""

    write: Lease | None
    """The lease to write; None: wait."""
    holder: str
    """Who holds it, if one waits."""


def step(lease: Lease | None, me: str, unchanged_s: float, now_s: float) -> Step:
    """What `me` does about the lease as it was read, unchanged for `unchanged_s` seconds; `now_s` is Unix time. Pure."""
    spec = {} if lease is None else lease.get("spec") or {}
    holder = spec.get("holderIdentity") or ""
    if holder not in {"", me} and unchanged_s < (spec.get("leaseDurationSeconds") or DURATION_S):
        return Step(None, holder)
    renewed = datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    since, transitions = spec.get("acquireTime"), spec.get("leaseTransitions") or 0
    if holder != me:
        since, transitions = renewed, transitions + (lease is not None)
    taken = {"holderIdentity": me, "leaseDurationSeconds": DURATION_S, "leaseTransitions": transitions}
    return Step({**(lease or {}), "spec": taken | {"acquireTime": since or renewed, "renewTime": renewed}}, me)


class Leadership:
    """The lease `name` of `namespace` for the operator `me`.

    `tell(holder, mine)` hears who holds it whenever that changes; no holder: the API server did not say.
    """

    def __init__(
        self,
        api: KubernetesApi,
        namespace: str,
        name: str,
        me: str,
        tell: Callable[[str, bool], None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._folder = f"/apis/{_API}/namespaces/{namespace}/leases"
        self._path = f"{self._folder}/{name}"
        self._identity = {"apiVersion": _API, "kind": "Lease", "metadata": {"name": name, "namespace": namespace}}
        self._me, self._name = me, name
        self._tell = tell
        self._monotonic = monotonic
        self._wall = wall
        self._told: tuple[str, bool] | None = None
        self._seen: tuple[str, float] = ("", 0.0)
        """(resourceVersion, since when it is that one)."""
        self._until_s = -inf

    def holds(self) -> bool:
        """Whether this operator may act now."""
        return self._monotonic() < self._until_s

    async def acquire(self) -> None:
        """Wait until the lease is this operator's. An API server that does not answer is waited for, too.

        Raises:
            ApiError: it may not be read or written, or its namespace is not there.
        """
        while True:
            try:
                if await self._attempt() == self._me:
                    return
            except ApiError as error:
                if error.code in _HOPELESS:
                    raise
                self._note("", mine=False)
            except TimeoutError:
                self._note("", mine=False)
            await asyncio.sleep(TRY_S)

    async def keep(self) -> None:
        """Renew it for ever.

        Raises:
            LeadershipLostError: another operator holds it; from then on `holds` is false. Without an answer of the API server it
                is false, too, after `ACT_S`, and true again as soon as the lease could be renewed.
        """
        pause_s = RENEW_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                holder = await self._attempt()
            except (ApiError, TimeoutError):
                holder = None
            if holder not in {None, self._me}:
                self._until_s = -inf
                raise LeadershipLostError(f"another operator, {holder}, holds the Lease {self._name} now: this one ends")
            pause_s = TRY_S if holder is None else RENEW_S
            if not self.holds():
                self._note("", mine=False)

    async def release(self) -> None:
        """Let go of it, so that the next one need not wait; without an answer it just runs out."""
        self._until_s = -inf
        try:
            lease = await self._api.get(self._path)
            if lease is not None and lease["spec"].get("holderIdentity") == self._me:
                await self._api.replace(self._path, lease | {"spec": lease["spec"] | {"holderIdentity": ""}})
        except ApiError:
            pass

    async def _attempt(self) -> str | None:
        """One look and one step; who holds the lease now, None when somebody wrote it in between."""
        started_s = self._monotonic()
        async with asyncio.timeout(ACT_S):
            lease = await self._api.get(self._path)
            version = "" if lease is None else str(lease["metadata"]["resourceVersion"])
            if version != self._seen[0]:
                self._seen = (version, self._monotonic())
            following = step(lease, self._me, self._monotonic() - self._seen[1], self._wall())
            if following.write is None:
                self._note(following.holder, mine=False)
                return following.holder
            try:
                if lease is None:
                    await self._api.create(self._folder, self._identity | following.write)
                else:
                    await self._api.replace(self._path, following.write)
            except ApiError as error:
                if error.code != 409:
                    raise
                return None
        # Counted from before the request: the server may have written it then.
        self._until_s = started_s + ACT_S
        self._note(self._me, mine=True)
        return self._me

    def _note(self, holder: str, *, mine: bool) -> None:
        if self._told != (holder, mine):
            self._told = (holder, mine)
            self._tell(holder, mine)
