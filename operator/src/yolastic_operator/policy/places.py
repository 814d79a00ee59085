"""Who waits for a device that another inference holds in reserve. Pure but for its memory.

One object for all inferences of an operator. A second worker beside a lone one (`second.py`) is a reserve; where an inference has
too few workers for its load or its spec, and the scheduler has no place for one more, those who hold a reserve on the same kind
of device give it up. Whether its place will do (taints, affinity, zones) only the scheduler knows: one that was given up in vain
costs a reserve for a while.
"""

from typing import Final

from yolastic_operator.model import Decision, Observation, Ref
from yolastic_operator.policy.workers import is_leaving

HEARD_S: Final = 30.0
"""What an inference said counts for so long, seconds: it says it anew in every turn."""

Kind = str | None
"""Extended resource of the device; None: a CPU."""


class Places:
    """Who waits, by kind of device."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], tuple[Kind, float]] = {}

    def tell(self, ref: Ref, kind: Kind, lacking: int, now_s: float) -> None:
        """How many workers an inference lacks for want of a place."""
        key = ref.namespace, ref.name
        if lacking > 0:
            self._waiting[key] = kind, now_s
        else:
            self._waiting.pop(key, None)

    def wanted_by(self, ref: Ref, kind: Kind, now_s: float) -> str:
        """Another inference that waits for a device of this kind; empty: none does."""
        key = ref.namespace, ref.name
        waiting = (
            one for one, (what, told_s) in self._waiting.items() if one != key and what == kind and now_s - told_s <= HEARD_S
        )
        return "/".join(min(waiting, default=()))

    def forget(self, ref: Ref) -> None:
        """The inference is gone."""
        self._waiting.pop((ref.namespace, ref.name), None)


def lacking(observation: Observation, decision: Decision) -> int:
    """Workers that are needed and have no place; a reserve is no need, nor is what a window still holds."""
    there = [view.worker for view in observation.workers if not is_leaving(view)]
    homeless = sum(worker.unschedulable for worker in there)
    replicas = decision.replicas
    needed = replicas.desired
    if replicas.recommended is not None and decision.mode == "Active":  # else the size is the user's
        needed = replicas.recommended - replicas.reserve
    return max(min(max(needed, replicas.fewest), replicas.desired) - (len(there) - homeless), 0) if homeless else 0
