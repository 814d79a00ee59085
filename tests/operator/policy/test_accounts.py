"""The accounts of a shared device under everything that may happen between an operator and its workers.

The workers here are the truth: what each may use at any instant is known, and the sum must never be more than the device has.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from policy_builders import seen, state, view

from yolastic_contract.names import buckets_up_to
from yolastic_contract.state import CeilingGrant, CeilingState, Fit, WorkerState
from yolastic_operator.model import Bounds, Missing, Observation, Ref, Tiers, WorkerView
from yolastic_operator.policy import ledger
from yolastic_operator.policy.account import FORGOTTEN_S, Wants
from yolastic_operator.policy.accounts import STRAYS_S, Accounts, Leases

FIXED, PER_IMAGE, MOST = 1000, 100, 32
CAPACITY = 3 * (FIXED + 8 * PER_IMAGE) + 24 * PER_IMAGE
DEVICE = CAPACITY * 10 // 9 + 1
WANTS = Wants(Tiers(8, MOST))
REFS = (Ref("plant", "a"), Ref("plant", "b"), Ref("plant", "c"))
FATES = st.sampled_from(["arrives", "arrives", "late", "lost"])
LATE_S = 3.0
"""A request that is on its way when the operator ends arrives within this long, or never."""


@dataclass
class Real:
    """A worker as it really is."""

    ref: Ref
    name: str
    created_s: float
    life: int = 0
    phase: str = "Dark"
    """Dark: its control port does not answer yet. Waiting, Warming, Ready, Draining, Dead."""
    base: int = MOST
    ceiling: int = MOST
    budget: int = 0
    serial: int | None = None
    within_reach: int | None = None
    wanted: int | None = None
    held: int = 0
    shrinks: bool = False
    backlog: bool = False
    calm_s: float = 0.0
    terminating: bool = False
    reachable: bool = True
    node: str | None = None
    device: str = "GPU-0"

    def used(self) -> int:
        """The most it may use at this instant."""
        if self.phase in {"Dark", "Waiting", "Dead"}:
            return 0
        if self.phase == "Warming":
            return self.budget
        return FIXED + PER_IMAGE * max(self.ceiling, self.held)

    def take(self, grant: CeilingGrant) -> None:
        """`PUT /ceiling`, as the worker does it."""
        if self.phase == "Waiting":
            self.phase = "Warming"
        elif self.phase not in {"Ready", "Draining"} or (self.serial is not None and (grant.serial or 0) < self.serial):
            return
        elif (grant.budget_bytes or 0) < self.budget or self.held > grant.ceiling:
            self.shrinks = True
        self.base, self.ceiling, self.budget, self.serial = grant.base, grant.ceiling, grant.budget_bytes or 0, grant.serial
        self.within_reach, self.wanted = grant.reachable, grant.wanted

    def turn(self) -> None:
        """Its engine thread: memory first, then the next batch."""
        if self.shrinks:
            self.held, self.shrinks = 0, False
        elif self.backlog and self.phase in {"Ready", "Draining"}:
            self.held = max(self.held, self.ceiling)

    def tells(self) -> WorkerState:
        """`GET /state`."""
        starting = self.phase in {"Waiting", "Warming"}
        base = state(
            memory=None if starting else (FIXED, PER_IMAGE), max_batch=MOST, phase="Starting" if starting else self.phase
        )
        memory = base.memory.model_copy(
            update={"device_bytes": DEVICE, "plan": Fit(fixed=FIXED, per_image=PER_IMAGE), "held_images": self.held}
        )
        granted = self.serial is not None
        ceiling = CeilingState(
            base=self.base, ceiling=self.ceiling, effective=self.base, burst=False, granted=granted,
            budget_bytes=self.budget if granted else None, serial=self.serial, reachable=self.within_reach, wanted=self.wanted,
            backlog=self.backlog, calm_s=self.calm_s,
        )  # fmt: skip
        return base.model_copy(
            update={
                "worker_id": f"{self.name}-{self.life}", "device": "simulated", "device_id": self.device,
                "memory": memory, "ceiling": ceiling,
                "waits_for_memory": self.phase == "Waiting", "buckets": [] if starting else list(buckets_up_to(MOST)),
            }
        )  # fmt: skip

    def view(self) -> WorkerView:
        """As the cluster and the observer see it."""
        phases = {"Dark": "Starting", "Waiting": "Starting", "Warming": "Starting", "Dead": "Failed"}
        phase = "Terminating" if self.terminating else phases.get(self.phase, self.phase)
        silent = self.phase in {"Dark", "Dead"} or self.terminating or not self.reachable
        told: Any = Missing("no answer") if silent else self.tells()
        seen_so = view(self.name, told=told, phase=phase, created_s=self.created_s)
        return replace(seen_so, worker=replace(seen_so.worker, node=self.node))


@dataclass
class World:
    """The device, its workers, and what is on its way to them."""

    now_s: float = 1000.0
    accounts: Accounts = field(default_factory=Accounts)
    workers: dict[str, Real] = field(default_factory=dict)
    sent: list[tuple[float, str, int, CeilingGrant]] = field(default_factory=list)
    """When, to whom, in which life, what: not arrived yet."""
    made: int = 0
    restarted_s: float = 0.0

    def add(self, ref: Ref, phase: str = "Dark") -> Real:
        self.made += 1
        made = Real(ref, f"{ref.name}-{self.made}", self.now_s, phase=phase)
        self.workers[made.name] = made
        return made

    def observation(self, ref: Ref) -> Observation:
        return seen(*(one.view() for one in self.workers.values() if one.ref == ref))

    def turn(self, ref: Ref, fate: str = "arrives") -> Leases:
        """One turn of a loop; `fate` of what it sends: arrives, late, lost."""
        self.now_s += 0.25
        leases = self.accounts.turn(ref, self.observation(ref), WANTS, self.now_s, self.now_s)
        for name, grant in leases.grants.items():
            if fate == "arrives":
                self.workers[name].take(grant)
            elif fate == "late":
                self.sent.append((self.now_s, name, self.workers[name].life, grant))
        return leases

    def round(self) -> None:
        """Everybody once."""
        for ref in REFS:
            self.turn(ref)
        for one in self.workers.values():
            one.turn()
            if one.phase in {"Dark", "Warming"}:
                one.phase = "Waiting" if one.phase == "Dark" else "Ready"

    def restart(self) -> None:
        known = lambda: {(one.ref.namespace, one.ref.name) for one in self.workers.values()}  # noqa: E731
        self.accounts = Accounts(born_s=self.now_s, settle_s=LATE_S, expected=known)
        self.restarted_s = self.now_s

    def arrives(self, sent_s: float) -> bool:
        """Whether what was sent then still does: of an operator that is no more only what is not too late."""
        return sent_s > self.restarted_s or self.now_s - sent_s <= LATE_S

    def used(self) -> int:
        return sum(one.used() for one in self.workers.values())


class AnythingMayHappen(RuleBasedStateMachine):
    """Demand, lost and late words, workers that come, go, hang and die, operators that restart: never over the device."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize()
    def three_serve(self) -> None:
        for ref in REFS:
            self.world.add(ref)
        for _ in range(8):
            self.world.round()

    @rule(ref=st.sampled_from(REFS), fate=FATES)
    def turn(self, ref: Ref, fate: str) -> None:
        self.world.turn(ref, fate)

    @rule()
    def round(self) -> None:
        self.world.round()

    @precondition(lambda self: self.world.workers)
    @rule(data=st.data(), calm_s=st.sampled_from([0.0, 10.0]), fates=st.lists(FATES, min_size=6, max_size=6), works=st.booleans())
    def load_moves_on(self, data: st.DataObject, calm_s: float, fates: list[str], works: bool) -> None:
        """One is in need, the others were: two turns of everybody, with whatever becomes of their words."""
        needy = self.some(data)
        for one in self.world.workers.values():
            one.calm_s = 0.0 if one is needy else calm_s
            one.backlog = one is needy or one.backlog
        for ref, fate in zip((*REFS, *REFS), fates, strict=True):
            self.world.turn(ref, fate)
            if works:
                for one in self.world.workers.values():
                    one.turn()

    @precondition(lambda self: self.world.sent)
    @rule(data=st.data())
    def arrives_late(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.world.sent) - 1))
        sent_s, name, life, grant = self.world.sent.pop(index)
        if name in self.world.workers and self.world.workers[name].life == life and self.world.arrives(sent_s):
            self.world.workers[name].take(grant)

    @precondition(lambda self: self.world.workers)
    @rule(data=st.data())
    def gets_on(self, data: st.DataObject) -> None:
        one = self.some(data)
        one.turn()
        one.phase = {"Dark": "Waiting", "Warming": "Ready"}.get(one.phase, one.phase)

    @rule(data=st.data(), ref=st.sampled_from(REFS))
    def something_happens(self, data: st.DataObject, ref: Ref) -> None:
        """What does not happen every second."""
        what = data.draw(st.sampled_from(["comes", "hangs", "speaks", "leaves", "goes", "starts anew", "restart", "deleted"]))
        world = self.world
        if what == "restart":
            world.restart()
        elif what == "deleted":
            world.accounts.forget(ref, world.now_s)
            for one in world.workers.values():
                one.terminating = one.terminating or one.ref == ref
        elif what == "comes" or not world.workers:
            if len(world.workers) < 6:
                world.add(ref)
        else:
            self.becomes(self.some(data), what)

    def becomes(self, one: Real, what: str) -> None:
        world = self.world
        if what in {"hangs", "speaks"}:
            one.reachable = what == "speaks"
        elif what == "leaves":
            one.phase, one.terminating = ("Draining", False) if one.phase == "Ready" else (one.phase, True)
        elif what == "goes" and one.terminating:
            del world.workers[one.name]
            world.accounts.gone((one.ref.namespace, one.ref.name), one.name)
        elif what == "starts anew":  # a container, under the same name, with nothing granted
            fresh = Real(one.ref, one.name, one.created_s, one.life + 1, "Dead", terminating=one.terminating)
            world.workers[one.name] = fresh
            if world.now_s % 1.0 < 0.5:  # or it happens between two looks
                world.turn(one.ref)
            fresh.phase = "Dark"

    def some(self, data: st.DataObject) -> Real:
        return self.world.workers[data.draw(st.sampled_from(sorted(self.world.workers)))]

    @invariant()
    def never_over_the_device(self) -> None:
        assert self.world.used() <= CAPACITY, [(one.name, one.phase, one.used()) for one in self.world.workers.values()]


TestAnythingMayHappen = AnythingMayHappen.TestCase
TestAnythingMayHappen.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


@pytest.fixture
def serving() -> World:
    """Three that serve with their base."""
    world = World()
    for ref in REFS:
        world.add(ref)
    for _ in range(8):
        world.round()
    assert [(one.phase, one.base, one.ceiling, one.held) for one in world.workers.values()] == [("Ready", 8, 8, 0)] * 3
    return world


def ceilings(world: World) -> list[int]:
    return [one.ceiling for one in world.workers.values()]


def test_all_that_is_free_comes_in_the_first_turn(serving: World) -> None:
    first = serving.workers["a-1"]
    first.backlog = True
    serving.turn(first.ref)
    assert first.ceiling == 32


def test_a_burst_moves_on_in_a_bounded_number_of_turns(serving: World) -> None:
    first, second, _ = serving.workers.values()
    first.backlog = True
    serving.round()
    first.backlog, second.backlog = True, True
    first.calm_s = 2.0  # its images are done, and its 30 s are not over
    for _ in range(3):
        serving.round()
    assert ceilings(serving) == [8, 32, 8]


def test_who_has_not_given_back_what_it_should_is_told_again(serving: World) -> None:
    first = serving.workers["a-1"]
    assert not serving.turn(first.ref).grants
    first.held = 32
    assert list(serving.turn(first.ref).grants) == [first.name]
    first.turn()
    assert first.held == 0
    assert not serving.turn(first.ref).grants


def test_who_leaves_is_lent_nothing(serving: World) -> None:
    first = serving.workers["a-1"]
    first.phase, first.backlog = "Draining", True
    serving.turn(first.ref)
    assert first.ceiling == 8


def test_while_nothing_is_decided_what_was_decided_before_stands(serving: World) -> None:
    first = serving.workers["a-1"]
    first.wanted, first.backlog = 16, True
    serving.turn(first.ref)
    assert first.ceiling == 16
    decided = replace(WANTS, bounds=Bounds(spec=MOST))
    (grant,) = serving.accounts.turn(first.ref, serving.observation(first.ref), decided, serving.now_s, 2000.0).grants.values()
    assert grant.ceiling == 32


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (replace(WANTS, headroom_percent=20), WANTS),
        (replace(WANTS, device_bytes=DEVICE * 9 // 10), WANTS),
        (replace(WANTS, device_bytes=DEVICE * 9 // 10), replace(WANTS, device_bytes=2 * DEVICE)),
    ],
)
def test_of_what_is_said_of_a_device_the_least_holds_for_all(serving: World, one: Wants, other: Wants) -> None:
    first, second, _ = serving.workers.values()
    for wants, worker in ((one, first), (other, second)):
        worker.backlog = worker is second
        leases = serving.accounts.turn(worker.ref, serving.observation(worker.ref), wants, serving.now_s, 2000.0)
    assert [grant.ceiling for grant in leases.grants.values()] == [16]


@pytest.mark.parametrize("phase", ["Pending", "Dead", None])
def test_what_one_held_that_runs_no_more_is_free(serving: World, phase: str | None) -> None:
    first, second, _ = serving.workers.values()
    first.backlog = True
    serving.turn(first.ref)
    assert first.ceiling == 32
    if phase is None:
        del serving.workers[first.name]
    else:
        first.phase, first.reachable = phase, False
    second.backlog = True
    serving.turn(first.ref)
    serving.turn(second.ref)
    assert second.ceiling == 32


def test_what_the_workers_of_a_deleted_inference_hold_counts_until_they_are_gone(serving: World) -> None:
    first, second, _ = serving.workers.values()
    first.backlog = True
    serving.turn(first.ref)
    rung: list[str] = []
    serving.accounts.listen(second.ref, lambda: rung.append("b"))
    serving.accounts.forget(first.ref, serving.now_s)
    second.backlog = True
    serving.turn(second.ref)
    assert second.ceiling == 8
    serving.add(second.ref, "Waiting")
    trouble = serving.turn(second.ref).trouble
    assert trouble is not None
    assert "b-4 finds no room to start" in trouble, "nor is it counted as if it gave anything back"
    del serving.workers["b-4"]
    serving.turn(second.ref)
    rung.clear()
    serving.accounts.gone(("plant", "a"), first.name)
    assert rung == ["b"]
    serving.turn(second.ref)
    assert second.ceiling == 32


def test_a_budget_that_was_given_counts_until_a_smaller_one_is_shown(serving: World) -> None:
    """A worker starts with a little more than its like took, and what it takes is known only then."""
    first, second, _ = serving.workers.values()
    first.budget, second.backlog = FIXED + 32 * PER_IMAGE, True
    serving.turn(first.ref, "lost")
    serving.turn(second.ref)
    assert second.ceiling == 8
    serving.turn(first.ref)
    assert first.budget == FIXED + 8 * PER_IMAGE
    serving.turn(first.ref)
    serving.turn(second.ref)
    assert second.ceiling == 32


def test_what_was_sent_to_one_that_starts_counts_though_it_does_not_show_it() -> None:
    world = World()
    old, new = world.add(REFS[0]), world.add(REFS[1], "Waiting")
    for _ in range(4):
        world.turn(old.ref)
        old.phase = {"Dark": "Waiting", "Warming": "Ready"}.get(old.phase, old.phase)
    world.turn(new.ref, "late")
    new.phase = "Warming"
    world.turn(new.ref)
    (claim,) = (one for one in world.accounts._claims("GPU-0") if one.name.endswith(new.name))
    assert (claim.stage, claim.holds_bytes) == ("Warming", world.sent[0][3].budget_bytes)


def test_the_other_loop_is_woken_when_it_must_give_back_and_when_it_may_take(serving: World) -> None:
    rung: list[str] = []
    for ref in REFS:
        serving.accounts.listen(ref, lambda name=ref.name: rung.append(name))
    first, second, _ = serving.workers.values()
    first.backlog = True
    serving.turn(first.ref)
    assert (first.ceiling, rung) == (32, [])
    first.turn()
    first.calm_s, second.backlog = 2.0, True
    serving.turn(second.ref)
    assert rung == ["a"]
    serving.turn(first.ref)  # told to give back
    first.turn()
    rung.clear()
    serving.turn(first.ref)  # shows that it has
    assert rung == ["b"]
    serving.turn(second.ref)
    assert second.ceiling == 32


def test_nothing_is_lent_before_memory_was_given_back(serving: World) -> None:
    first, second, _ = serving.workers.values()
    first.backlog = True
    serving.round()
    serving.round()
    first.calm_s, second.backlog = 2.0, True
    serving.turn(second.ref)
    serving.turn(first.ref)
    assert (first.ceiling, first.held) == (8, 32), "granted less, and a batch of 32 still has its memory"
    serving.turn(first.ref)  # shows what it was granted, and what it holds
    serving.turn(second.ref)
    assert second.ceiling == 8
    first.turn()
    serving.turn(first.ref)
    serving.turn(second.ref)
    assert second.ceiling == 32


def test_a_grant_that_was_lost_is_sent_again_and_counts_until_then(serving: World) -> None:
    first, second, _ = serving.workers.values()
    first.backlog = True
    serving.turn(first.ref, "lost")
    second.backlog = True
    serving.turn(second.ref)
    assert second.ceiling == 8, "it may be on its way"
    serving.round()
    serving.round()
    assert sorted(ceilings(serving)) == [8, 16, 16]


def test_what_may_still_be_on_its_way_counts(serving: World) -> None:
    first, second, _ = serving.workers.values()
    first.backlog = True
    serving.turn(first.ref, "late")
    first.backlog, second.backlog = False, True
    serving.turn(first.ref, "lost")
    serving.turn(first.ref, "lost")
    serving.turn(second.ref)
    assert second.ceiling == 8
    serving.turn(first.ref)
    serving.turn(first.ref)
    serving.turn(second.ref)
    ((_, _, _, late),) = serving.sent
    first.take(late)
    assert (first.ceiling, second.ceiling) == (8, 32)


def test_a_grant_that_comes_after_a_later_one_is_not_taken(serving: World) -> None:
    first = serving.workers["a-1"]
    first.backlog = True
    serving.turn(first.ref, "late")
    first.backlog = False
    serving.turn(first.ref)
    ((_, _, _, late),) = serving.sent
    first.take(late)
    assert first.ceiling == 8


def test_after_a_restart_nobody_grows_until_all_have_spoken(serving: World) -> None:
    first, second, third = serving.workers.values()
    first.backlog = True
    serving.round()
    third.reachable = False
    second.backlog, first.calm_s = True, 5.0
    serving.restart()
    for _ in range(40):
        serving.round()
    assert (first.ceiling, second.ceiling) == (16, 8), "some is taken back, and it is lent to nobody"
    third.reachable = True
    for _ in range(4):
        serving.round()
    assert second.ceiling == 32


@pytest.mark.parametrize(("node", "lent"), [("left", 8), (None, 8), ("right", 32)])
def test_after_a_restart_a_silent_worker_holds_up_only_the_devices_of_its_node(node: str | None, lent: int) -> None:
    """A restarted operator does not know on which device a worker is that hangs; on another node's it is not."""
    world = World()
    there, here = world.add(REFS[0]), world.add(REFS[1])
    there.node, there.device, here.node = node, "GPU-1", "left"
    for _ in range(12):
        world.round()
    assert (there.base, here.base, here.ceiling) == (8, 8, 8)
    there.reachable, here.backlog = False, True
    world.restart()
    for _ in range(20):
        world.round()
    assert here.ceiling == lent
    assert ("nobody is lent more: worker a-1 has not said what it holds" in world.turn(here.ref).text) == (lent == 8)


def test_a_silent_worker_keeps_what_it_has(serving: World) -> None:
    first, second, _ = serving.workers.values()
    first.backlog = True
    serving.round()
    first.reachable, second.backlog = False, True
    for _ in range(20):
        serving.round()
    assert (first.ceiling, second.ceiling) == (32, 8)


def test_a_container_that_started_again_holds_nothing(serving: World) -> None:
    first, second, _ = serving.workers.values()
    first.backlog = True
    serving.round()
    serving.workers[first.name] = Real(first.ref, first.name, first.created_s, 1, "Waiting")
    second.backlog = True
    for _ in range(6):
        serving.round()
    assert ceilings(serving) == [8, 32, 8]


def test_a_fourth_that_finds_no_room_says_so_and_leaves_the_others_alone(serving: World) -> None:
    for number in range(2):
        serving.add(REFS[number])
    for _ in range(10):
        serving.round()
    last = list(serving.workers.values())[-1]
    assert last.phase == "Waiting"
    trouble = serving.turn(last.ref).trouble
    assert trouble is not None
    assert trouble.startswith(f"{last.name} finds no room to start on device GPU-0")
    assert [one.base for one in serving.workers.values()][:3] == [8, 8, 8]


def test_a_device_that_does_not_tell_its_memory_is_named(serving: World) -> None:
    world = World()
    one = world.add(REFS[0], "Waiting")
    one_seen = one.view()
    told = one.tells()
    unknown = told.model_copy(update={"memory": told.memory.model_copy(update={"device_bytes": None})})
    leases = world.accounts.turn(one.ref, seen(replace(one_seen, state=replace(one_seen.state, value=unknown))), WANTS, 0.0, 0.0)
    assert leases.trouble == "device GPU-0 does not tell its memory: set acceleratorMemory in the runtime"
    assert not leases.grants
    declared = replace(WANTS, device_bytes=DEVICE)
    assert world.accounts.turn(
        one.ref, seen(replace(one_seen, state=replace(one_seen.state, value=unknown))), declared, 1.0, 1.0
    ).grants


def test_without_sharing_there_is_nothing_to_do() -> None:
    leases = Accounts().turn(REFS[0], seen(view("w")), None, 0.0, 0.0)
    assert (leases, leases.shared) == (Leases(), False)
    cpu = state().model_copy(update={"device_id": "cpu", "device": "cpu"})
    assert not Accounts().turn(REFS[0], seen(view("w", told=cpu)), WANTS, 0.0, 0.0).shared


def test_an_operator_whose_clock_is_behind_is_listened_to_all_the_same(serving: World) -> None:
    first, second, _ = serving.workers.values()
    first.backlog = True
    serving.round()
    serving.restart()
    first.backlog, second.backlog = False, True
    for _ in range(8):
        for ref in REFS:
            serving.now_s += 1.0
            leases = serving.accounts.turn(ref, serving.observation(ref), WANTS, serving.now_s, serving.now_s - 3600.0)
            for name, grant in leases.grants.items():
                serving.workers[name].take(grant)
        for one in serving.workers.values():
            one.turn()
    assert ceilings(serving) == [8, 32, 8]


def test_an_inference_that_was_deleted_keeps_nobody_waiting(serving: World) -> None:
    first, second, _ = serving.workers.values()
    serving.accounts._expected = lambda: {(one.ref.namespace, one.ref.name) for one in serving.workers.values()}
    serving.accounts.forget(first.ref, serving.now_s)
    first.terminating = True  # for as long as it takes it, or for ever: orphans stay
    second.backlog = True
    for passed_s in (0.0, 2 * FORGOTTEN_S):
        serving.now_s += passed_s
        leases = serving.turn(second.ref)
        assert "nobody is lent more" not in leases.text
    assert ceilings(serving) == [8, 32, 8]


def test_pods_of_no_inference_stop_nobody_for_ever_and_one_that_has_a_loop_is_waited_for(serving: World) -> None:
    """Orphans of one that was deleted before this operator began, or pods with a worker's labels that somebody made."""
    _, second, _ = serving.workers.values()
    serving.restart()
    serving.accounts._expected = lambda: {("plant", "a"), ("plant", "b"), ("plant", "c"), ("plant", "gone")}
    second.backlog = True
    for ref in REFS:
        serving.turn(ref)
    assert "nobody is lent more: plant/gone has not been looked at" in serving.turn(second.ref).text
    serving.now_s += STRAYS_S - 5.0
    assert "plant/gone has not been looked at" in serving.turn(second.ref).text
    serving.now_s += 5.0
    serving.accounts.listen(Ref("plant", "gone"), lambda: None)
    assert "plant/gone has not been looked at" in serving.turn(second.ref).text
    serving.accounts._bells.clear()
    serving.turn(second.ref)
    assert second.ceiling == 32


def test_what_is_kept_of_a_deleted_inference_goes_when_its_workers_have_gone(serving: World) -> None:
    there = {("plant", "a"), ("plant", "b"), ("plant", "c")}
    serving.accounts._expected = lambda: there
    serving.accounts.forget(REFS[0], serving.now_s)
    del serving.workers["a-1"]
    there.discard(("plant", "a"))
    serving.now_s += 2 * FORGOTTEN_S
    serving.turn(REFS[1])
    assert not serving.accounts._forgotten


@pytest.mark.parametrize("how", ["its node is off", "its inference is deleted"])
def test_one_that_never_speaks_again_does_not_stop_the_others_for_ever(serving: World, how: str) -> None:
    first, second, _ = serving.workers.values()
    first.reachable, first.terminating = False, how == "its node is off"
    serving.restart()
    second.backlog = True
    for ref in REFS:
        serving.turn(ref)
    if how == "its inference is deleted":
        serving.accounts.forget(first.ref, serving.now_s)
    serving.now_s += FORGOTTEN_S - 10.0
    assert "worker a-1 has not said what it holds" in serving.turn(second.ref).text
    serving.now_s += 20.0
    for ref in REFS[1:] if how == "its inference is deleted" else REFS:
        serving.turn(ref)
    serving.turn(second.ref)
    assert second.ceiling == 32


def test_a_turn_looks_at_its_own_devices_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With hundreds of devices a turn must not cost hundreds of times as much."""
    accounts, looked = Accounts(), []
    for number in range(20):
        ref, one = Ref("plant", f"i-{number}"), Real(Ref("plant", "i"), f"w-{number}", 1000.0, phase="Ready", base=8, ceiling=8)
        told = one.tells().model_copy(update={"device_id": f"GPU-{number // 2}"})
        there = seen(view(one.name, told=told))
        accounts.turn(ref, there, WANTS, 1000.0, 1000.0)
    monkeypatch.setattr(ledger, "orders", lambda claims, *_, **__: looked.append(len(claims)) or {})
    accounts.turn(ref, there, WANTS, 1001.0, 1001.0)
    assert looked == [2, 2]
