"""Which changes of a child are somebody's edits, and how often they are answered."""

import copy
from typing import Any

import pytest

from yolastic_operator.cluster.drift import FIRST_S, LONGEST_S, Drift

KEY = ("plant", "weld")


def child(version: int, **changes: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "weld", "namespace": "plant", "labels": {"yolastic.dev/inference": "weld"}}
    metadata |= {"ownerReferences": [{"uid": "u-1"}], "annotations": {"yolastic.dev/rollout": "a"}}
    body = {"metadata": metadata | {"resourceVersion": str(version)}, "spec": {"replicas": 1, "selector": {"app": "weld"}}}
    for path, value in changes.items():
        *steps, last = path.split("__")
        target: Any = body
        for step in steps:
            target = target.setdefault(step, {})
        target[last] = value
    return copy.deepcopy(body)


@pytest.mark.parametrize(
    ("kind", "seen", "gone", "edited"),
    [
        ("Service", child(10), False, False),  # our own apply comes back
        ("Service", child(11), False, False),
        ("Service", child(11, status__loadBalancer={"ingress": []}), False, False),
        ("Service", child(11, metadata__annotations={"yolastic.dev/rollout": "a", "kubectl/x": "y"}), False, False),
        ("Service", child(11, spec__selector={"app": "mine"}), False, True),
        ("Service", child(9, spec__selector={"app": "mine"}), False, False),  # older than the apply that put it right
        ("Service", child(11, metadata__ownerReferences=[]), False, True),
        ("Service", child(11, metadata__labels={"yolastic.dev/inference": "weld", "more": "x"}), False, True),
        ("Deployment", child(11, metadata__annotations={}), False, True),
        ("Deployment", child(11, spec__replicas=5), False, False),  # a size is no edit of ours to undo here
        ("Service", child(11, spec__replicas=5), False, True),
        ("Service", child(11), True, True),
        ("Service", child(9), True, False),  # the one before
        ("Service", child(11, metadata__labels={}), False, False),  # of no inference
    ],
)
@pytest.mark.parametrize("first", ["apply", "event"])
def test_what_is_an_edit(kind: str, seen: dict[str, Any], gone: bool, edited: bool, first: str) -> None:
    drift = Drift(lambda: 0.0)
    drift.applied(kind, child(5, spec__selector={"app": "before"}))
    if first == "apply":
        drift.applied(kind, child(10))
    woken = drift.seen(kind, seen, gone=gone)
    if first == "event":
        drift.applied(kind, child(10))
    else:
        assert woken == (KEY if edited else None)
    assert drift.due(KEY) == edited
    drift.applied(kind, child(12))
    assert not drift.due(KEY), "applied again"


@pytest.mark.parametrize("gone", [False, True])
def test_what_bears_the_labels_under_another_name_is_no_child(gone: bool) -> None:
    """`kubectl expose deployment weld --name weld-public` copies them."""
    drift = Drift(lambda: 0.0)
    drift.applied("Service", child(10))
    drift.seen("Service", child(10), gone=False)
    other = child(20, metadata__name="weld-public", spec__selector={"app": "mine"})
    assert drift.seen("Service", other, gone=gone) is None
    assert not drift.due(KEY)
    assert drift.seen("Service", child(15, spec__selector={"app": "mine"}), gone=False) == KEY, "ours is still looked at"


def test_who_changes_it_again_and_again_is_answered_ever_more_rarely_and_calm_ends_that() -> None:
    now_s, version, repairs = 0.0, 0, list[float]()
    drift = Drift(lambda: now_s)
    drift.applied("Service", child(version))
    for second in range(3600):
        now_s = float(second)
        version += 1
        drift.seen("Service", child(version, spec__selector={"app": "mine"}), gone=False)
        if drift.due(KEY):
            repairs.append(now_s)
            drift.repairing(KEY)
            version += 1
            drift.applied("Service", child(version))
    assert repairs[:4] == [0.0, FIRST_S, 3 * FIRST_S, 7 * FIRST_S]
    assert len(repairs) < 3600 / LONGEST_S + 8
    now_s += 2 * LONGEST_S
    for _ in range(2):
        version += 1
        drift.seen("Service", child(version, spec__selector={"app": "mine"}), gone=False)
        assert drift.due(KEY)
        drift.repairing(KEY)
        version += 1
        drift.applied("Service", child(version))
        now_s += FIRST_S


def test_news_that_come_late_do_not_hide_an_edit() -> None:
    drift = Drift(lambda: 0.0)
    drift.applied("Service", child(10))
    drift.seen("Service", child(12, spec__selector={"app": "mine"}), gone=False)
    assert drift.seen("Service", child(10), gone=False) == KEY
    assert drift.due(KEY)


def test_a_repair_that_nobody_needed_makes_nobody_wait() -> None:
    drift = Drift(lambda: 0.0)
    drift.applied("Service", child(1))
    drift.repairing(KEY)
    assert drift.seen("Service", child(2), gone=True) == KEY


def test_what_is_left_of_a_forgotten_inference_goes_with_its_last_child() -> None:
    drift = Drift(lambda: 0.0)
    drift.applied("Service", child(1))
    drift.forget(KEY)
    assert drift.seen("Service", child(2), gone=True) is None
    assert not drift.due(KEY)
    assert drift._children == {}
