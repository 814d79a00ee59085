"""What a turn tells of its decision: changes of size and ceiling, advice, and what was sent. Each is told once. Pure."""

from typing import Final

from yolastic_contract.inference_status import DecisionStatus, InferenceStatus
from yolastic_operator.act import status as folding
from yolastic_operator.act.ceilings import pending
from yolastic_operator.act.effects import Resized
from yolastic_operator.model import Decision, Observation, ScaleEvent
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


class Changes:
    """Remembers what it told last; a new one after a restart goes on from the status."""

    def __init__(self, status: InferenceStatus) -> None:
        self._ceiling = self._advised_ceiling = status.batch.ceiling
        newest = next((decision for decision in status.autoscaling.decisions if decision.advice), None)
        self._advised = newest.to if newest is not None and status.autoscaling.advised_replicas is not None else None
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
        if replicas.advised is None:
            self._advised = None
        elif replicas.advised not in {size, self._advised} and self._may_advise(now_s):
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


def written(observation: Observation, decision: Decision, resized: Resized) -> str:
    """What was sent to workers and ordered, in words."""
    if decision.mode != "Active":
        return f"nothing, the mode is {decision.mode}"
    told = []
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
    if decision.ceiling is not None:
        tiers, grants = decision.ceiling.tiers, len(list(pending(observation, decision.ceiling)))
        told += [f"base {tiers.base} and ceiling {tiers.ceiling} sent to {count(grants)}"] if grants else []
    return "; ".join(told) or "nothing, all is as decided"


def _change(time_s: float, start: int, end: int, reason: str, message: str) -> DecisionStatus:
    time = folding.timestamp(time_s)
    return DecisionStatus(time=time, from_=start, to=end, reason=reason[:64], message=message[:512])
