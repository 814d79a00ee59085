"""What holds without figures: first the size, and after the time the user gave the fallback policy."""

from dataclasses import replace

from yolastic_contract.inference import Autoscaling, Fallback
from yolastic_operator.model import Observation, Step
from yolastic_operator.policy.demand import Proposal
from yolastic_operator.policy.workers import count, is_serving


def lost_since(before_s: float | None, proposal: Proposal, observation: Observation, now_s: float) -> float | None:
    """Since when workers serve and nothing is known of any; None while something is.

    While nobody serves there is nobody to ask: that neither begins an outage nor ends one.
    """
    if proposal.replicas is not None:
        return None
    if before_s is not None:
        return before_s
    return now_s if any(is_serving(view) for view in observation.workers) else None


def stand_in(proposal: Proposal, autoscaling: Autoscaling, current: int, lost_for_s: float | None) -> Proposal:
    """The proposal itself while there are figures; in a long outage what the fallback policy asks for.

    Its size takes the same way through windows, rates and bounds as any other. Static is the user's own order and may shrink,
    when those let it; that figures are missing never does.
    """
    fallback = autoscaling.fallback
    if proposal.replicas is not None:
        return _noted(proposal, "not needed, there are figures")
    rule = _rule(fallback)
    if lost_for_s is None:
        return _noted(proposal, f"does not begin before a worker serves; {rule}")
    if lost_for_s < fallback.failure_duration_seconds:
        return _noted(proposal, f"no figures for {lost_for_s:.0f} s; {rule}")
    outage = f"no figures for {lost_for_s:.0f} s"
    if fallback.policy == "Hold" or fallback.replicas is None:
        told = f"{outage}, fallback Hold: holding {count(current)}"
        return _noted(replace(proposal, message=f"{proposal.message}, by fallback Hold,"), told)
    wanted = fallback.replicas if fallback.policy == "Static" else max(current, fallback.replicas)
    said = f"fallback {fallback.policy} {fallback.replicas}: {count(wanted)}"
    # Without the seconds so far, which move every turn: a condition says the same until something changes.
    message = f"no figures for more than {fallback.failure_duration_seconds} s, {said}"
    steps = (*proposal.steps, Step("Fallback", f"{outage}, {said}"))
    return Proposal(wanted, f"Fallback{fallback.policy}", message, measured=False, steps=steps)


def is_due(autoscaling: Autoscaling, lost_for_s: float | None) -> bool:
    """The fallback policy decides instead of figures."""
    return lost_for_s is not None and lost_for_s >= autoscaling.fallback.failure_duration_seconds


def _rule(fallback: Fallback) -> str:
    size = "" if fallback.policy == "Hold" else f" {fallback.replicas}"
    return f"{fallback.policy}{size} after {fallback.failure_duration_seconds} s"


def _noted(proposal: Proposal, text: str) -> Proposal:
    return replace(proposal, steps=(*proposal.steps, Step("Fallback", text)))
