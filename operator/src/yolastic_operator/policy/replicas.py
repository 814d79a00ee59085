"""How many workers: proposal, windows, rates, bounds, and what the cluster has room for."""

from dataclasses import dataclass, replace
from typing import Final

from yolastic_contract.inference import Autoscaling, InferenceSpec
from yolastic_operator.model import Mode, Observation, PolicyState, ReplicaDecision, Step
from yolastic_operator.policy import behavior as rules
from yolastic_operator.policy import fallback, swing, target
from yolastic_operator.policy import forecast as trend
from yolastic_operator.policy.behavior import Clamped, History
from yolastic_operator.policy.demand import KNOWS_TOO_LITTLE, Proposal, propose
from yolastic_operator.policy.fall import Fall, deepest
from yolastic_operator.policy.second import GIVES_WAY, NO_PLACE, Lone
from yolastic_operator.policy.workers import count, is_draining, is_leaving

SHRINK_HELD_S: Final = 60.0
"""A shrink that goes on is put off for so long at most, seconds: then it is made as far as it has come."""


@dataclass(frozen=True, slots=True)
class Sized:
    """The decision and the history it leaves."""

    decision: ReplicaDecision
    history: History
    lost_s: float | None = None
    """`PolicyState.lost_s` for the next turn."""
    shrink_held_s: float | None = None
    """`PolicyState.shrink_held_s` for the next turn."""


def decide_replicas(observation: Observation, spec: InferenceSpec, state: PolicyState, now_s: float, lone: Lone) -> Sized:
    """The wanted size. Pure: the history goes in with the state and comes back."""
    if spec.autoscaling is None:
        return Sized(_limited_by_room(_fixed(spec), None, observation), History())
    autoscaling, why_less = target.aimed_for(spec, spec.autoscaling, state)
    # Whoever does not act starts each turn from what there is, not from what he would have done.
    acts = autoscaling.mode == "Active"
    current = current_size(observation, state, autoscaling.min_replicas) if acts else _ordered(observation, autoscaling)
    inside = min(max(current, autoscaling.min_replicas), autoscaling.max_replicas)
    history = rules.first_seen(History(state.recommendations, state.scale_events), inside, now_s)
    proposal = propose(
        observation.workers,
        inside,
        autoscaling,
        why_less=why_less,
        ahead=_ahead(observation, autoscaling, state, now_s),
        steady_per_s=trend.steady(state.intervals, now_s),
        looked=trend.is_known(state.intervals, now_s),
        swings=swing.words(state.swing) if state.swing else "",
        counted_per_s=trend.counted(state.intervals, now_s),
        carried_per_s=trend.counted(state.intervals, now_s, certain=0.0),
        lone=lone,
        fallen=_fallen(state, autoscaling, now_s),
        unconfirmed=observation.fleet.unconfirmed,
    )
    lost_s = fallback.lost_since(state.lost_s, proposal, observation, now_s)
    lost_for_s = None if lost_s is None else now_s - lost_s
    proposal = fallback.stand_in(proposal, autoscaling, inside, lost_for_s)
    sized = _autoscaled(proposal, observation, autoscaling, inside, history, state.shrink_held_s, now_s)
    wish = _limited_by_room(_from_outside(sized.decision, current, inside), inside, observation)
    wish = replace(wish, lost_for_s=lost_for_s, fallback=fallback.is_due(autoscaling, lost_for_s))
    before = current if acts or state.desired_replicas is None else state.desired_replicas
    decision = _in_mode(wish, autoscaling.mode, current)
    history = rules.remember_scale(sized.history, decision.desired - before, autoscaling.behavior, now_s)
    return Sized(decision, history, lost_s, sized.shrink_held_s)


def _ahead(observation: Observation, autoscaling: Autoscaling, state: PolicyState, now_s: float) -> trend.Forecast | None:
    if autoscaling.forecast == "None":
        return None
    return trend.forecast(state.intervals, trend.lead_s(observation), now_s, swings=state.swing > 0)


def _fallen(state: PolicyState, autoscaling: Autoscaling, now_s: float) -> Fall | None:
    """For as long as the window that follows, so that it counts twice after a fall; at most as long as demand is remembered."""
    if autoscaling.forecast == "None":
        return None
    return deepest(state.intervals, rules.down_window_s(autoscaling.behavior), now_s)


def _ordered(observation: Observation, autoscaling: Autoscaling) -> int:
    return autoscaling.min_replicas if observation.fleet.replicas is None else observation.fleet.replicas


def _in_mode(wish: ReplicaDecision, mode: Mode, current: int) -> ReplicaDecision:
    """The wish in mode Active; in Advisory advice, in Paused nothing but the size there is."""
    match mode:
        case "Active":
            return wish
        case "Advisory":
            said = f"{count(wish.desired)} instead of {current} advised" if wish.desired != current else "no change advised"
            advised = replace(wish, desired=current, advised=wish.desired, message=f"{said}; {wish.message}")
            return _noted(advised, "Mode", f"Advisory: {said}, nothing is changed")
        case "Paused":
            message = f"paused at {count(current)}; {wish.message}"
            held = replace(wish, desired=current, reason="Paused", message=message, limited_by=None, fallback=False)
            return _noted(held, "Mode", f"Paused: {count(current)} held, {wish.desired} would be wanted")


def _noted(decision: ReplicaDecision, about: str, text: str) -> ReplicaDecision:
    return replace(decision, steps=(*decision.steps, Step(about, text)))


def current_size(observation: Observation, state: PolicyState, first: int) -> int:
    """The size last decided; after a restart the one ordered, less the workers that were told to leave before it.

    What somebody else ordered beyond it is where the sum starts, as for the autoscaler: two who each put their own size right
    would take it from each other for ever, and a starting worker with it.
    """
    ordered = observation.fleet.replicas
    if state.desired_replicas is not None:
        known = max(state.desired_replicas, state.ordered_replicas or 0)
        return ordered if ordered is not None and ordered > known else state.desired_replicas
    if ordered is None:
        return first
    return max(ordered - sum(is_draining(view) for view in observation.workers), 0)


def _fixed(spec: InferenceSpec) -> ReplicaDecision:
    wanted = 1 if spec.replicas is None else spec.replicas
    said = "replicas is not set, which means 1" if spec.replicas is None else f"replicas is fixed at {wanted}"
    return ReplicaDecision(
        desired=wanted, recommended=None, reason="FixedReplicas", message=said, active=False, steps=(Step("Mode", said),)
    )


def _autoscaled(  # noqa: PLR0917 - one step of a sum
    asked: Proposal,
    observation: Observation,
    autoscaling: Autoscaling,
    current: int,
    history: History,
    held_s: float | None,
    now_s: float,
) -> Sized:
    # In the other modes nobody removes those that drain: they would be waited for in vain.
    proposal = _while_shrinking(asked, current, observation) if autoscaling.mode == "Active" else asked
    if proposal.replicas is None:
        message = f"{proposal.message} {count(current)}"
        held = ReplicaDecision(current, None, proposal.reason, message, active=False, steps=proposal.steps)
        # Kubernetes remembers nothing here; the first figures after an outage longer than every window, often those of clients
        # that are only coming back, then take all workers but one in a single step.
        return Sized(held, rules.remember_hold(history, current, autoscaling.behavior, now_s))
    if proposal.gives_way:
        history = rules.without_reserve(history)
    clamped = rules.clamp(
        proposal.replicas,
        current=current,
        minimum=autoscaling.min_replicas,
        maximum=autoscaling.max_replicas,
        behavior=autoscaling.behavior,
        history=history,
        now_s=now_s,
    )
    # What is held for a moment is not wanted: remembered, it would hold the size for a whole window more, and each time anew.
    remembered = proposal.replicas if asked.replicas is None else asked.replicas
    if asked.reason in KNOWS_TOO_LITTLE:
        history = rules.remember_hold(history, current, autoscaling.behavior, now_s)
    else:
        history = rules.remember_recommendation(history, remembered, autoscaling.behavior, now_s, asked.reserve)
    decision = _decision(proposal, proposal.replicas, clamped, current, autoscaling)
    decision, held_s = _in_one_go(decision, current, autoscaling, history, held_s, now_s)
    return Sized(decision, history, shrink_held_s=held_s)


def _in_one_go(  # noqa: PLR0917 - one step of a sum
    decision: ReplicaDecision, current: int, autoscaling: Autoscaling, history: History, held_s: float | None, now_s: float
) -> tuple[ReplicaDecision, float | None]:
    """Of a shrink that goes on within a sync period, because the load is just falling, make one; and since when it is put off."""
    if decision.desired >= current or decision.recommended is None:
        return decision, None
    soon = rules.clamp(
        decision.recommended,
        current=current,
        minimum=autoscaling.min_replicas,
        maximum=autoscaling.max_replicas,
        behavior=autoscaling.behavior,
        history=history,
        now_s=now_s + rules.SYNC_PERIOD_S,
    )
    held_s = now_s if held_s is None else held_s
    if soon.replicas >= decision.desired:
        return decision, None
    if now_s - held_s >= SHRINK_HELD_S:
        # Where nobody acts the size does not follow, and the next hold would take the advice back.
        return decision, None if autoscaling.mode == "Active" else held_s
    why = f"{count(soon.replicas)} would do in {rules.SYNC_PERIOD_S:.0f} s, shrinking once"
    held = replace(decision, desired=current, reason="ShrinkGrowing", message=f"{decision.message}; {why}")
    return _noted(held, "Windows", why), held_s


def _from_outside(decision: ReplicaDecision, current: int, inside: int) -> ReplicaDecision:
    """A size outside minReplicas and maxReplicas goes back inside, whatever the metrics say or do not say."""
    if current == inside:
        return decision
    reason, bound = ("AboveMaximum", "maxReplicas") if current > inside else ("BelowMinimum", "minReplicas")
    why = f"{count(current)} ordered, {bound} is {inside}"
    return _noted(replace(decision, reason=reason, message=f"{why}; {decision.message}"), "Windows", why)


def _while_shrinking(proposal: Proposal, current: int, observation: Observation) -> Proposal:
    """Until the workers of the last shrink are gone, their load has not reached the others: do not shrink further on it."""
    ordered = observation.fleet.replicas
    leaving = max(ordered - current, 0) if ordered is not None else 0
    leaving = max(leaving, sum(is_draining(view) for view in observation.workers))
    if proposal.replicas is None or proposal.replicas >= current or not leaving:
        return proposal
    why = f"{count(leaving)} still leaving, not shrinking further"
    steps = (*proposal.steps, Step("Survivors", why))
    return replace(proposal, replicas=current, reason="ShrinkUnderWay", message=f"{proposal.message}; {why}", steps=steps)


def _decision(proposal: Proposal, recommended: int, clamped: Clamped, current: int, autoscaling: Autoscaling) -> ReplicaDecision:
    held, cuts = proposal.reason, []
    if clamped.stabilized > recommended:
        window_s = rules.down_window_s(autoscaling.behavior)
        held = "ScaleDownStabilized"
        cuts.append(f"{clamped.stabilized} were wanted within the last {window_s:.0f} s")
    elif clamped.stabilized < recommended:
        held = "ScaleUpStabilized"
        cuts.append("waiting until they have been wanted for the whole window")
    limited_by = None
    if clamped.reason != "DesiredWithinRange":
        held = limited_by = clamped.reason
        cuts.append(_limit_words(clamped, autoscaling))
    moved = clamped.replicas - current
    within = f"{autoscaling.min_replicas} to {autoscaling.max_replicas} allowed, {current} before"
    decision = ReplicaDecision(
        desired=clamped.replicas,
        recommended=recommended if proposal.measured else None,
        # Where bounds or room allow again what a window still holds, it grows though the load does not ask for it.
        reason=held if moved == 0 or recommended <= current < clamped.replicas else _moving(proposal, moved),
        message="; ".join([proposal.message, *cuts]),
        limited_by=limited_by,
        active=proposal.measured,
        load_ratio=proposal.load_ratio,
        source=proposal.source,
        reserve=proposal.reserve,
        fewest=autoscaling.min_replicas,
        target_percent=autoscaling.target_load_percent,
        steps=proposal.steps,
    )
    return _noted(decision, "Windows", f"{'; '.join(cuts) or 'nothing cuts it'}: {count(clamped.replicas)} ({within})")


def _moving(proposal: Proposal, moved: int) -> str:
    if not proposal.measured:
        return proposal.reason
    if moved < 0:
        return proposal.reason if proposal.reason in {NO_PLACE, GIVES_WAY} else "LoadBelowTarget"
    return proposal.reason if proposal.reason in {"ForecastAboveTarget", "SecondWorker"} else "LoadAboveTarget"


def _limit_words(clamped: Clamped, autoscaling: Autoscaling) -> str:
    words = {
        "TooManyReplicas": f"limited to maxReplicas {autoscaling.max_replicas}",
        "TooFewReplicas": f"limited to minReplicas {autoscaling.min_replicas}",
        "ScaleUpLimit": f"limited to {clamped.replicas} for now by the rate of scaling up",
        "ScaleDownLimit": f"limited to {clamped.replicas} for now by the rate of scaling down",
    }
    return words.get(clamped.reason, "")


def _limited_by_room(decision: ReplicaDecision, current: int | None, observation: Observation) -> ReplicaDecision:
    """While a worker finds no place, none is ordered beyond those that have one, and the wish counts as limited.

    `current` None: the size is the user's, it is limited in words only.
    """
    placed = homeless = 0
    for view in observation.workers:
        if not is_leaving(view):
            homeless += view.worker.unschedulable
            placed += not view.worker.unschedulable
    if homeless == 0 or decision.desired <= placed:
        return decision
    held = decision.desired if current is None else min(decision.desired, max(current, placed))
    why = f"the scheduler finds no place for {count(homeless)} of {placed + homeless}"
    cut = f", not asking for more than {held}" if held < decision.desired else ""
    reason = "Unschedulable" if held < decision.desired else decision.reason
    message = f"{decision.message}; {why}{cut}"
    limited = replace(decision, desired=held, reason=reason, message=message, limited_by="Unschedulable")
    return _noted(limited, "Room", f"{why}{cut}")
