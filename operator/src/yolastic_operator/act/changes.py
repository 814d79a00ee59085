"""What a turn tells of its decision: changes of size and ceiling, advice, and what was sent. Each is told once. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from yolastic_contract.inference_status import DecisionStatus, InferenceStatus
from yolastic_contract.state import CeilingGrant
from yolastic_operator.act import status as folding
from yolastic_operator.act.ceilings import pending, to_send
from yolastic_operator.act.effects import Resized
from yolastic_operator.model import Decision, Observation, ScaleEvent
from yolastic_operator.policy.second import GIVES_WAY, NO_PLACE
from yolastic_operator.policy.workers import count

ADVICE_EVERY_S: Final = 60.0
"""Advice that changes its mind with every gust of load is told this often at most."""


def scale_events(status: InferenceStatus, now_s: float, wall_s: float) -> tuple[ScaleEvent, ...]:
    """The last changes of size that a status tells, oldest first: a restart does not begin the rates of scaling anew.

    `now_s` is the clock of the events; `wall_s`, Unix time, is the same moment.
    """
    events = []
    for decision in reversed(status.autoscaling.decisions):
        time_s = folding.seconds(decision.time)
        if time_s is not None and decision.to != decision.from_ and not decision.advice:
            events.append(ScaleEvent(now_s - max(wall_s - time_s, 0.0), decision.to - decision.from_))
    return tuple(events)


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
        if moved is not None:
            told.append(_change(wall_s, *moved, replicas.reason, replicas.message))
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
