from dataclasses import replace

import pytest
from policy_builders import MIB, RUNTIME, autoscaled, seen, spec, state, view

from yolastic_operator.model import Fresh, Missing, PolicyState, Stale
from yolastic_operator.policy.conditions import TYPES, refused
from yolastic_operator.policy.decide import decide

STARTING = view("s", phase="Starting")
HOMELESS = view("h", phase="Pending", unschedulable=True)


def failed(reason, message="what went wrong", phase="Failed", **fields):
    return view("f", phase=phase, failure_reason=reason, failure_message=message, **fields)


def conditions(observation, given_spec=None):
    decision = decide(observation, given_spec or spec(replicas=len(observation.workers)), RUNTIME, PolicyState(), 1000.0)
    assert tuple(one.type for one in decision.conditions) == TYPES
    return {one.type: (f"{one.status}/{one.reason}", one.message) for one in decision.conditions}


@pytest.mark.parametrize(
    ("workers", "size", "ready", "loaded", "words"),
    [
        ([view("a"), view("b")], 2, "True/WorkersReady", "True/Loaded", "2 of 2 workers ready"),
        ([view("a"), STARTING], 2, "True/WorkersReady", "True/Loaded", "1 of 2 workers ready"),
        ([STARTING], 1, "False/Starting", "Unknown/Loading", "0 of 1 worker ready; 1 starting"),
        ([], 2, "False/NoWorkers", "Unknown/Loading", "none has been created yet"),
        ([], 0, "True/ScaledToZero", "Unknown/ScaledToZero", "no worker is wanted"),
        (
            [failed("ChecksumMismatch")],
            1,
            "False/ModelLoadFailed",
            "False/ChecksumMismatch",
            "worker f: ChecksumMismatch: what went wrong",
        ),
        ([failed("DownloadFailed", phase="Pending")], 1, "False/ModelLoadFailed", "False/DownloadFailed", "what went wrong"),
        ([failed("ModelNotFound")], 1, "False/ModelLoadFailed", "False/ModelNotFound", "what went wrong"),
        ([failed("ModelUnreadable")], 1, "False/ModelLoadFailed", "False/ModelUnreadable", "what went wrong"),
        ([failed("FixedBatch")], 1, "False/ModelLoadFailed", "False/FixedBatch", "what went wrong"),
        ([failed("SecretNotFound", phase="Pending")], 1, "False/SecretNotFound", "Unknown/Loading", "what went wrong"),
        ([failed("ImagePullBackOff", phase="Pending")], 1, "False/ImagePullBackOff", "Unknown/Loading", "what went wrong"),
        (
            [failed("ChecksumMismatch", created_s=5.0), failed("DownloadFailed", created_s=1.0)],  # the oldest tells
            2,
            "False/ModelLoadFailed",
            "False/DownloadFailed",
            "worker f: DownloadFailed",
        ),
        # who leaves anyway keeps nobody from serving
        ([failed("DeviceLost", phase="Draining"), STARTING], 1, "False/Starting", "Unknown/Loading", "1 starting, 1 draining"),
        ([failed("DeviceUnavailable")], 1, "False/DeviceUnavailable", "Unknown/Loading", "what went wrong"),
        ([failed(None)], 1, "False/WorkerFailed", "Unknown/Loading", "worker f: failed"),
        ([HOMELESS], 1, "False/NoCapacity", "Unknown/Loading", "the scheduler finds no place for 1 worker"),
        ([HOMELESS, STARTING], 2, "False/Starting", "Unknown/Loading", "0 of 2 workers ready; 2 starting"),
        (
            [view("a"), HOMELESS],
            2,
            "True/WorkersReady",
            "True/Loaded",
            "1 of 2 workers ready; the scheduler finds no place for 1",
        ),
        (
            [HOMELESS, view("g", phase="Pending", unschedulable=True, failure_message="0/3 nodes are available: no GPU.")],
            2,
            "False/NoCapacity",
            "Unknown/Loading",
            "the scheduler finds no place for 2 workers: 0/3 nodes are available: no GPU.",
        ),
        (
            [view("a"), failed("CrashLoopBackOff")],
            2,
            "True/WorkersReady",
            "True/Loaded",
            "1 of 2 workers ready; worker f: CrashLoopBackOff",
        ),
        # an older revision still serves, the new one does not yet: Ready speaks of the new one
        (
            [view("old", revision="r0"), STARTING],
            1,
            "False/Starting",
            "Unknown/Loading",
            "1 worker of an older revision still serving",
        ),
        (
            [view("old", revision="r0"), failed("ChecksumMismatch")],
            1,
            "False/ModelLoadFailed",
            "False/ChecksumMismatch",
            "older revision still",
        ),
        ([view("a", told=Missing("no route"))], 1, "True/WorkersReady", "Unknown/Silent", "1 of 1 worker ready"),
        ([view("a", told=state(sha256="cd" * 32))], 1, "True/WorkersReady", "False/ChecksumMismatch", "1 of 1 worker ready"),
    ],
)
def test_ready_and_model_loaded(workers, size, ready, loaded, words):
    told = conditions(seen(*workers), spec(replicas=size))
    assert told["Ready"][0] == ready
    assert words in told["Ready"][1]
    assert told["ModelLoaded"][0] == loaded


@pytest.mark.parametrize(
    ("workers", "ready", "progressing", "told"),
    [
        ([], "False/FailedCreate", "True/ScalingUp", True),
        ([view("a")], "True/WorkersReady", "True/ScalingUp", True),
        ([view("a"), view("b")], "True/WorkersReady", "False/Stable", False),
    ],
)
def test_why_the_cluster_makes_no_more_workers_is_told_while_some_are_missing(workers, ready, progressing, told):
    observation = seen(*workers, replicas=2)
    refusal = 'pods "weld-7d9c-" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1'
    observation = replace(observation, fleet=replace(observation.fleet, refusal=refusal))
    found = conditions(observation, spec(replicas=2))
    assert (found["Ready"][0], found["Progressing"][0]) == (ready, progressing)
    assert (refusal in found["Ready"][1]) is told
    assert (refusal in found["Progressing"][1]) is told


@pytest.mark.parametrize(
    ("told", "limit", "expected", "words"),
    [
        (
            state(memory=(600 * MIB, 60 * MIB)),
            "2Gi",
            "True/Declared",
            "budget 1843Mi; a worker takes 600Mi and 60Mi an image: 20 images fit",
        ),
        (state(memory=(600 * MIB, 60 * MIB), limit_bytes=2**31), None, "True/Device", "20 images fit"),
        (state(memory=(600 * MIB, 0), limit_bytes=2**31), None, "True/Device", "any batch fits"),
        (
            state(memory=(600 * MIB, 60 * MIB), limit_bytes=2**31, buckets=[1, 2, 4]),
            None,
            "True/Device",
            "20 images fit; no more than 4 are warm on every worker, or left since they ran out of memory",
        ),
        (state(memory=(600 * MIB, 60 * MIB)), "600Mi", "False/DoesNotFit", "budget 540Mi is too small for a batch of 1"),
        (state(memory=(600 * MIB, 60 * MIB)), None, "Unknown/BudgetUnknown", "does not bound the ceiling"),
        (state(), "2Gi", "Unknown/Measuring", "budget 1843Mi; no worker has measured"),
        (state(speed=None), "2Gi", "Unknown/Measuring", "no worker has told"),
    ],
)
def test_memory_budget(told, limit, expected, words):
    status, message = conditions(seen(view("a", told=told)), spec(memory={"limit": limit}))["MemoryBudgetResolved"]
    assert status == expected
    assert words in message


def test_a_worker_that_does_not_fit_says_so():
    status, message = conditions(seen(failed("DoesNotFit")))["MemoryBudgetResolved"]
    assert status == "False/DoesNotFit"
    assert "what went wrong" in message


@pytest.mark.parametrize(
    ("readings", "prometheus", "expected", "words"),
    [
        ([0.5, 0.5], None, "True/Fresh", "fresh figures from 2 of 2 workers"),
        ([0.5, 0.5], Fresh(3.0), "True/Fresh", "2 of 2"),
        ([0.5, Missing("no series")], None, "True/Fresh", "1 of 2 workers; w-1: no series"),
        ([0.5, 0.5], Missing("Prometheus: no series"), "True/WorkersOnly", "Prometheus: no series; fresh figures from 2"),
        ([0.5], Stale(90.0, 90.0), "True/WorkersOnly", "Prometheus has nothing newer than 90 s"),
        ([Stale(0.5, 70.0)] * 2, None, "False/Stale", "w-0: figures are 70 s old"),
        ([Missing("no series"), Stale(0.5, 70.0)], Fresh(1.0), "False/NoSeries", "0 of 2"),
        ([Missing("no answer")], Missing("HTTP 503"), "False/PrometheusError", "HTTP 503"),
        ([], None, "Unknown/NoReadyWorkers", ""),
    ],
)
def test_metrics_available(readings, prometheus, expected, words):
    views = [view(f"w-{i}", reading) for i, reading in enumerate(readings)]
    status, message = conditions(seen(*views, prometheus=prometheus))["MetricsAvailable"]
    assert status == expected
    assert words in message


@pytest.mark.parametrize(
    ("views", "given_spec", "active", "limited", "progressing"),
    [
        ([view("a", 0.8)], autoscaled(), "True/ValidMetrics", "False/DesiredWithinRange", "False/Stable"),
        ([view("a", 4.0)], autoscaled(maximum=3), "True/ValidMetrics", "True/TooManyReplicas", "True/ScalingUp"),
        ([view("a", 0.0)], autoscaled(), "True/ValidMetrics", "False/DesiredWithinRange", "False/Stable"),
        ([view("a", Missing("no answer"))], autoscaled(), "False/MetricsUnavailable", "False/DesiredWithinRange", "False/Stable"),
        ([view("a", 9.0)], spec(replicas=1), "False/ScalingDisabled", "False/DesiredWithinRange", "False/Stable"),
        ([view("a", 9.0), HOMELESS], spec(replicas=2), "False/ScalingDisabled", "True/Unschedulable", "True/ScalingUp"),
        ([view("a", 1.6), HOMELESS], autoscaled(), "True/ValidMetrics", "True/Unschedulable", "True/ScalingUp"),
        ([view("a"), view("b")], spec(replicas=1), "False/ScalingDisabled", "False/DesiredWithinRange", "True/ScalingDown"),
        (
            [view("a"), view("b", phase="Terminating")],
            spec(replicas=1),
            "False/ScalingDisabled",
            "False/DesiredWithinRange",
            "True/ScalingDown",
        ),
        (
            [view("a"), view("b", revision="r0", phase="Terminating")],
            spec(replicas=1),
            "False/ScalingDisabled",
            "False/DesiredWithinRange",
            "True/ScalingDown",
        ),
        (
            [view("a"), view("b", revision="r0")],
            spec(replicas=1),
            "False/ScalingDisabled",
            "False/DesiredWithinRange",
            "True/RollingOut",
        ),
    ],
)
def test_scaling(views, given_spec, active, limited, progressing):
    told = conditions(seen(*views), given_spec)
    assert (told["ScalingActive"][0], told["ScalingLimited"][0], told["Progressing"][0]) == (active, limited, progressing)


def test_without_a_revision_no_worker_is_of_an_older_one():
    assert conditions(seen(view("a"), replicas=None, revision=None), spec(replicas=1))["Progressing"][0] == "True/ScalingUp"


def test_refused_speaks_of_every_condition():
    told = refused("RuntimeNotFound", "there is no YoloRuntime\n  gpu")
    assert tuple(one.type for one in told) == TYPES
    assert {one.message for one in told} == {"there is no YoloRuntime gpu"}
    assert {one.type for one in told if one.status == "False"} == {"Ready", "ScalingActive", "Progressing"}


def test_messages_fit_into_a_condition():
    told = conditions(seen(failed("CrashLoopBackOff", "x" * 5000)))
    assert all(len(message) <= 1024 for _, message in told.values())


def test_a_failure_beside_a_serving_worker_is_only_told():
    both = seen(view("a"), replace(failed("ChecksumMismatch"), load_ratio=Missing("failed")))
    told = conditions(both)
    assert told["ModelLoaded"][0] == "True/Loaded"
    assert "ChecksumMismatch" in told["ModelLoaded"][1]
