"""Who waits for a device that another inference holds in reserve. Pure but for its memory.

One object for all inferences of an operator. A second worker beside a lone one (`second.py`) is a reserve; where an inference has
too few workers for its load or its spec, and the scheduler has no place for one more, those who hold a reserve on the same kind
of device give it up. Whether its place will do (taints, affinity, zones) only the scheduler knows: so nobody is waited for longer
than `PATIENCE_S`, or one that fits nowhere would cost all the others their reserve for ever.
"""

from dataclasses import dataclass
from typing import Final

from yolastic_operator.model import Decision, Observation, Ref
from yolastic_operator.policy.workers import is_leaving

HEARD_S: Final = 30.0
"""What an inference said counts for so long, seconds: it says it anew in every turn."""

PATIENCE_S: Final = 300.0
"""Who has waited for so long is not helped by what others gave up, seconds."""

FORGET_S: Final = 600.0
"""A need that has been over for so long is another when it comes again, seconds."""

Kind = str | None
"""Extended resource of the device; None: a CPU."""


@dataclass(frozen=True, slots=True)
class _Want:
    kind: Kind
    placed: int
    """Workers with a place: one more, and it was helped."""
    waited_s: float
    """In all, since it was helped last."""
    needed_s: float
    """When it lacked one last."""
    told_s: float
    is_lacking: bool


class Places:
    """Who waits, by kind of device."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], _Want] = {}

    def tell(self, ref: Ref, kind: Kind, lacking: int, placed: int, now_s: float) -> None:
        """How many workers an inference lacks for want of a place, and how many have one."""
        key = ref.namespace, ref.name
        before = self._waiting.pop(key, None)
        if before is not None and (before.kind != kind or placed > before.placed or now_s - before.needed_s > FORGET_S):
            before = None
        if before is None and lacking <= 0:
            return
        waited_s = 0.0 if before is None else before.waited_s + (now_s - before.told_s) * before.is_lacking
        needed_s = now_s if before is None or lacking > 0 else before.needed_s
        self._waiting[key] = _Want(kind, placed, waited_s, needed_s, now_s, lacking > 0)

    def wanted_by(self, ref: Ref, kind: Kind, now_s: float) -> str:
        """Another inference that waits for a device of this kind; empty: none does."""
        key = ref.namespace, ref.name
        waiting = (
            one
            for one, want in self._waiting.items()
            if one != key
            and want.is_lacking
            and want.kind == kind
            and now_s - want.told_s <= HEARD_S
            and want.waited_s <= PATIENCE_S
        )
        return "/".join(min(waiting, default=()))

    def forget(self, ref: Ref) -> None:
        """The inference is gone."""
        self._waiting.pop((ref.namespace, ref.name), None)


def lacking(observation: Observation, decision: Decision) -> int:
    """Workers that are needed and have no place; a reserve is no need, nor is what a window still holds."""
    homeless = sum(view.worker.unschedulable for view in observation.workers if not is_leaving(view))
    replicas = decision.replicas
    needed = replicas.desired
    if replicas.recommended is not None and decision.mode == "Active":  # else the size is the user's
        needed = replicas.recommended - replicas.reserve
    return max(min(max(needed, replicas.fewest), replicas.desired) - placed(observation), 0) if homeless else 0


def placed(observation: Observation) -> int:
    """Workers that have a place and do not leave it."""
    return sum(not view.worker.unschedulable for view in observation.workers if not is_leaving(view))
