import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolastic_contract.behavior import Behavior
from yolastic_operator.model import Recommendation, ScaleEvent
from yolastic_operator.policy import behavior as rules
from yolastic_operator.policy.behavior import History
from yolastic_operator.policy.hpa import PodMetrics, Tolerances, replicas_for


@pytest.mark.parametrize(
    ("tolerance", "expected"),
    [(None, 0.1), ("0", 0.0), ("0.05", 0.05), ("100m", 0.1), ("0.57", 570 * 0.001), (1, 1.0), ("1500u", 1500 * 1e-6)],
)
def test_tolerance_is_the_float_that_go_makes_of_the_quantity(tolerance, expected):
    behavior = Behavior.model_validate({"scaleUp": {"tolerance": tolerance} if tolerance is not None else {}})
    assert rules.tolerances(behavior) == Tolerances(up=expected, down=0.1)


@pytest.mark.parametrize(
    ("current", "target", "pods", "expected"),
    [
        (2, 800, PodMetrics((880, 880)), 2),  # 1.1 exactly: inclusive
        (2, 800, PodMetrics((881, 881)), 3),
        (2, 800, PodMetrics((720, 720)), 2),  # 0.9 exactly
        (4, 800, PodMetrics((0, 0, 0, 0)), 0),  # a real zero is a number
        (4, 800, PodMetrics((), missing=4), None),  # no number is not
        (2, 800, PodMetrics((), unready=2), None),
        (4, 800, PodMetrics((1600, 1600), unready=2), 4),  # what is starting is supply
        (1, 1, PodMetrics((10**12,)), 2**31 - 1),
    ],
)
def test_replica_calculation(current, target, pods, expected):
    result = replicas_for(current, target, Tolerances(), pods)
    assert (result.replicas if result else None) == expected


def test_without_behavior_frequent_turns_do_not_outgrow_kubernetes_rate():
    """Kubernetes at most doubles in 15 s; so do turns that come every second."""
    current, history, sizes = 3, History(), []
    for second in range(16):
        now_s = float(second)
        history = rules.first_seen(history, current, now_s)
        size = rules.clamp(90, current=current, minimum=1, maximum=100, behavior=None, history=history, now_s=now_s).replicas
        history = rules.remember_recommendation(history, 90, None, now_s)
        history = rules.remember_scale(history, size - current, None, now_s)
        current = size
        sizes.append(size)
    assert sizes == [6] * 15 + [12]


EVENTS = (ScaleEvent(95.0, 9), ScaleEvent(95.0, -9))


@pytest.mark.parametrize(
    ("behavior", "events", "recommended", "size", "reason"),
    [
        # Grown by 9 within the period, as when minReplicas was raised: no further for now, and not back either.
        (None, EVENTS[:1], 10, 10, "DesiredWithinRange"),
        (None, EVENTS[:1], 30, 10, "ScaleUpLimit"),
        ({"scaleUp": {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}]}}, EVENTS[:1], 30, 10, "ScaleUpLimit"),
        ({"scaleDown": {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}]}}, EVENTS[1:], 2, 10, "ScaleDownLimit"),
    ],
)
def test_who_moved_faster_than_the_rates_is_not_moved_back(behavior, events, recommended, size, reason):
    found = rules.clamp(
        recommended,
        current=10,
        minimum=1,
        maximum=100,
        behavior=behavior and Behavior.model_validate(behavior),
        history=History((), events),
        now_s=100.0,
    )
    assert (found.replicas, found.reason) == (size, reason)


steps = st.lists(st.tuples(st.sampled_from([0.5, 1.0, 5.001, 15.001, 61.001]), st.integers(0, 30)), min_size=1, max_size=40)
windows = st.sampled_from([0, 15, 60, 300])


@given(steps, windows, windows)
def test_forgetting_and_merging_recommendations_changes_no_decision(walk, up_s, down_s):
    behavior = Behavior.model_validate(
        {"scaleUp": {"stabilizationWindowSeconds": up_s}, "scaleDown": {"stabilizationWindowSeconds": down_s}}
    )
    current, now_s, short, full = 5, 0.0, History(), History()
    for after_s, wanted in walk:
        now_s += after_s
        short, full = rules.first_seen(short, current, now_s), rules.first_seen(full, current, now_s)
        bounds = {"current": current, "minimum": 1, "maximum": 30, "behavior": behavior, "now_s": now_s}
        result = rules.clamp(wanted, history=short, **bounds)
        assert result == rules.clamp(wanted, history=full, **bounds)
        short = rules.remember_recommendation(short, wanted, behavior, now_s)
        full = History((*full.recommendations, Recommendation(now_s, wanted)), full.scale_events)
        short = rules.remember_scale(short, result.replicas - current, behavior, now_s)
        full = rules.remember_scale(full, result.replicas - current, behavior, now_s)
        current = result.replicas
    assert len(short.recommendations) <= len(full.recommendations)
    assert all(r.time_s >= now_s - max(up_s, down_s) for r in short.recommendations)


def test_history_stays_small_when_turns_are_frequent():
    history = History()
    for second in range(2000):
        history = rules.remember_recommendation(history, 4, None, float(second))
        history = rules.remember_scale(history, 1 if second % 2 else -1, None, float(second))
    assert len(history.recommendations) == 1
    assert len(history.scale_events) <= 2 * math.ceil(rules.SYNC_PERIOD_S)
