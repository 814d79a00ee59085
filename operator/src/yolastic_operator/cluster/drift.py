"""Whether a child is still as it was applied, from what the watches show of it: who edits or deletes one is answered. No I/O.

Compared is what a person changes: labels, our annotations, owners and the spec. A status, a new resourceVersion and the size of a
Deployment, which goes another way, are no edits. What the server made of an apply is what the next event is compared with, so
an apply never causes another one, and a field that somebody else adds costs one apply. The Secret is not watched.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final

from yolastic_contract import names
from yolastic_operator.cluster.cache import Body, Key, child_key, version_of

LONGEST_S: Final = 120.0
"""Between two repairs of a child that is changed again and again, at the most, seconds: as often as without any."""
FIRST_S: Final = 4.0
"""After the first repair, seconds: less than a turn."""


@dataclass(slots=True)
class _Child:
    applied: tuple[int, bytes] | None = None
    """(resourceVersion, what is compared) as the server answered our last apply."""
    seen: tuple[int, bytes | None] = (0, None)
    """The same as the watch showed it last; nothing is compared of one that is gone."""
    repaired_s: float = -inf
    pause_s: float = 0.0
    """Between its last repair and the next, at least, seconds."""

    def due(self, now_s: float) -> bool:
        if self.applied is None or now_s - self.repaired_s < self.pause_s:
            return False
        return self.seen[0] > self.applied[0] and self.seen[1] != self.applied[1]

    def repairing(self, now_s: float) -> None:
        is_calm = now_s - self.repaired_s >= self.pause_s + LONGEST_S
        self.pause_s = FIRST_S if is_calm else min(2 * self.pause_s, LONGEST_S)
        self.repaired_s = now_s


class Drift:
    """Children by inference and kind; `clock` in seconds, monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._children: dict[Key, dict[str, _Child]] = {}

    def applied(self, kind: str, body: Body) -> None:
        """Keep what the server made of our apply."""
        key = child_key(body)
        if key is not None:
            self._child(key, kind).applied = (version_of(body), _compared(kind, body))

    def seen(self, kind: str, body: Body, *, gone: bool) -> Key | None:
        """Keep what a watch showed; the inference to wake, None when all is as it should be."""
        key = child_key(body)
        if key is None:
            return None
        child, version = self._child(key, kind), version_of(body)
        if version >= child.seen[0]:
            child.seen = (version, None if gone else _compared(kind, body))
        if gone and child.applied is None:  # of an inference that was forgotten
            del self._children[key][kind]
            if not self._children[key]:
                del self._children[key]
        return key if self.due(key) else None

    def due(self, key: Key) -> bool:
        """Whether to apply the children again now."""
        return any(child.due(self._clock()) for child in self._children.get(key, {}).values())

    def repairing(self, key: Key) -> None:
        """The children are about to be applied; those that differ are answered later when they are changed again."""
        for child in self._children.get(key, {}).values():
            if child.due(self._clock()):
                child.repairing(self._clock())

    def forget(self, key: Key) -> None:
        """The inference is gone."""
        self._children.pop(key, None)

    def _child(self, key: Key, kind: str) -> _Child:
        return self._children.setdefault(key, {}).setdefault(kind, _Child())


def _compared(kind: str, body: Body) -> bytes:
    """A digest: the specs of a Deployment as they were applied and seen would be most of what the operator keeps of an object."""
    metadata = body.get("metadata", {})
    spec = {name: value for name, value in body.get("spec", {}).items() if (kind, name) != ("Deployment", "replicas")}
    own = {name: value for name, value in (metadata.get("annotations") or {}).items() if name.startswith(names.GROUP)}
    owners = sorted(owner.get("uid", "") for owner in metadata.get("ownerReferences") or [])
    told = json.dumps((spec, metadata.get("labels"), own, owners), sort_keys=True)
    return hashlib.sha256(told.encode()).digest()
