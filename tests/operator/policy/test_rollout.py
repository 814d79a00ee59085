"""Rollouts: surge or one by one, what is waited for, and when a revision is given up."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_builders import RUNTIME, spec, worker

from yolastic_operator.act.rolling import read, render
from yolastic_operator.model import Fleet, Manner, Worker
from yolastic_operator.policy.rollout import (
    FAILURES,
    LOST_WAIT_S,
    PLACE_WAIT_S,
    STUCK_S,
    GivenUp,
    Kept,
    Plan,
    Record,
    Watch,
    asked_by,
    may_shrink,
    plan,
)
from yolastic_operator.policy.rollout_words import waits_for


def kept(revision: str, **fields: Any) -> Kept:
    return Kept(revision, "cuda", spec(**fields), RUNTIME)


OLD, NEW = kept("old"), kept("new")
UNDER_WAY = Record(running=NEW, good=OLD)
LOST = GivenUp("new", asked_by(NEW.spec), "FixedBatch", "worker n: FixedBatch: export it again")


def old(name: str = "o", **fields: Any) -> Worker:
    return worker(name, revision="old", **fields)


def new(name: str = "n", phase: str = "Starting", **fields: Any) -> Worker:
    return worker(name, revision="new", phase=phase, **fields)


def failing(failures: int, reason: str = "FixedBatch", phase: str = "Failed") -> Worker:
    return new(phase=phase, failure_reason=reason, failure_message="export it again", failures=failures)


HOMELESS = new(phase="Pending", unschedulable=True)
LEAVING = old("o-2", phase="Terminating")


def fleet(*workers: Worker, manner: Manner = "Surge", replicas: int = 2, unplaced: int = 0) -> Fleet:
    return Fleet(replicas, workers, "new", manner, unplaced=unplaced)


def homeless(name: str, revision: str = "new") -> Worker:
    return worker(name, revision=revision, phase="Pending", unschedulable=True)


def refused(seen: Fleet, *, for_quota: bool) -> Fleet:
    """The cluster makes no more workers."""
    refusal = "exceeded quota: q" if for_quota else "maximum memory usage per Pod is 1Gi"
    return replace(seen, refusal=refusal, is_full=for_quota)


FULL = refused(fleet(old(), old("o-2")), for_quota=True)


def step(seen: Fleet, record: Record = UNDER_WAY, wanted: Kept = NEW, watch: Watch | None = None) -> Plan:
    return plan(seen, wanted, record=record, watch=watch or Watch(), now_s=100.0)


@pytest.mark.parametrize(
    ("strategy", "seen", "waited_s", "manner"),
    [
        ("Auto", fleet(old(), old("o-2"), HOMELESS), PLACE_WAIT_S - 1, "Surge"),
        ("Auto", fleet(old(), old("o-2"), HOMELESS), PLACE_WAIT_S, "OneByOne"),
        # It is not placed because one that leaves still has its device; or it is placed; or there is nobody to make room.
        ("Auto", fleet(old(), LEAVING, HOMELESS), 60.0, "Surge"),
        ("Auto", fleet(old(), old("o-2"), new()), 60.0, "Surge"),
        ("Auto", fleet(HOMELESS), 60.0, "Surge"),
        # A quota keeps it from being made; what else is refused finds no more room when an old one goes.
        ("Auto", FULL, PLACE_WAIT_S - 1, "Surge"),
        ("Auto", FULL, PLACE_WAIT_S, "OneByOne"),
        ("Auto", refused(fleet(old(), LEAVING), for_quota=True), 60.0, "Surge"),
        ("Auto", refused(fleet(old(), new()), for_quota=True), 60.0, "Surge"),
        ("Auto", refused(fleet(old(), old("o-2")), for_quota=False), 60.0, "Surge"),
        ("RollingUpdate", FULL, 600.0, "Surge"),
        # One by one to the end, and no further.
        ("Auto", fleet(old(), new(), manner="OneByOne"), 0.0, "OneByOne"),
        ("Auto", fleet(new(), new("n-2", "Ready"), manner="OneByOne"), 0.0, "OneByOne"),
        ("Auto", fleet(new("n", "Ready"), new("n-2", "Ready"), manner="OneByOne"), 0.0, "Surge"),
        # Beyond the places nobody is waited for.
        ("Auto", fleet(new("n", "Ready"), HOMELESS, manner="OneByOne", unplaced=1), 0.0, "Surge"),
        ("Auto", fleet(new("n"), HOMELESS, manner="OneByOne", unplaced=1), 0.0, "OneByOne"),
        ("RollingUpdate", fleet(old(), old("o-2"), HOMELESS), 600.0, "Surge"),
        ("Recreate", fleet(old(), old("o-2")), 0.0, "OneByOne"),
        ("Recreate", fleet(new("n", "Ready"), new("n-2", "Ready"), manner="OneByOne"), 0.0, "OneByOne"),
    ],
)
def test_how_workers_are_replaced(strategy: str, seen: Fleet, waited_s: float, manner: str) -> None:
    wanted = kept("new", rollout={"strategy": strategy})
    assert step(seen, wanted=wanted, watch=Watch(unplaced_s=100.0 - waited_s)).manner == manner


ONE_GOES = (old("o-1"), old("o-2"), homeless("o-3", "old"), homeless("n-1"))
"""Three ordered, two devices, and a new one beside the old ones."""
GONE = (old("o-2"), homeless("n-1"), homeless("n-2"))
"""The device of the first is nobody's yet."""


@pytest.mark.parametrize(
    ("seen", "watch", "unplaced", "places"),
    [
        # When it begins, they are counted.
        (fleet(*ONE_GOES, replicas=3), Watch(unplaced_s=91.0), 0, None),
        (fleet(*ONE_GOES, replicas=3), Watch(unplaced_s=90.0), 1, 2),
        (fleet(old("o-1"), old("o-2"), homeless("n-1")), Watch(unplaced_s=90.0), 0, 2),
        # While one goes and its successor comes there are no fewer places.
        (fleet(old("o-1", phase="Terminating"), *GONE, manner="OneByOne", replicas=3), Watch(places=2), 1, 2),
        (fleet(*GONE, manner="OneByOne", replicas=3), Watch(places=2), 1, 2),
        (fleet(*GONE, manner="OneByOne", replicas=3), Watch(places=2, lost_s=101.0 - LOST_WAIT_S), 1, 2),
        (fleet(old("o-1"), *GONE, manner="OneByOne", replicas=4), Watch(places=3, lost_s=100.0 - LOST_WAIT_S), 2, 2),
        # But the last old one that serves does not go for a revision that has found no place at all.
        (fleet(*GONE, manner="OneByOne", replicas=3), Watch(places=2, lost_s=100.0 - LOST_WAIT_S), 1, 2),
        (
            fleet(old("o-2"), new("n-1"), homeless("n-2"), manner="OneByOne", replicas=4),
            Watch(places=3, lost_s=100.0 - LOST_WAIT_S),
            2,
            2,
        ),
        (fleet(old("o-2"), new("n-1"), homeless("n-2"), manner="OneByOne", replicas=3), Watch(places=2, lost_s=0.0), 1, 2),
        # One that is just made is in no place, one that runs is.
        (fleet(old("o-2"), new("n", "Pending"), new("m", "Pending"), manner="OneByOne", replicas=3), Watch(places=2), 1, 2),
        (fleet(old("o-2"), new("n-1"), new("n-2"), manner="OneByOne", replicas=3), Watch(places=2), 0, 3),
        # One more is ordered; after a restart the cluster knows.
        (fleet(*GONE, homeless("n-3"), manner="OneByOne", replicas=4), Watch(places=2), 2, 2),
        (fleet(*GONE, manner="OneByOne", replicas=3, unplaced=1), Watch(), 1, 2),
        # When it is over, it is over.
        (
            fleet(new("n-1", "Ready"), new("n-2", "Ready"), homeless("n-3"), manner="OneByOne", replicas=3),
            Watch(places=2),
            0,
            None,
        ),
    ],
)
def test_how_many_have_no_place(seen: Fleet, watch: Watch, unplaced: int, places: int | None) -> None:
    found = step(seen, watch=watch)
    assert (found.unplaced, found.watch.places) == (unplaced, places)


def test_who_waits_for_memory_of_a_shared_device_has_no_place_either() -> None:
    seen = fleet(old("o-1"), old("o-2"), old("o-3", phase="Starting"), new("n-1"), replicas=3)
    watch = Watch(unplaced_s=90.0)
    found = plan(seen, NEW, record=UNDER_WAY, watch=watch, now_s=100.0, homeless={"n-1"}, waiting={"o-3", "n-1"})
    assert (found.manner, found.unplaced, found.watch.places) == ("OneByOne", 1, 2)


@pytest.mark.parametrize(
    ("seen", "desired", "may"),
    [
        (fleet(*GONE, manner="OneByOne", replicas=3, unplaced=1), 4, True),
        (fleet(*GONE, manner="OneByOne", replicas=3, unplaced=1), 3, True),
        (fleet(*GONE, manner="OneByOne", replicas=3, unplaced=1), 2, False),
        (fleet(*GONE, manner="OneByOne", replicas=3, unplaced=1), 0, True),
        (fleet(*GONE, manner="OneByOne", replicas=3), 1, True),
        (fleet(new("n", "Ready"), homeless("m"), manner="OneByOne", unplaced=1), 1, True),
    ],
)
def test_fewer_are_not_ordered_while_more_than_one_may_be_away(seen: Fleet, desired: int, may: bool) -> None:
    assert may_shrink(seen, desired) == may


def test_a_new_count_of_places_is_a_new_question() -> None:
    """The first one goes at once, and its place is free before anybody has seen it leave."""
    before = fleet(old("o-1"), old("o-2"), homeless("n-1"), manner="OneByOne", replicas=3)
    counted = step(before, watch=Watch(lost_s=100.0 - LOST_WAIT_S))
    assert (counted.unplaced, counted.watch.places) == (1, 2)
    found = step(fleet(*GONE, manner="OneByOne", replicas=3, unplaced=1), watch=counted.watch)
    assert (found.unplaced, found.watch.places) == (1, 2)


@pytest.mark.parametrize(
    ("seen", "stuck_s", "given_up"),
    [
        (fleet(old(), failing(FAILURES - 1)), None, False),
        (fleet(old(), failing(FAILURES)), None, True),
        (fleet(old(), failing(FAILURES, phase="Starting")), None, True),
        (fleet(failing(FAILURES), manner="OneByOne"), None, True),  # the only worker had to make room
        (fleet(old(), failing(FAILURES), new("n-2", "Ready")), None, False),  # one serves: it is not the model
        (fleet(old(), failing(0, "ImagePullFailed")), 101.0 - STUCK_S, False),
        (fleet(old(), failing(0, "ImagePullFailed")), 100.0 - STUCK_S, True),
        (fleet(old(), new()), 100.0 - STUCK_S, False),
        (refused(fleet(old()), for_quota=False), 101.0 - STUCK_S, False),
        (refused(fleet(old()), for_quota=False), 100.0 - STUCK_S, True),
        (refused(fleet(old(), new()), for_quota=False), 100.0 - STUCK_S, False),  # one was made after all
        (FULL, 100.0 - STUCK_S, False),
    ],
)
def test_when_a_revision_is_given_up(seen: Fleet, stuck_s: float | None, given_up: bool) -> None:
    found = step(seen, watch=Watch(stuck_s=stuck_s))
    assert found.target is (OLD if given_up else NEW)
    if given_up:
        lost = found.record.given_up
        assert lost is not None
        assert (lost.revision, lost.asked) == ("new", asked_by(NEW.spec))
        made = [one for one in seen.workers if one.revision == "new"]
        assert (lost.reason in lost.message) if made else (lost.reason, seen.refusal in lost.message) == ("FailedCreate", True)
        assert found.record == Record(running=OLD, good=OLD, given_up=lost)


@pytest.mark.parametrize(
    ("seen", "nowhere_s", "given_up"),
    [
        (fleet(homeless("n-1"), manner="OneByOne", replicas=1), LOST_WAIT_S, True),  # nobody serves: that ends soon
        (fleet(homeless("n-1"), manner="OneByOne", replicas=1), LOST_WAIT_S - 1, False),
        (fleet(old(), homeless("n-1"), manner="OneByOne"), LOST_WAIT_S, False),
        (fleet(old(), homeless("n-1"), manner="OneByOne"), STUCK_S, True),
        (fleet(old(), new("n-1", "Ready"), homeless("n-2"), manner="OneByOne", replicas=3), STUCK_S, False),
        (fleet(old(), homeless("n-1"), replicas=1), STUCK_S, False),  # RollingUpdate: nobody makes room, so it waits for a place
        (fleet(old(), LEAVING, homeless("n-1"), manner="OneByOne"), STUCK_S, False),
        # It asks for more than the quota has; the cluster may need a while to notice that an old one has gone.
        (replace(FULL, workers=(), replicas=1, manner="OneByOne"), LOST_WAIT_S, False),
        (replace(FULL, workers=(), replicas=1, manner="OneByOne"), 200.0, True),
        (replace(FULL, workers=(old(),), manner="OneByOne"), 200.0, False),
        (replace(FULL, workers=(old(),), manner="OneByOne"), STUCK_S, True),
    ],
)
def test_a_revision_that_fits_nowhere_is_given_up(seen: Fleet, nowhere_s: float, given_up: bool) -> None:
    places = seen.replicas
    found = step(seen, watch=Watch(places=places, nowhere_s=100.0 - nowhere_s, leaving_s=99.0))
    assert found.target is (OLD if given_up else NEW)
    if given_up:
        assert found.record.given_up is not None
        assert found.record.given_up.reason == ("FailedCreate" if seen.is_full else "NoCapacity")


@pytest.mark.parametrize(("left_s", "manner"), [(119.0, "Surge"), (121.0, "OneByOne")])
def test_one_that_never_goes_because_its_node_is_off_does_not_hold_up_a_rollout(left_s: float, manner: str) -> None:
    watch = Watch(unplaced_s=100.0 - left_s, leaving_s=100.0 - left_s)
    assert step(fleet(old(), LEAVING, HOMELESS), watch=watch).manner == manner


def test_without_anything_to_go_back_to_it_is_tried_on() -> None:
    found = step(fleet(failing(9)), record=Record(running=NEW))
    assert (found.target, found.record.given_up) == (NEW, None)


def test_a_device_that_fails_later_is_no_bad_model() -> None:
    served = step(fleet(old(), new(phase="Ready"))).record
    assert served == Record(running=NEW, good=NEW)
    assert step(fleet(failing(9, "DeviceLost")), record=served).target is NEW


@pytest.mark.parametrize(
    ("wanted", "again"),
    [
        (NEW, False),
        (kept("new", replicas=5), False),  # whoever scales, by hand or through the scale subresource, means the size
        (kept("new", autoscaling={"maxReplicas": 9}), False),  # so does who has it scaled
        (kept("new", autoscaling={"maxReplicas": 9, "mode": "Paused"}), False),  # or wants nothing to change for now
        (kept("new", drain={"timeoutSeconds": 7}), True),
        (kept("newer"), True),
        (OLD, True),
    ],
)
def test_it_is_not_tried_again_until_more_than_the_size_of_the_spec_changes(wanted: Kept, again: bool) -> None:
    record = Record(running=OLD, given_up=LOST)
    # Not even served again yet, as it is one by one: it had served, so it is what to go back to once more.
    found = plan(Fleet(1, (), "old"), wanted, record=record, watch=Watch(), now_s=0.0)
    assert found.target == (wanted if again else OLD)
    assert found.record.good == (OLD if found.target.revision != "old" else None)
    assert (found.record.given_up is None) == again


@pytest.mark.parametrize(
    ("seen", "record", "good"),
    [
        (fleet(old()), Record(running=OLD), OLD),
        (fleet(old(phase="Starting")), Record(running=OLD), None),  # it never served
        (fleet(old(phase="Starting")), Record(running=OLD, good=OLD), OLD),  # it did, and just starts again
        (fleet(), Record(running=OLD, good=OLD), OLD),  # it did, and none is ordered now
        (fleet(old(), worker("m", revision="middle", phase="Starting")), Record(running=kept("middle"), good=OLD), OLD),
        (fleet(), Record(), None),
        (fleet(old()), Record(running=kept("middle"), good=NEW), NEW),  # back to where it came from: it is known to serve
    ],
)
def test_what_there_is_to_go_back_to(seen: Fleet, record: Record, good: Kept | None) -> None:
    assert step(seen, record=record).record == Record(running=NEW, good=good)


@pytest.mark.parametrize(
    ("seen", "strategy", "desired", "words"),
    [
        (fleet(old(), new()), "Auto", 2, "waiting for the new worker to be ready"),
        (fleet(old(), HOMELESS), "Auto", 2, "after 10 s an old worker makes room"),
        (fleet(old(), HOMELESS), "RollingUpdate", 2, "RollingUpdate says"),
        (FULL, "Auto", 2, "a quota has no room for a new worker beside the old ones: after 10 s an old worker makes room"),
        (FULL, "RollingUpdate", 2, "RollingUpdate says"),
        (replace(FULL, manner="OneByOne"), "Auto", 2, "because a quota has no room for one more"),
        (replace(FULL, manner="OneByOne"), "Auto", 2, "stays so for a few minutes, the next old one makes room"),
        (replace(FULL, workers=(old(),), manner="OneByOne"), "Auto", 2, "for 600 s, the revision before comes back"),
        (fleet(old(), new(), manner="OneByOne"), "Auto", 2, "because no device is free for one more"),
        (fleet(new(), manner="OneByOne"), "Auto", 1, "nobody serves until the new worker is ready"),
        (fleet(old(), manner="OneByOne"), "Recreate", 2, "as rollout.strategy Recreate says"),
        (fleet(*GONE, manner="OneByOne", replicas=3, unplaced=1), "Auto", 3, "1 of 3 ordered has no place, and one that serves"),
        (fleet(*GONE, manner="OneByOne", replicas=3, unplaced=2), "Auto", 3, "2 of 3 ordered have no place"),
        (fleet(*GONE, manner="OneByOne", replicas=3, unplaced=2), "Auto", 3, "nobody serves until the new worker is ready"),
        (
            fleet(old(), *GONE, manner="OneByOne", replicas=4, unplaced=1),
            "Auto",
            4,
            "stays so for 60 s, the next old one makes room",
        ),
        (fleet(*GONE, manner="OneByOne", replicas=3, unplaced=1), "Auto", 3, "for 600 s, the revision before comes back"),
        (fleet(old(), new(phase="Ready")), "Auto", 2, "to start the next one"),
    ],
)
def test_what_it_waits_for_is_said(seen: Fleet, strategy: Any, desired: int, words: str) -> None:
    assert words in waits_for(seen, strategy, desired)


def test_what_cannot_be_read_is_nothing_to_go_back_to() -> None:
    assert read("") == read("{") == read('{"running": {"spec": {}}}') == read("[]") == Record()


KEPT = st.sampled_from([kept(name) for name in "abc"])
WORKERS = st.lists(
    st.builds(
        lambda revision, phase, unschedulable, failures: worker(
            "w",
            revision=revision,
            phase=phase,
            unschedulable=unschedulable and phase == "Pending",
            failures=failures,
            failure_reason="FixedBatch" if failures and phase != "Ready" else None,
        ),
        st.sampled_from("abc"),
        st.sampled_from(["Pending", "Starting", "Ready", "Draining", "Failed", "Terminating"]),
        st.booleans(),
        st.integers(0, 5),
    ),
    max_size=4,
)
RECORDS = st.builds(
    Record,
    st.none() | KEPT,
    st.none() | KEPT,
    st.none()
    | st.builds(
        GivenUp, st.sampled_from("abc"), st.sampled_from([asked_by(spec()), "other"]), st.just("FixedBatch"), st.just("why")
    ),
)
SINCE = st.none() | st.floats(0, 1000)


@given(WORKERS, st.integers(0, 3), st.sampled_from(["Surge", "OneByOne"]), KEPT, RECORDS, SINCE, SINCE)
def test_invariants(
    workers: list[Worker],
    replicas: int,
    manner: Manner,
    wanted: Kept,
    record: Record,
    unplaced_s: float | None,
    stuck_s: float | None,
) -> None:
    seen = Fleet(replicas, tuple(workers), wanted.revision, manner)
    found = plan(seen, wanted, record=record, watch=Watch(unplaced_s, stuck_s), now_s=1000.0)
    assert found.target in (wanted, record.running, record.good)
    assert found.record.running == found.target
    if found.target != wanted:
        # Something else than the spec asks for runs only where what it asks for was given up, asked for by this very spec.
        lost = found.record.given_up
        assert lost is not None
        assert (lost.revision, lost.asked) == (wanted.revision, asked_by(wanted.spec))
        serves = any(one.ready and one.revision == wanted.revision for one in workers)
        assert record.given_up == lost or not serves
    # A restart knows what the process before it knew.
    assert read(render(found.record)) == found.record
    steps = [found]
    for _ in range(4):
        steps.append(plan(seen, wanted, record=steps[-1].record, watch=steps[-1].watch, now_s=1000.0))
    assert steps[-1] == steps[-2], "with nothing that moves it comes to rest"


def test_a_record_that_is_too_long_for_an_annotation_is_not_kept() -> None:
    affinity = {"nodeAffinity": {"x": "y" * 2**17}}
    long = Kept("old", "cuda", spec(), RUNTIME.model_copy(update={"affinity": affinity}))
    assert read(render(Record(running=NEW, good=long))) == Record()
