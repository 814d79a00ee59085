"""What the ledger says of itself: devices and leases in words, for the explanation and the condition. Pure."""

from collections.abc import Sequence

from yolastic_contract.quantity import format_bytes
from yolastic_operator.model import Tiers
from yolastic_operator.policy.ledger import Claim, Sharing


def words(device_id: str, claims: Sequence[Claim], capacity: int, why_not: str | None) -> str:
    """How full a device is."""
    held = sum(claim.holds_bytes for claim in claims)
    count = f"{len(claims)} worker{'' if len(claims) == 1 else 's'}"
    told = f"device {device_id}: {format_bytes(held)} of {format_bytes(capacity)} granted to {count}"
    return told if why_not is None else f"{told}; nobody is lent more: {why_not}"


def lease(worker: str, target: Tiers, claim: Claim) -> str:
    """What a worker works with."""
    if target.ceiling > target.base:
        asks = "" if target.ceiling >= claim.ceiling else f" of the {claim.ceiling} it may use"
        return f"{worker} is lent a burst of {target.ceiling}{asks}, base {target.base}"
    if claim.wish != "None" and claim.ceiling > target.ceiling:
        return f"{worker} waits for a burst, base {target.base}"
    return f"{worker} has its base of {target.base}"


def waits(worker: str, claim: Claim, sharing: Sharing) -> list[str]:
    """How far a worker is that starts."""
    if claim.stage == "Waiting" and claim.name not in sharing.refused:
        return [f"{worker} waits for memory to start with"]
    return [f"{worker} starts"] if claim.stage == "Warming" else []


def short(worker: str, claim: Claim, sharing: Sharing, device_id: str, capacity: int) -> list[str]:
    """What a worker lacks for its base."""
    on = f"on device {device_id} with {format_bytes(capacity)} to share out"
    if claim.name in sharing.refused:
        needs = "" if claim.fit is None else f": a batch of one takes {format_bytes(claim.bytes(claim.sizes[0]))}"
        return [f"{worker} finds no room to start {on} beside the bases of older workers{needs}"]
    found = sharing.shares.get(claim.name)
    if found is not None and found.short:
        return [f"{worker} has a base of {found.base} instead of {claim.base} {on}: the bases of older workers come first"]
    return []
