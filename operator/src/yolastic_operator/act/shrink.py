"""Two-phase scale-down: which workers to drain, for which to wait, and when to order another size. Pure.

A size is ordered smaller only with the workers that have left: chosen, drained, empty (or out of time). A worker that drains
never serves again, so it is no supply; when load comes back meanwhile, it is let go first and replaced after. One whom the drain
never reached serves on, and then simply stays. Workers that were ordered and never made (a quota, a size taken back at once) are
given up before any that is there.

While the fleet is unconfirmed (`Fleet.unconfirmed`) a size is only ever ordered larger, and nobody is told to drain. Those that
leave already are remembered.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from yolastic_operator.model import Fresh, Observation, WorkerView

ADOPT_AFTER_S: Final = 10.0
"""A worker that says it drains though nobody here asked it: after this long it is taken for one of ours from before a restart."""
DISMISSED_FOR_S: Final = 10.0
"""A worker that was ordered away counts as gone for this long, though the cluster may have removed another."""
SLOW_CLUSTER_S: Final = 120.0
"""The same as long as there are more workers than ordered, so that the cluster has yet to act on the order."""


@dataclass(frozen=True, slots=True)
class SizeStep:
    """What to do about the size in this turn."""

    drain: tuple[str, ...] = ()
    """Workers to send `POST /drain`; sending twice is harmless."""
    order: int | None = None
    """The size to order now; None: leave it."""
    victims: tuple[str, ...] = ()
    """Workers that must be the ones to go with that order."""
    leaving: Mapping[str, float] = field(default_factory=dict)
    """Workers on their way out, with the time they were first asked or seen to drain: hand it to the next turn."""
    waiting: tuple[str, ...] = ()
    """Of these, workers that still have images in flight."""
    deaf: frozenset[str] = frozenset()
    """Of these, workers that were silent whenever they were asked: hand it to the next turn."""


def plan(
    observation: Observation,
    *,
    desired: int,
    victims: Sequence[str],
    leaving: Mapping[str, float],
    seen: Mapping[str, float],
    dismissed: Collection[str] = (),
    deaf: Collection[str] = (),
    now_s: float,
    timeout_s: float,
) -> SizeStep:
    """The next step towards `desired` workers.

    Args:
        observation: fleet and states; a fleet without an ordered size gives an empty step.
        desired: workers wanted.
        victims: who should go, in that order, as the decision chose.
        leaving: `SizeStep.leaving` of the turn before.
        seen: unbidden drains by name, with the time they were first seen (`unbidden`).
        dismissed: workers that the ordered size has been lowered by already, whether or not the cluster has acted on it.
        deaf: `SizeStep.deaf` of the turn before; when such a worker is heard again, its time to drain begins.
        now_s: the time, seconds, on the clock of `leaving` and `seen`.
        timeout_s: the longest a drain may take.
    """
    ordered = observation.fleet.replicas
    if ordered is None:
        return SizeStep()
    if observation.fleet.unconfirmed:
        return SizeStep(order=desired if desired > ordered else None, leaving=leaving, deaf=frozenset(deaf))
    staying = (view for view in observation.workers if view.worker.phase != "Terminating")
    views = {view.worker.name: view for view in staying if view.worker.name not in dismissed}
    unmade = max(ordered - len(views), 0)
    adopted = {name: since_s for name, since_s in seen.items() if now_s - since_s >= ADOPT_AFTER_S}
    going = {name: since_s for name, since_s in (adopted | dict(leaving)).items() if name in views}
    reprieved = [name for name in going if _undrained(views[name])][: max(desired - ordered + len(going), 0)]
    going = {name: since_s for name, since_s in going.items() if name not in reprieved}
    supply = max(ordered - len(going), 0)

    if desired > supply and going:
        return SizeStep(order=max(supply - unmade, 0), victims=tuple(going), leaving=going)
    if desired > ordered:
        return SizeStep(order=desired)
    given_up = min(unmade, max(supply - desired, 0))
    chosen = [name for name in victims if name in views and name not in going][: max(supply - desired - given_up, 0)]
    going |= dict.fromkeys([*chosen, *(name for name in going if name in deaf and _undrained(views[name]))], now_s)
    gone = tuple(
        name
        for name, since_s in going.items()
        if _has_left(views[name], now_s - since_s, timeout_s) or (name in chosen and not _serves(views[name]))
    )
    return SizeStep(
        drain=tuple(name for name in going if name not in gone and not _drains(views[name])),
        order=ordered - len(gone) - given_up if gone or given_up else None,
        victims=gone,
        leaving=going,
        waiting=tuple(name for name in going if name not in gone),
        deaf=frozenset(name for name in going if (name in deaf or name in chosen) and not isinstance(views[name].state, Fresh)),
    )


def unbidden(observation: Observation, leaving: Mapping[str, float], seen: Mapping[str, float], now_s: float) -> dict[str, float]:
    """Workers that drain without having been asked, with the time they were first seen to."""
    names = (view.worker.name for view in observation.workers if view.worker.phase != "Terminating" and _drains(view))
    return {name: seen.get(name, now_s) for name in names if name not in leaving}


def still_dismissed(observation: Observation, dismissed: Mapping[str, float], now_s: float) -> dict[str, float]:
    """Workers that count as gone, with the time they were ordered away."""
    there = sum(worker.phase != "Terminating" for worker in observation.fleet.workers)
    limit_s = SLOW_CLUSTER_S if there > (observation.fleet.replicas or 0) else DISMISSED_FOR_S
    return {name: at_s for name, at_s in dismissed.items() if now_s - at_s < limit_s}


def _drains(view: WorkerView) -> bool:
    return isinstance(view.state, Fresh) and view.state.value.phase == "Draining"


def _undrained(view: WorkerView) -> bool:
    """It was asked to leave and serves on: word of that never reached it."""
    return view.worker.ready and isinstance(view.state, Fresh) and view.state.value.phase == "Ready"


def _serves(view: WorkerView) -> bool:
    return view.worker.ready or (isinstance(view.state, Fresh) and view.state.value.load.inflight_images > 0)


def _has_left(view: WorkerView, drained_s: float, timeout_s: float) -> bool:
    if drained_s >= timeout_s or view.worker.phase in {"Pending", "Failed"} or view.worker.address is None:
        return True
    # Without word from it, it may still be at work.
    return _drains(view) and isinstance(view.state, Fresh) and view.state.value.load.inflight_images == 0
