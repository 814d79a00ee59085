"""The accounts behind the ledger: what each worker on each shared device was granted, has confirmed, and may still hold.

One object for all inferences of an operator; each loop tells what it sees and is told what to grant to its own workers. Pure but
for its memory: time comes in as an argument, bells are functions. Nothing is written down: after a restart everything is read
from the workers' `/state` again, and until all that may be on a device have spoken nobody on it is given more.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from yolastic_contract.state import CeilingGrant
from yolastic_operator.model import Fresh, Observation, Ref, Tiers, WorkerView
from yolastic_operator.policy import lease_words, ledger
from yolastic_operator.policy.account import (
    FORGOTTEN_S,
    Account,
    Told,
    Wants,
    claim_of,
    differs,
    is_news,
    measured_fits,
    shown_tiers,
)
from yolastic_operator.policy.ledger import Claim, Share, Sharing

Key = tuple[str, str]
"""Namespace and name of an inference."""
_Id = tuple[str, str, str]
STRAYS_S: Final = 60.0
"""After its start an operator waits for so long at most to learn of an inference that has pods, seconds; after that pods
without a loop were left behind, or bear our labels and nothing else of ours."""


@dataclass(frozen=True, slots=True)
class Leases:
    """What a turn is to do about shared devices."""

    targets: Mapping[str, Tiers] = field(default_factory=dict)
    """What each worker on a shared device should work with now; the others are granted what was decided."""
    grants: Mapping[str, CeilingGrant] = field(default_factory=dict)
    """To be sent now; they count as held from here on."""
    lendable: int | None = None
    """The ceiling that the device can lend to each worker when the others are calm, images."""
    trouble: str | None = None
    """Why a worker does not have its base, in words."""
    homeless: frozenset[str] = frozenset()
    """Workers that wait for memory and would start if one of another revision made room."""
    text: str = ""
    """The devices, in words."""

    @property
    def shared(self) -> bool:
        """There are workers on a shared device."""
        return bool(self.text)


@dataclass(slots=True)
class _Silence:
    """A worker that has not said what it holds."""

    node: str | None
    ends_s: float
    """Both as in `Account`."""
    until_s: float = math.inf
    """It counts until then."""


class Accounts:
    """All shared devices of one operator."""

    def __init__(
        self,
        *,
        born_s: float = 0.0,
        settle_s: float = 0.0,
        expected: Callable[[], Collection[Key]] = lambda: (),
    ) -> None:
        """Start empty.

        Args:
            born_s: Unix time; workers that are older and silent may hold what somebody else granted them.
            settle_s: at first, for so long after the first turn, nobody is given more.
            expected: inferences that have workers; until each had a turn nobody is given more. In the first `STRAYS_S` seconds
                that holds for all, after that for those that listen.
        """
        self._born_s = born_s
        self._settle_s = settle_s
        self._expected = expected
        self._first_s: float | None = None
        self._accounts: dict[_Id, Account] = {}
        self._silent: dict[_Id, _Silence] = {}
        """Workers from before, which have not said yet what they hold."""
        self._told: set[Key] = set()
        self._forgotten: dict[Key, float] = {}
        """Inferences that are gone, and how long they are kept at least: nobody waits for their turn though pods may be left."""
        self._bells: dict[Key, Callable[[], None]] = {}
        self._serial = 0

    def listen(self, ref: Ref, wake: Callable[[], None]) -> None:
        """`wake` is called when there is something to tell the workers of this inference."""
        self._bells[_key(ref)] = wake

    def forget(self, ref: Ref, now_s: float) -> None:
        """The inference is gone; its workers go a little later."""
        key = _key(ref)
        self._bells.pop(key, None)
        if key in self._told:
            self._told.discard(key)
            self._forgotten[key] = now_s + FORGOTTEN_S
        for one, account in self._accounts.items():
            if one[:2] == key:
                account.claim = replace(account.claim, stage="Fixed")
                account.until_s = now_s + account.ends_s
        for one, silence in self._silent.items():
            if one[:2] == key:
                silence.until_s = min(silence.until_s, now_s + silence.ends_s)

    def gone(self, key: Key, worker: str) -> None:
        """A worker was seen to be no more."""
        self._silent.pop((*key, worker), None)
        account = self._accounts.pop((*key, worker), None)
        if account is not None:
            self._ring(None, {account.device_id})

    def turn(
        self,
        ref: Ref,
        observation: Observation | None,
        wants: Wants | None,
        now_s: float,
        wall_s: float,
        *,
        is_known: bool = True,
    ) -> Leases:
        """Take in what a turn saw, and say what to grant.

        Args:
            ref: whose turn it is.
            observation: its workers; None: it could not look.
            wants: None: its runtime is not shared, or not known; then what its workers hold is counted and nothing is granted.
            is_known: False: it is not known; then its workers may hold something though they do not answer.
            now_s: seconds of a clock that is never set.
            wall_s: Unix time; grants are numbered by it, so that a later operator's numbers are larger.
        """
        key = _key(ref)
        self._first_s = now_s if self._first_s is None else self._first_s
        self._expire(now_s)
        waited = self._waiting(now_s)
        devices = {account.device_id for one, account in self._accounts.items() if one[:2] == key}
        if observation is not None:
            self._take_in(key, observation, wants, now_s, is_known=is_known)
            self._told.add(key)
            self._forgotten.pop(key, None)
        own = {one: account for one, account in self._accounts.items() if one[:2] == key}
        devices |= {account.device_id for account in own.values()}
        devices |= waited - self._waiting(now_s)  # they waited for what has been told just now
        if wants is None or not own:
            self._ring(key, devices, now_s)
            return Leases()
        self._serial = max(self._serial + 1, int(wall_s * 1000))
        leases = self._leases(own, wants, now_s)
        self._ring(key, devices, now_s)
        return leases

    # --- what is known

    def _expire(self, now_s: float) -> None:
        for one in [one for one, account in self._accounts.items() if account.until_s is not None and account.until_s <= now_s]:
            del self._accounts[one]
        for one in [one for one, silence in self._silent.items() if silence.until_s <= now_s]:
            del self._silent[one]
        over = [key for key, until_s in self._forgotten.items() if until_s <= now_s]
        for key in set(over) - set(self._expected()) if over else ():
            del self._forgotten[key]

    def _take_in(self, key: Key, observation: Observation, wants: Wants | None, now_s: float, *, is_known: bool) -> None:
        first = key not in self._told and key not in self._forgotten
        fits = measured_fits(observation)
        for view in observation.workers:
            one = (*key, view.worker.name)
            if view.worker.phase in {"Failed", "Pending"}:
                self._accounts.pop(one, None)  # nothing runs: what it held is free, and its next start asks again
                self._silent.pop(one, None)
                continue
            account = self._accounts.get(one)
            if isinstance(view.state, Fresh):
                self._silent.pop(one, None)
                self._account(one, view, Told(view.state.value, wants, fits.get(view.worker.revision)), now_s)
            elif account is not None:
                account.claim = replace(account.claim, stage="Fixed")
            elif wants is not None and first and view.worker.created_s < self._born_s:
                self._silent[one] = _Silence(view.worker.node, max(FORGOTTEN_S, wants.ends_s))
            elif wants is not None and one in self._silent and view.worker.phase != "Terminating":
                self._silent[one].until_s = math.inf  # it was not known before that it may be on a shared device
            elif first and view.worker.created_s < self._born_s and not is_known:
                # It may be nobody's business here: then it must not keep the others of its node from growing for ever.
                self._silent[one] = _Silence(view.worker.node, FORGOTTEN_S, now_s + FORGOTTEN_S)
            # Nobody is asked any more who is to end, and where its node is off that may never be seen.
            if view.worker.phase == "Terminating" and one in self._silent:
                silence = self._silent[one]
                silence.until_s = min(silence.until_s, now_s + silence.ends_s)
        there = {(*key, view.worker.name) for view in observation.workers}
        for one in [one for one in (*self._accounts, *self._silent) if one[:2] == key and one not in there]:
            self._accounts.pop(one, None)
            self._silent.pop(one, None)

    def _account(self, one: _Id, view: WorkerView, told_of: Told, now_s: float) -> None:
        state, wants = told_of.state, told_of.wants
        told = state.ceiling
        # The operator before may have had another clock: a worker takes nothing that is numbered lower than what it has.
        self._serial = max(self._serial, told.serial or 0)
        ours = wants is not None or told.serial is not None or state.waits_for_memory
        if not ours or state.device_id in {"", state.device}:  # a device that cannot be told from others is not shared out
            self._accounts.pop(one, None)
            return
        account = self._accounts.get(one)
        if account is None or account.worker_id != state.worker_id:
            seen_s = now_s if account is None or account.until_s is not None else account.seen_s
            account = Account(
                state.device_id, None, 0, state.worker_id, view.worker.revision, Claim("/".join(one), 0.0, "Fixed"), state, seen_s
            )  # fmt: skip
            self._accounts[one] = account
        account.device_id, account.state, account.until_s = state.device_id, state, None
        account.node = view.worker.node
        account.device_bytes = state.memory.device_bytes
        if account.sent is not None and told.serial is not None and told.serial >= (account.sent.serial or 0):
            account.sent, account.sent_bytes = None, 0
        if wants is not None:
            account.headroom_percent = wants.headroom_percent
            account.ends_s = max(FORGOTTEN_S, wants.ends_s)
            known = [size for size in (account.device_bytes, wants.device_bytes) if size is not None]
            account.device_bytes = min(known, default=None)
        account.claim = claim_of(account, view, told_of, now_s)

    # --- what follows from it

    def _leases(self, own: Mapping[_Id, Account], wants: Wants, now_s: float) -> Leases:
        targets: dict[str, Tiers] = {}
        grants: dict[str, CeilingGrant] = {}
        lendable: list[int] = []
        trouble: list[str] = []
        words: list[str] = []
        homeless: set[str] = set()
        for device_id in sorted({account.device_id for account in own.values()}):
            capacity, why_not = self._capacity(device_id), self._why_not(now_s, device_id)
            # None of them is granted by anybody else, whatever becomes of them here.
            here = {one: account for one, account in own.items() if account.device_id == device_id}
            targets |= {one[2]: shown_tiers(account.state) for one, account in here.items() if account.state.phase != "Starting"}
            if capacity is None:
                trouble.append(f"device {device_id} does not tell its memory: set acceleratorMemory in the runtime")
                words.append(trouble[-1])
                continue
            calm = ledger.settled(self._claims(device_id), capacity)
            sharing = _fulfilled(self._claims(device_id), calm, capacity)
            homeless |= {one[2] for one in here if _would_start(one, here, self._claims(device_id), capacity)}
            words.append(lease_words.words(device_id, self._claims(device_id), capacity, why_not))
            for one, account in here.items():
                claims, claim, worker = self._claims(device_id), account.claim, one[2]
                order = ledger.orders(claims, capacity, may_grow=why_not is None).get(claim.name)
                if claim.stage == "Serving":
                    targets[worker] = targets[worker] if order is None else Tiers(order.base, order.ceiling)
                    lendable.append(ledger.lent(calm, claim.name, capacity))
                    words.append(lease_words.lease(worker, targets[worker], claim))
                words += lease_words.waits(worker, claim, sharing)
                trouble += lease_words.short(worker, claim, sharing, device_id, capacity)
                grant = None if order is None else self._grant(order, claim, claims, capacity, wants)
                if grant is not None and is_news(account, grant):
                    grants[worker] = grant
                    account.sent, account.sent_bytes = grant, max(account.sent_bytes, grant.budget_bytes or 0)
                    account.claim = replace(claim, holds_bytes=max(claim.holds_bytes, grant.budget_bytes or 0))
        why = "; ".join(trouble) or None
        return Leases(targets, grants, min(lendable, default=None), why, frozenset(homeless), "; ".join(words))

    def _grant(self, order: Share, claim: Claim, claims: Sequence[Claim], capacity: int, wants: Wants) -> CeilingGrant:
        reachable = max(order.ceiling, ledger.lent(claims, claim.name, capacity))
        bounds = {} if wants.bounds is None else wants.bounds.own()
        return CeilingGrant(
            base=order.base, ceiling=order.ceiling, budget_bytes=order.budget_bytes, reachable=reachable, bounds=bounds,
            wanted=max(claim.ceiling, order.ceiling), serial=self._serial,
        )  # fmt: skip

    def _why_not(self, now_s: float, device_id: str) -> str | None:
        """Why nobody on this device may be given more now, in words; None: they may."""
        if self._silent:
            nodes = {account.node for account in self._accounts.values() if account.device_id == device_id}
            here = [one for one, silence in self._silent.items() if None in {*nodes, silence.node} or silence.node in nodes]
            if here:
                return f"worker {min(here)[2]} has not said what it holds"
        return self._why_nobody(now_s)

    def _why_nobody(self, now_s: float) -> str | None:
        """Why nobody on any device may."""
        missing = set(self._expected()) - self._told - self._forgotten.keys()
        if missing and self._first_s is not None and now_s - self._first_s >= STRAYS_S:
            missing &= self._bells.keys()
        if missing:
            return f"{'/'.join(min(missing))} has not been looked at"
        if self._first_s is not None and now_s - self._first_s < self._settle_s:
            return "the operator has just started"
        return None

    def _waiting(self, now_s: float) -> set[str]:
        """Devices on which nobody may be given more now."""
        devices = {account.device_id for account in self._accounts.values()}
        if self._why_nobody(now_s) is not None:
            return devices
        return {device_id for device_id in devices if self._why_not(now_s, device_id) is not None} if self._silent else set()

    def _capacity(self, device_id: str) -> int | None:
        """Memory of the device less the largest headroom that anybody on it asks for; None: nobody knows it."""
        here = [account for account in self._accounts.values() if account.device_id == device_id]
        known = [account.device_bytes for account in here if account.device_bytes is not None]
        if not known:
            return None
        return min(known) * (100 - max(account.headroom_percent for account in here)) // 100

    def _claims(self, device_id: str) -> list[Claim]:
        return [account.claim for account in self._accounts.values() if account.device_id == device_id]

    def _ring(self, but: Key | None, devices: Iterable[str], now_s: float | None = None) -> None:
        """Wake the others who have something to tell their workers on these devices."""
        for device_id in devices:
            capacity = self._capacity(device_id)
            if capacity is None:
                continue
            may_grow = now_s is None or self._why_not(now_s, device_id) is None
            told = ledger.orders(self._claims(device_id), capacity, may_grow=may_grow)
            for one, account in self._accounts.items():
                order = told.get(account.claim.name)
                if order is not None and one[:2] != but and account.device_id == device_id and differs(account, order):
                    self._bells.get(one[:2], _silence)()


def _fulfilled(claims: Sequence[Claim], calm: Sequence[Claim], capacity: int) -> Sharing:
    """How the device is shared out when all that find room have started; who does not, is refused."""
    there = {claim.name for claim in calm}
    refused = frozenset(claim.name for claim in claims if claim.name not in there)
    return replace(ledger.share(calm, capacity), refused=refused)


def _would_start(one: _Id, own: Mapping[_Id, Account], claims: Sequence[Claim], capacity: int) -> bool:
    """It finds no room, and would if one worker of another revision of the same inference went."""
    me = own[one]

    def starts(there: Sequence[Claim]) -> bool:
        return any(claim.name == me.claim.name for claim in ledger.settled(there, capacity))

    if me.claim.stage != "Waiting" or starts(claims):
        return False
    old = [account.claim for account in own.values() if account.revision != me.revision]
    # Those of them that wait themselves would go before it, and after them the one.
    idle = {claim.name for claim in old if claim.stage == "Waiting"}
    there = [claim for claim in claims if claim.name not in idle]
    return any(starts([claim for claim in there if claim.name != other.name]) for other in old)


def _key(ref: Ref) -> Key:
    return ref.namespace, ref.name


def _silence() -> None:
    """Nobody listens."""
