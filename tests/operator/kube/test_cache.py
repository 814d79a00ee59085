"""What the watches showed, against lists that cross them."""

from typing import Any

import pytest

from yolastic_operator.cluster.cache import FleetCache, owner_key
from yolastic_operator.model import Fleet, Ref

REF = Ref("plant", "weld", "uid-1")
LABELS = {"yolastic.dev/inference": "weld"}


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def pod(name: str, version: int, phase: str = "Pending", created: str = "2026-11-22T10:00:00Z") -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": "plant",
        "labels": LABELS,
        "resourceVersion": str(version),
        "creationTimestamp": created,
    }
    return {"metadata": metadata, "status": {"phase": phase}}


def deployment(replicas: int, version: int, revision: str = "r1", name: str = "weld") -> dict[str, Any]:
    template = {"metadata": {"labels": {"yolastic.dev/revision": revision}}}
    metadata = {"name": name, "namespace": "plant", "labels": LABELS, "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"replicas": replicas, "template": template}}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> FleetCache:
    return FleetCache(clock, resync_s=600)


def names_of(fleet: Fleet | None) -> list[str]:
    assert fleet is not None
    return [worker.name for worker in fleet.workers]


def filled(cache: FleetCache) -> FleetCache:
    cache.fill(REF, deployment(2, 10), [pod("a", 11), pod("b", 12)], cache.changes(REF))
    return cache


def test_nothing_is_known_before_a_list(cache: FleetCache) -> None:
    assert cache.last(REF) is None
    assert cache.fleet(REF) is None
    cache.put("pod", pod("a", 1))
    assert cache.fleet(REF) is None, "a watch shows its objects one by one: what it has shown may be half of them"


def test_a_list_is_kept(cache: FleetCache) -> None:
    fleet = filled(cache).fleet(REF)
    assert fleet is not None
    assert (fleet.replicas, fleet.revision, names_of(fleet)) == (2, "r1", ["a", "b"])


@pytest.mark.parametrize(
    ("surge", "away", "manner", "unplaced"),
    [(1, 0, "Surge", 0), (0, 1, "OneByOne", 0), (0, 3, "OneByOne", 2), (0, "50%", "OneByOne", 0), ("25%", 3, "Surge", 0)],
)
def test_how_it_was_told_to_replace_workers(cache: FleetCache, surge: Any, away: Any, manner: str, unplaced: int) -> None:
    body = deployment(2, 10)
    body["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": away}}
    body["metadata"]["annotations"] = {"yolastic.dev/rollout": "{}"}
    found = cache.fill(REF, body, [], cache.changes(REF))
    assert (found.manner, found.record, found.unplaced) == (manner, "{}", unplaced)


def test_why_the_cluster_makes_no_pods(cache: FleetCache) -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota:\n q"}
    body = deployment(2, 5)
    cache.fill(
        REF, body | {"status": {"conditions": [{"type": "Available", "status": "False"}, refused]}}, [], cache.changes(REF)
    )
    found = cache.fleet(REF) or Fleet(None)
    assert (found.refusal, found.is_full) == ("exceeded quota: q", True)
    cache.put("deployment", deployment(2, 6) | {"status": {"conditions": [refused | {"message": "no PriorityClass q"}]}})
    found = cache.fleet(REF) or Fleet(None)
    assert (found.refusal, found.is_full) == ("no PriorityClass q", False)
    cache.put("deployment", deployment(2, 7) | {"status": {"conditions": [refused | {"status": "False"}]}})
    assert (cache.fleet(REF) or Fleet(None, refusal="?")).refusal == ""
    cache.put("deployment", deployment(2, 8))
    assert (cache.fleet(REF) or Fleet(None, refusal="?")).refusal == ""


def test_why_there_can_be_no_replica_set(cache: FleetCache) -> None:
    """A worker that makes room is no help then."""
    why = 'Failed to create new replica set "weld-1": exceeded quota: one, requested: count/replicasets.apps=1'
    refused = {"type": "Progressing", "status": "False", "reason": "ReplicaSetCreateError", "message": why}
    cache.fill(REF, deployment(2, 5) | {"status": {"conditions": [refused]}}, [], cache.changes(REF))
    found = cache.fleet(REF) or Fleet(None)
    assert (found.refusal, found.is_full) == (why, False)
    late = refused | {"reason": "ProgressDeadlineExceeded"}
    cache.put("deployment", deployment(2, 6) | {"status": {"conditions": [late]}})
    assert (cache.fleet(REF) or Fleet(None, refusal="?")).refusal == ""


def made_by(body: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    owner = {"kind": kind, "name": name, "controller": True}
    labels = LABELS | {"pod-template-hash": "5d8f"}
    return body | {"metadata": body["metadata"] | {"labels": labels, "ownerReferences": [owner]}}


def test_pods_of_a_copy_are_nobodys_either(cache: FleetCache) -> None:
    own, *others = (
        made_by(pod("a", 10), "ReplicaSet", "weld-5d8f"),
        made_by(pod("b", 11), "ReplicaSet", "weld-canary-5d8f"),
        made_by(pod("c", 12), "StatefulSet", "weld"),
        made_by(pod("d", 13), "ReplicaSet", "weld-6c7e"),
    )
    cache.fill(REF, deployment(1, 5), [own, *others], cache.changes(REF))
    assert names_of(cache.fleet(REF)) == ["a"]
    for other in others:
        assert cache.put("pod", other) is None
        assert cache.drop("pod", other) is None
    assert cache.put("pod", own) == ("plant", "weld")
    assert names_of(cache.fleet(REF)) == ["a"]


def test_no_deployment_is_knowledge_too(cache: FleetCache) -> None:
    cache.fill(REF, None, [], cache.changes(REF))
    assert cache.fleet(REF) == Fleet(replicas=None)


def test_the_watch_goes_on_from_the_list(cache: FleetCache) -> None:
    filled(cache)
    assert cache.put("pod", pod("c", 13)) == ("plant", "weld")
    assert cache.drop("pod", pod("a", 14)) == ("plant", "weld")
    cache.put("deployment", deployment(5, 15, "r2"))
    fleet = cache.fleet(REF)
    assert fleet is not None
    assert (fleet.replicas, fleet.revision, names_of(fleet)) == (5, "r2", ["b", "c"])


def test_older_news_change_nothing(cache: FleetCache) -> None:
    filled(cache)
    cache.put("deployment", deployment(9, 3))
    older = pod("a", 3)
    older["metadata"]["deletionTimestamp"] = "2026-11-22T10:00:01Z"
    cache.put("pod", older)
    fleet = cache.fleet(REF)
    assert fleet is not None
    assert fleet.replicas == 2
    assert [worker.phase for worker in fleet.workers] == ["Pending", "Pending"]


def test_a_copy_of_the_deployment_with_all_its_labels_is_nobodys(cache: FleetCache) -> None:
    before = filled(cache).fleet(REF)
    copy = deployment(0, 20, "r2", name="weld-copy")
    assert cache.put("deployment", copy) is None
    assert cache.fleet(REF) == before
    assert cache.drop("deployment", copy) is None
    assert cache.fleet(REF) == before


def test_a_list_that_was_overtaken_is_used_once_and_not_kept(cache: FleetCache) -> None:
    before = cache.changes(REF)
    cache.drop("pod", pod("a", 14))
    cache.put("pod", pod("b", 15))
    assert names_of(cache.fill(REF, deployment(2, 10), [pod("a", 11), pod("b", 12)], before)) == ["a", "b"]
    assert cache.fleet(REF) is None


def test_a_list_is_due_again_after_a_while(cache: FleetCache, clock: Clock) -> None:
    filled(cache)
    clock.now_s += 600
    assert cache.fleet(REF) is not None
    clock.now_s += 1
    assert cache.fleet(REF) is None
    cache.put("pod", pod("late", 30))
    assert "late" in names_of(cache.last(REF)), "what the watches told is not forgotten"


def test_an_order_is_known_before_the_watch_tells(cache: FleetCache) -> None:
    filled(cache).scaled(REF, 4, version=20)
    cache.put("deployment", deployment(2, 19))
    fleet = cache.fleet(REF)
    assert fleet is not None
    assert fleet.replicas == 4
    cache.put("deployment", deployment(3, 25))
    cache.scaled(REF, 4, version=20)
    assert (cache.fleet(REF) or Fleet(None)).replicas == 3, "the watch knew better before the answer came"


def test_pods_that_are_over_hide_behind_live_ones(cache: FleetCache) -> None:
    old, new = pod("old", 1, "Failed"), pod("new", 2, "Failed", "2026-11-22T11:00:00Z")
    cache.fill(REF, None, [old, new], cache.changes(REF))
    assert names_of(cache.fleet(REF)) == ["new"], "the newest one tells why there is no other"
    cache.put("pod", pod("live", 3))
    assert names_of(cache.fleet(REF)) == ["live"]


def test_what_was_forgotten_leaves_no_trace(cache: FleetCache) -> None:
    filled(cache).forget(REF)
    cache.put("pod", pod("a", 16))
    cache.drop("pod", pod("a", 17))
    assert cache.fleet(REF) is None
    assert cache._children == {}


@pytest.mark.parametrize("body", [{"metadata": {"name": "x"}}, {"metadata": {"name": "x", "labels": None}}, {}])
def test_what_is_nobodys_child(cache: FleetCache, body: dict[str, Any]) -> None:
    assert owner_key(body) is None
    assert cache.put("pod", body) is None
    assert cache.drop("pod", body) is None


def test_who_has_workers_is_known_from_the_watches(cache: FleetCache) -> None:
    assert cache.with_workers() == frozenset()
    cache.put("pod", pod("a", 1))
    assert cache.with_workers() == {("plant", "weld")}
    cache.put("pod", pod("a", 2, "Failed"))
    assert cache.with_workers() == frozenset(), "what is over holds nothing"


def test_who_has_workers_follows_every_way_in_and_out(cache: FleetCache) -> None:
    cache.put("pod", pod("a", 1))
    assert cache.with_workers() == {("plant", "weld")}
    cache.drop("pod", pod("a", 2))
    assert cache.with_workers() == frozenset()
    cache.fill(REF, None, [pod("b", 3)], cache.changes(REF))
    assert cache.with_workers() == {("plant", "weld")}
    cache.forget(REF)
    assert cache.with_workers() == frozenset()
