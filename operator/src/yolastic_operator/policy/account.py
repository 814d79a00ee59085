"""The account of one worker on a shared device: what it was granted, has confirmed, may still hold, and what it claims. Pure."""

from dataclasses import dataclass, replace
from typing import Final

from yolastic_contract.names import buckets_up_to
from yolastic_contract.state import CeilingGrant, Fit, WorkerState
from yolastic_operator.model import Bounds, Missing, Observation, Tiers, WorkerView
from yolastic_operator.policy import ledger
from yolastic_operator.policy.ledger import Claim, Share

PRESSING_S: Final = 1.0
"""A backlog that was small for longer than this gives way to one that is not."""

FORGOTTEN_S: Final = 300.0
"""Workers that are to end and are not heard of count at least this long, unless they are seen to go; seconds."""


@dataclass(frozen=True, slots=True)
class Wants:
    """What an inference wants for each of its workers, and what it says of the device."""

    tiers: Tiers
    """By its own bounds, images."""
    bounds: Bounds | None = None
    """They are told to the worker for its metrics; None: not known yet."""
    headroom_percent: int = 10
    device_bytes: int | None = None
    """Declared; None: as the workers say."""
    ends_s: float = 0.0
    """The longest its workers may take to end, seconds."""


@dataclass(slots=True)
class Account:
    """One worker, as it was last seen."""

    device_id: str
    device_bytes: int | None
    headroom_percent: int
    worker_id: str
    revision: str
    claim: Claim
    state: WorkerState
    seen_s: float
    """When it was first seen."""
    node: str | None = None
    """Where it runs; None: that is not known."""
    ends_s: float = FORGOTTEN_S
    """From the order to end to when it has, at the most."""
    sent: CeilingGrant | None = None
    """Sent, and not shown in `/state` yet."""
    sent_bytes: int = 0
    """The most of what was sent since it last confirmed."""
    until_s: float | None = None
    """Nobody looks at it any more: it counts until then."""


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of a worker in one turn."""

    state: WorkerState
    wants: Wants | None
    sibling: Fit | None
    """What another worker of the same revision has measured."""


def claim_of(account: Account, view: WorkerView, told_of: Told, now_s: float) -> Claim:
    """What the ledger counts for a worker, and what it may be told: from its account and its newest state."""
    state, told, wants, sibling = account.state, account.state.ceiling, told_of.wants, told_of.sibling
    own = state.memory.fit
    fit, measured = (own or sibling), own is not None or sibling is not None
    claim = Claim(
        name=account.claim.name, created_s=view.worker.created_s, stage="Fixed", fit=fit or state.memory.plan, measured=measured,
        waited_s=now_s - account.seen_s,
    )  # fmt: skip
    if state.phase == "Starting":
        stage: ledger.Stage = "Waiting" if state.waits_for_memory else "Warming"
        held = account.sent_bytes if state.waits_for_memory else max(told.budget_bytes or 0, account.sent_bytes)
        sizes = buckets_up_to(state.max_batch)
        claim = replace(claim, stage=stage if wants is not None else "Fixed", holds_bytes=held, sizes=sizes)
    else:
        sizes = tuple(sorted({1, *state.buckets}))
        leased = told.budget_bytes or 0 if told.serial is not None else 0
        held = max(leased, claim.bytes(max(told.ceiling, state.memory.held_images or 0)), account.sent_bytes)
        stage = "Serving" if wants is not None and state.phase in {"Ready", "Draining"} and fit is not None else "Fixed"
        claim = replace(
            claim, stage=stage, holds_bytes=held, sizes=sizes, granted_base=told.base if told.granted else 0,
            granted_ceiling=told.ceiling,
        )  # fmt: skip
    if wants is None:
        return claim
    wish: ledger.Wish = "None"
    if told.backlog and state.phase == "Ready":
        wish = "Pressing" if told.calm_s < PRESSING_S else "Lingering"
    allowed = wants.tiers
    if wants.bounds is None and told.granted and state.phase != "Starting":
        # While a new revision has told no figures nothing is decided: what was decided for this one stands.
        ceiling = min(allowed.ceiling, told.wanted or told.ceiling)
        allowed = Tiers(min(allowed.base, ceiling), ceiling)
    return replace(claim, base=min(allowed.base, sizes[-1]), ceiling=min(allowed.ceiling, sizes[-1]), wish=wish)


def measured_fits(observation: Observation) -> dict[str, Fit]:
    """The largest fit that a worker of each revision has measured."""
    found: dict[str, Fit] = {}
    for view in observation.workers:
        fit = None if isinstance(view.state, Missing) else view.state.value.memory.fit
        if fit is not None:
            before = found.get(view.worker.revision, fit)
            found[view.worker.revision] = max(before, fit, key=lambda one: (one.fixed + one.residual, one.per_image))
    return found


def shown_tiers(state: WorkerState) -> Tiers:
    """What a worker says that it works with."""
    return Tiers(state.ceiling.base, state.ceiling.ceiling)


def differs(account: Account, order: Share) -> bool:
    """The worker neither shows nor was sent this."""
    wanted = (order.base, order.ceiling, order.budget_bytes)
    told, sent = account.state.ceiling, account.sent
    if sent is not None:
        return (sent.base, sent.ceiling, sent.budget_bytes) != wanted
    return not told.granted or (told.base, told.ceiling, told.budget_bytes) != wanted


def is_news(account: Account, grant: CeilingGrant) -> bool:
    """The worker does not show it, or has not given back what it should have."""
    told, held = account.state.ceiling, account.state.memory.held_images or 0
    # As long as what was sent is not confirmed, it may yet come: only a later grant ends that.
    if account.sent is not None or not told.granted or held > grant.ceiling:
        return True
    shown = (told.base, told.ceiling, told.budget_bytes, told.reachable, told.wanted)
    return shown != (grant.base, grant.ceiling, grant.budget_bytes, grant.reachable, grant.wanted)
