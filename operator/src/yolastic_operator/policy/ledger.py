"""The memory of one shared device: who may take how much of it now. Pure.

    sum over the workers of what each may hold <= memory * (1 - headroom), at every instant

Each worker is guaranteed its base tier, the elder first; what is left is lent to those with backlog. `share` says what everybody
should have, `orders` what may be told now: who has too much is told at once, and nobody is given what another has not shown to
have given back. A worker's claim counts with the most that it may hold, so a grant that was sent and not confirmed counts, too.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from yolastic_contract.state import Fit

Stage = Literal["Waiting", "Warming", "Serving", "Fixed"]
Wish = Literal["None", "Lingering", "Pressing"]

PATIENCE_S: Final = 60.0
"""So long a worker waits for the memory of a whole warm-up; then it starts with what is free, if that is enough for its base."""
START_SLACK: Final = 1.05
"""A worker that starts is given this much more than its like has measured: sizes a little over it would be left out for good."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One worker on the device."""

    name: str
    created_s: float
    """The elder comes first."""
    stage: Stage
    """Waiting: starts, holds nothing yet. Warming: starts with what it was granted. Fixed: cannot be told anything."""
    holds_bytes: int = 0
    """The most it may hold at this moment: granted, sent and not confirmed, or not yet given back."""
    fit: Fit | None = None
    """Bytes at the peak of a batch; None when nobody knows."""
    measured: bool = True
    """False: the fit is a plan, made from the model's file."""
    sizes: tuple[int, ...] = (1,)
    """Batch sizes that may be granted, ascending."""
    base: int = 1
    """Wanted by its own bounds, images."""
    ceiling: int = 1
    """Wanted by its own bounds, images."""
    granted_base: int = 0
    """What it is guaranteed already, images."""
    granted_ceiling: int = 0
    wish: Wish = "None"
    """Pressing: images wait. Lingering: they did within the last half minute."""
    waited_s: float = 0.0

    def bytes(self, images: int) -> int:
        """Memory of a batch of so many."""
        return 0 if self.fit is None else math.ceil(self.fit.at(images) + self.fit.residual)

    def largest(self, images: int, room_bytes: int) -> int | None:
        """The largest size up to so many images that fits into the room."""
        return max((size for size in self.sizes if size <= images and self.bytes(size) <= room_bytes), default=None)


@dataclass(frozen=True, slots=True)
class Share:
    """What a worker should have."""

    base: int
    ceiling: int
    budget_bytes: int
    short: bool = False
    """Its base is smaller than it should be: the device is full."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """How a device is shared out."""

    shares: Mapping[str, Share]
    """By worker; one that waits and is not in it has to go on waiting."""
    refused: frozenset[str] = frozenset()
    """Workers that wait and for which there is no room beside the bases of the others, not even for one image."""
    free_bytes: int = 0
    """Lent to nobody."""


def share(claims: Iterable[Claim], capacity_bytes: int) -> Sharing:
    """What everybody should have, whatever they hold now.

    Args:
        claims: all workers on the device.
        capacity_bytes: its memory less the headroom.
    """
    order = sorted(claims, key=lambda claim: (claim.created_s, claim.name))
    serving = [claim for claim in order if claim.stage == "Serving" and claim.fit is not None]
    waiting = [claim for claim in order if claim.stage == "Waiting"]
    counted = {claim.name for claim in (*serving, *waiting)}
    free = capacity_bytes - sum(claim.holds_bytes for claim in order if claim.name not in counted)

    # It runs, so it holds at least this, whether it fits or not.
    sizes = {claim.name: claim.sizes[0] for claim in serving}
    free -= sum(claim.bytes(claim.sizes[0]) for claim in serving)
    free = _raise(serving, sizes, free, lambda claim: min(claim.base, claim.granted_base))
    started: list[Claim] = []
    for claim in waiting:
        size = claim.largest(claim.base, free)
        if size is None or free <= 0:
            continue
        sizes[claim.name] = size
        free -= claim.bytes(size)
        started.append(claim)
    free = _raise([*serving, *started], sizes, free, lambda claim: claim.base)
    bases = dict(sizes)
    ceilings = dict(sizes)

    shares: dict[str, Share] = {}
    if started and not any(claim.stage == "Warming" for claim in order):
        first = started[0]
        given = _start(first, bases[first.name], free + first.bytes(bases[first.name]))
        shares[first.name] = given
        free -= given.budget_bytes - first.bytes(bases[first.name])
    for wish in ("Pressing", "Lingering"):
        free = _lend([claim for claim in serving if claim.wish == wish], ceilings, free)
    for claim in serving:
        base, ceiling = bases[claim.name], ceilings[claim.name]
        short = base < max((size for size in claim.sizes if size <= claim.base), default=base)
        shares[claim.name] = Share(base, ceiling, claim.bytes(ceiling), short)
    refused = frozenset(claim.name for claim in waiting if claim not in started)
    return Sharing(shares, refused, max(free, 0))


def orders(claims: Sequence[Claim], capacity_bytes: int, *, may_grow: bool = True) -> dict[str, Share]:
    """What may be told now, on the way to `share`. Who is not in it keeps what it has.

    Args:
        claims: all workers on the device.
        capacity_bytes: its memory less the headroom.
        may_grow: False while somebody's holdings are not known.
    """
    targets = share(claims, capacity_bytes).shares
    free = capacity_bytes - sum(claim.holds_bytes for claim in claims) if may_grow else 0
    told: dict[str, Share] = {}
    for claim in sorted(claims, key=_turn):
        target = targets.get(claim.name)
        if target is None or claim.stage not in {"Waiting", "Serving"}:
            continue
        if claim.stage == "Waiting" and claim.holds_bytes == 0:
            step = _admitted(claim, target, free)
        else:
            step = target if target.budget_bytes <= claim.holds_bytes else _grown(claim, target, max(free, 0))
        if step is not None:
            free -= max(step.budget_bytes - claim.holds_bytes, 0)
            told[claim.name] = step
    return told


def settled(claims: Sequence[Claim], capacity_bytes: int) -> list[Claim]:
    """The claims as they will be when all that find room have started, and nobody wants more than its base."""
    running = [_serves(claim) if claim.stage == "Warming" else claim for claim in claims]
    refused = share(running, capacity_bytes).refused
    there = [replace(claim, wish="None") for claim in running if claim.name not in refused]
    return [_serves(claim) if claim.stage == "Waiting" else claim for claim in there]


def _serves(claim: Claim) -> Claim:
    return claim if claim.fit is None else replace(claim, stage="Serving")


def lent(claims: Sequence[Claim], name: str, capacity_bytes: int) -> int:
    """The ceiling that a worker would be lent if images waited for it now, images."""
    asked = [replace(claim, wish="Pressing") if claim.name == name else claim for claim in claims]
    found = share(asked, capacity_bytes).shares.get(name)
    return 1 if found is None else found.ceiling


def _raise(claims: Sequence[Claim], sizes: dict[str, int], free: int, up_to: Callable[[Claim], int]) -> int:
    """Bases up to what is wanted, the elder first; what is left."""
    for claim in claims:
        have = sizes[claim.name]
        size = claim.largest(up_to(claim), free + claim.bytes(have))
        if size is not None and size > have:
            free -= claim.bytes(size) - claim.bytes(have)
            sizes[claim.name] = size
    return free


def _lend(claims: Sequence[Claim], sizes: dict[str, int], free: int) -> int:
    """One size more to whoever has the smallest, until nothing fits; what is left."""
    open_ = list(claims)
    while open_:
        claim = min(open_, key=lambda one: (sizes[one.name], one.created_s, one.name))
        have = sizes[claim.name]
        size = next((size for size in claim.sizes if have < size <= claim.ceiling), None)
        if size is None or claim.bytes(size) - claim.bytes(have) > free:
            open_.remove(claim)
            continue
        free -= claim.bytes(size) - claim.bytes(have)
        sizes[claim.name] = size
    return free


def _start(claim: Claim, base: int, room_bytes: int) -> Share:
    """What a worker starts with: all sizes it may ever use are warmed up once, and what is only planned may turn out larger."""
    size = max(claim.largest(max(claim.ceiling, base), room_bytes) or base, base)
    return Share(base, size, _start_bytes(claim, size, room_bytes), base < claim.base)


def _start_bytes(claim: Claim, images: int, room_bytes: int) -> int:
    """Memory for a warm-up up to so many images."""
    if not claim.measured or claim.fit is None:
        return room_bytes
    return min(math.ceil(claim.bytes(images) * START_SLACK), room_bytes)


def _admitted(claim: Claim, target: Share, free_bytes: int) -> Share | None:
    """The start, when there is room for all of it; after long waiting, for the base at least."""
    if free_bytes <= 0:
        return None
    if claim.bytes(target.ceiling) <= free_bytes:
        return replace(target, budget_bytes=min(target.budget_bytes, free_bytes))
    size = claim.largest(target.ceiling, free_bytes)
    if claim.waited_s < PATIENCE_S or size is None or size < target.base:
        return None
    return replace(target, ceiling=size, budget_bytes=_start_bytes(claim, size, free_bytes))


def _grown(claim: Claim, target: Share, free_bytes: int) -> Share | None:
    """As much of the way up as there is memory for; None: none of it."""
    size = claim.largest(target.ceiling, claim.holds_bytes + free_bytes)
    if size is None or size <= claim.granted_ceiling:
        return None
    return replace(target, base=min(target.base, size), ceiling=size, budget_bytes=claim.bytes(size))


def _turn(claim: Claim) -> tuple[bool, bool, float, str]:
    return (claim.stage != "Waiting", claim.wish != "Pressing", claim.created_s, claim.name)
