"""How the Deployment controller of Kubernetes sizes the ReplicaSets of a Deployment, one sync at a time. Pure.

`fake.py` follows it, so that a rollout that would hang on a cluster hangs in a test. After `rolling.go` and `sync.go` of
`pkg/controller/deployment`: sizes are orders, `available` is what serves of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

Sizes = Mapping[str, int]
"""Workers by revision, the oldest revision first."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the Deployment says."""

    revision: str
    replicas: int
    surge: int
    """`maxSurge`."""
    unavailable: int
    """`maxUnavailable`."""

    @property
    def least(self) -> int:
        """So many have to serve before one that serves may be taken away."""
        return max(self.replicas - self.unavailable, 0)


def scaled(sizes: Sizes, order: Order) -> dict[str, int]:
    """After another size was ordered: the only ReplicaSet takes it, several share it in proportion, whoever of them serves."""
    active = [revision for revision, size in sizes.items() if size]
    if len(active) < 2:
        return {**sizes, (active[0] if active else order.revision): order.replicas}
    total = sum(sizes.values())
    allowed = order.replicas + order.surge if order.replicas else 0
    missing, added = allowed - total, 0
    # The largest first; of equals the newer one grows, the older one shrinks.
    active = active[::-1] if missing > 0 else active
    active.sort(key=lambda revision: -sizes[revision])
    result = dict(sizes)
    for revision in active:
        share = (2 * sizes[revision] * allowed + total) // (2 * total) - sizes[revision]
        share = min(share, missing - added) if missing > 0 else max(share, missing - added)
        result[revision] += share
        added += share
    result[active[0]] = max(result[active[0]] + missing - added, 0)
    return result


def rolled(sizes: Sizes, available: Sizes, order: Order) -> dict[str, int]:
    """The next step of a rolling update; the same sizes when there is none.

    New ones are ordered up to the surge. Then old ones that do not serve are taken away, and old ones that do as long as enough
    serve; but new ones that do not serve yet count as if they were away.
    """
    new, total = sizes.get(order.revision, 0), sum(sizes.values())
    room = min(order.replicas + order.surge - total, order.replicas - new)
    if room > 0 or new > order.replicas:
        return {**sizes, order.revision: min(new + max(room, 0), order.replicas)}
    result = dict(sizes)
    spare = total - order.least - (new - available.get(order.revision, 0))
    old = [revision for revision in sizes if revision != order.revision]
    if spare <= 0:
        return result
    for revision in old:
        gone = min(spare, max(sizes[revision] - available.get(revision, 0), 0))
        result[revision] -= gone
        spare -= gone
    may_go = max(sum(available.values()) - order.least, 0)
    for revision in old:
        gone = min(may_go, result[revision])
        result[revision] -= gone
        may_go -= gone
    return result
