"""A decision on a shared device: what it can lend is one more bound of the ceiling; each worker has its own tiers. Pure."""

from dataclasses import replace
from typing import Final

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.quantity import parse_bytes
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.model import CeilingDecision, ConditionUpdate, Decision, Step, Tiers
from yolastic_operator.policy.account import Wants
from yolastic_operator.policy.accounts import Leases
from yolastic_operator.policy.ceiling import hold_ceiling

END_MARGIN_S: Final = 60.0
"""To the end of a drain: until clients know of it, and from it to the end of the process, seconds."""


def wants(decision: Decision, spec: InferenceSpec, runtime: RuntimeSpec) -> Wants | None:
    """What the ledger is asked for; None: the runtime is not shared. Outside mode Active it is what was granted before."""
    if not runtime.shared:
        return None
    most, ceiling = spec.batching.max_size, decision.ceiling
    if ceiling is not None and decision.mode == "Advisory":
        ceiling = hold_ceiling(ceiling, decision.state.granted)
    # Before a worker has told its fits: all that it may ever use is warmed up, and a quarter of that is its base.
    tiers = Tiers(max(most // 4, 1), most) if ceiling is None else ceiling.tiers
    return Wants(
        tiers=tiers,
        bounds=None if ceiling is None else ceiling.bounds,
        headroom_percent=spec.memory.headroom_percent,
        device_bytes=None if runtime.accelerator_memory is None else parse_bytes(runtime.accelerator_memory),
        ends_s=spec.drain.timeout_seconds + END_MARGIN_S,
    )


def with_leases(decision: Decision, leases: Leases) -> Decision:
    """The decision as it can be carried out; unchanged where no worker is on a shared device."""
    if not leases.shared:
        return decision
    if decision.ceiling is None:
        return replace(decision, explanation=(*decision.explanation, Step("Lease", leases.text)))
    ceiling = _limited(decision.ceiling, leases)
    told = (Step(step.about, ceiling.message) if step.about == "Ceiling" else step for step in decision.explanation)
    return replace(decision, ceiling=ceiling, explanation=(*told, Step("Lease", leases.text)))


def trouble(leases: Leases) -> list[ConditionUpdate]:
    """The condition of an inference with workers that do not have their base."""
    if leases.trouble is None:
        return []
    return [ConditionUpdate("MemoryBudgetResolved", "False", "DeviceFull", leases.trouble)]


def _limited(ceiling: CeilingDecision, leases: Leases) -> CeilingDecision:
    most = leases.lendable
    ceiling = replace(ceiling, leased=leases.targets, bounds=replace(ceiling.bounds, lease=most))
    if most is None or most >= ceiling.tiers.ceiling:
        return ceiling
    tiers = Tiers(min(ceiling.tiers.base, most), most)
    message = f"ceiling {most}: the shared device can lend no more beside the bases of the others; {ceiling.message}"
    return replace(ceiling, tiers=tiers, limited_by="Lease", message=message)
