"""What a turn tells of its decision: changes of size and ceiling, advice, and what was sent. Each is told once. Pure."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from yolastic_contract.behavior import Behavior
from yolastic_contract.inference_status import MOST_SCALE_EVENTS, DecisionStatus, InferenceStatus, ScaleEventStatus
from yolastic_contract.state import CeilingGrant
from yolastic_operator.act import status as folding
from yolastic_operator.act.ceilings import pending, to_send
from yolastic_operator.act.effects import Resized
from yolastic_operator.model import Decision, Observation, ScaleEvent
from yolastic_operator.policy.behavior import event_period_s
from yolastic_operator.policy.second import GIVES_WAY, NO_PLACE
from yolastic_operator.policy.workers import count

ADVICE_EVERY_S: Final = 60.0
"""Advice that changes its mind with every gust of load is told this often at most."""


def scale_events(status: InferenceStatus, now_s: float, wall_s: float) -> tuple[ScaleEvent, ...]:
    """The changes of size that a status tells, oldest first: a restart does not begin the rates of scaling anew.

    `now_s` is the clock of the events; `wall_s`, Unix time, is the same moment.
    """
    events = []
    for event in reversed(status.autoscaling.scale_events):
        time_s = folding.seconds(event.time)
        if time_s is not None and event.change:
            events.append(ScaleEvent(now_s - max(wall_s - time_s, 0.0), event.change))
    return tuple(events)


def still_counted(
    before: list[ScaleEventStatus], told: list[DecisionStatus], behavior: Behavior | None, wall_s: float
) -> list[ScaleEventStatus]:
    """The changes of size that rates count, newest first, with what was told in this turn, oldest first.

    Without a new one they stay as they are: that one is of no account any more is no news.
    """
    new = [ScaleEventStatus(time=one.time, change=one.to - one.from_) for one in told if one.to != one.from_ and not one.advice]
    if not new:
        return before
    kept = [event for event in before if _age_s(event, wall_s) <= event_period_s(event.change, behavior)]
    events = [*reversed(new), *kept]
    while len(events) > MOST_SCALE_EVENTS:
        _merge_oldest(events)
    return events


def _age_s(event: ScaleEventStatus, wall_s: float) -> float:
    time_s = folding.seconds(event.time)
    return math.inf if time_s is None else wall_s - time_s


def _merge_oldest(events: list[ScaleEventStatus]) -> None:
    """Two of one direction become one at the later time: it counts for longer than one of them, never for less."""
    for later in range(len(events) - 2, -1, -1):
        one, other = events[later], events[later + 1]
        if one.change * other.change > 0:
            events[later : later + 2] = [one.model_copy(update={"change": max(min(one.change + other.change, 1000), -1000)})]
            return
    events.pop()


def gave_up_s(status: InferenceStatus, now_s: float, wall_s: float) -> list[float]:
    """When second workers were given up, for want of a place or to others, as the status tells; arguments: `scale_events`."""
    given_up = [one for one in status.autoscaling.decisions if one.reason in {NO_PLACE, GIVES_WAY} and not one.advice]
    times_s = [folding.seconds(one.time) for one in given_up]
    return [now_s - max(wall_s - time_s, 0.0) for time_s in times_s if time_s is not None]


class Changes:
    """Remembers what it told last; a new one after a restart goes on from the status."""

    def __init__(self, status: InferenceStatus) -> None:
        self._ceiling = self._advised_ceiling = status.batch.ceiling
        newest = next((decision for decision in status.autoscaling.decisions if decision.advice), None)
        self._advised = newest.to if newest is not None and status.autoscaling.advised_replicas == newest.to else None
        self._advised_s: float | None = None
        self._wanted: tuple[int, str, str] | None = None
        """The size wanted, with the reason and the words with which it came to be wanted."""

    def of(
        self, decision: Decision, size: int, *, moved: tuple[int, int] | None, now_s: float, wall_s: float
    ) -> list[DecisionStatus]:
        """What is new in this turn, oldest first.

        Args:
            decision: the turn's.
            size: ordered before it.
            moved: from which size to which it went in this turn (`Resized.moved`).
            now_s: seconds of a clock that is never set.
            wall_s: Unix time.
        """
        told = self._ceiling_change(decision, size, wall_s)
        replicas = decision.replicas
        if self._wanted is None or self._wanted[0] != replicas.desired or size == replicas.desired:
            self._wanted = replicas.desired, replicas.reason, replicas.message
        if moved is not None:
            told.append(_change(wall_s, *moved, *self._wanted[1:]))
        if replicas.advised in {None, size}:
            self._advised = None  # there is no advice now: the same one later is another
        elif replicas.advised is not None and replicas.advised != self._advised and self._may_advise(now_s):
            self._advised, self._advised_s = replicas.advised, now_s
            advice = _change(wall_s, size, replicas.advised, replicas.reason, replicas.message)
            told.append(advice.model_copy(update={"advice": True}))
        return told

    def _may_advise(self, now_s: float) -> bool:
        return self._advised_s is None or now_s - self._advised_s >= ADVICE_EVERY_S

    def _ceiling_change(self, decision: Decision, size: int, wall_s: float) -> list[DecisionStatus]:
        ceiling = decision.ceiling
        advice = decision.mode == "Advisory"
        if not advice:
            self._advised_ceiling = None
        before = self._advised_ceiling if advice and self._advised_ceiling is not None else self._ceiling
        if ceiling is None or ceiling.tiers.ceiling == before:
            return []
        if advice:
            self._advised_ceiling = ceiling.tiers.ceiling
        else:
            self._ceiling = ceiling.tiers.ceiling
        if decision.mode == "Paused":
            return []  # it shows what the workers work with; nothing was decided
        change = _change(wall_s, size, size, f"LimitedBy{ceiling.limited_by}", ceiling.message)
        return [change.model_copy(update={"batch_from": before, "batch_to": ceiling.tiers.ceiling, "advice": advice or None})]


def reason_of(change: DecisionStatus) -> str:
    """The reason as it is counted: advice apart from what was done."""
    return f"Advice{change.reason}" if change.advice else change.reason


def written(
    observation: Observation, decision: Decision, resized: Resized, leased_to: Mapping[str, CeilingGrant] = MappingProxyType({})
) -> str:
    """What was sent to workers and ordered, in words; `leased_to`: what the ledger granted, by worker."""
    told = [f"base {grant.base} and ceiling {grant.ceiling} leased to {name}" for name, grant in sorted(leased_to.items())]
    if decision.mode == "Advisory":
        return "; ".join([*told, "nothing that was decided, the mode is Advisory" if told else "nothing, the mode is Advisory"])
    if decision.mode == "Paused":
        told += _tiers_sent(observation, decision)
        return "; ".join([*told, "nothing else, the mode is Paused" if told else "nothing, the mode is Paused"])
    if resized.failure is not None:
        told.append(f"the size was not taken: {resized.failure}")
    elif resized.size is not None:
        told.append(f"{count(resized.size)} ordered, {observation.fleet.replicas or 0} before")
    if observation.fleet.unconfirmed and decision.replicas.desired < (observation.fleet.replicas or 0):
        told.append(f"no smaller size while nobody tells whether these are all workers: {observation.fleet.unconfirmed}")
    elif resized.held:
        told.append("no smaller size while workers are replaced one by one and some have no place")
    if resized.waiting:
        told.append(f"{count(len(decision.victims))} asked to drain, the order follows when they are empty")
    told += _tiers_sent(observation, decision)
    return "; ".join(told) or "nothing, all is as decided"


def _tiers_sent(observation: Observation, decision: Decision) -> list[str]:
    ceiling = to_send(decision)
    if ceiling is None:
        return []
    tiers, grants = ceiling.tiers, len(list(pending(observation, ceiling)))
    return [f"base {tiers.base} and ceiling {tiers.ceiling} sent to {count(grants)}"] if grants else []


def _change(time_s: float, start: int, end: int, reason: str, message: str) -> DecisionStatus:
    time = folding.timestamp(time_s)
    return DecisionStatus(time=time, from_=start, to=end, reason=reason[:64], message=message[:512])
