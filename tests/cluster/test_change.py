"""Models change without a free accelerator, a bad one goes back, pods are evicted and killed: what is lost, and what is said."""

import json
import os
import re
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from cluster_kit.cluster import Cluster, CommandError, await_that
from cluster_kit.services import ModelServer
from cluster_kit.traffic import Client, Stream
from cluster_kit.yolastic import IMAGE, OTHER, SHAPES, Inference, digest, labelled, served, simulated_runtime
from stopping import stopped

MEMORY = "memory_fixed_mib=200,memory_per_image_mib=50,memory_limit_mib=2048"
PACE = f"fixed_ms=20,per_image_ms=10,{MEMORY}"
SLOW = f"fixed_ms=100,per_image_ms=1,{MEMORY}"
"""At 20 images a second to each, a worker always has some under way."""
ANSWERED = re.compile(r'^yolastic_requests_total\{[^}]*code="200"[^}]*\} (\S+)', re.MULTILINE)
NAMES = [item["name"] for item in labelled()]
NO_MODEL = b"this is no model"
NOTICED_S = 5.0
"""A node notices a container that ended within a second or two; until the Service has left it out, connections are refused."""


def deployed(
    cluster: Cluster,
    namespace: str,
    models: ModelServer,
    image: str,
    client: Client,
    replicas: int,
    places: int | None = None,
    pace: str = PACE,
    **runtime: object,
) -> Inference:
    """An inference on simulated accelerators, answering with all its workers, or as many as there are `places` for."""
    cluster.apply(simulated_runtime("changing", image, pace, **runtime))
    inference = Inference(cluster, namespace, "changing").apply(
        models.http_uri("shapes.onnx"),
        digest(SHAPES),
        runtime="changing",
        replicas=replicas,
        batching={"maxSize": 8},
        drain={"timeoutSeconds": 20},
    )
    if places is None:
        inference.await_ready_replicas(replicas)
    else:
        await_that(lambda: inference.status.get("readyReplicas") == places, 90, f"{places} of {replicas} workers are ready")
    served(client, inference)
    return inference


def change_model(inference: Inference, uri: str, sha256: str) -> None:
    change = json.dumps({"spec": {"model": {"uri": uri, "sha256": sha256}}})
    inference.cluster.kubectl("patch", "yolo", inference.name, "-n", inference.namespace, "--type=merge", "-p", change)


def names_of(inference: Inference) -> set[str]:
    return {pod["metadata"]["name"] for pod in inference.pods()}


def both_have_the_other(inference: Inference) -> bool:
    loaded = inference.status.get("model", {})
    return bool(loaded.get("sha256") == digest(OTHER) and loaded.get("loadedReplicas") == 2)


def is_ready(pod: Any) -> bool:
    conditions = {item["type"]: item["status"] for item in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


@contextmanager
def nothing_fails(client: Client, inference: Inference) -> Iterator[None]:
    """A constant rate on new and on kept connections; afterwards: not one request failed."""
    streams: list[Stream] = []
    with (
        client.prober(inference.url, IMAGE, rate_per_s=5, expect_names=NAMES) as fresh,
        client.prober(inference.url, IMAGE, rate_per_s=5, connection="keep-alive", expect_names=NAMES) as kept,
    ):
        streams += [fresh, kept]
        yield
    for stream in streams:
        assert stream.report.failed == 0, stream.report.failures
        assert stream.report.sent > 20
    print("prober:", [(stream.report.sent, stream.report.failed, stream.report.max_ms) for stream in streams])


def test_with_every_accelerator_in_use_it_goes_one_by_one(
    cluster: Cluster, namespace: str, models: ModelServer, worker_image: str, client: Client
) -> None:
    if cluster.state is None:
        pytest.skip("a named cluster has its own number of accelerators")
    wants = {"acceleratorResource": "nvidia.com/gpu"}
    inference = deployed(cluster, namespace, models, worker_image, client, 2, **wants)
    with nothing_fails(client, inference):
        before = names_of(inference)
        change_model(inference, models.http_uri("other.onnx"), digest(OTHER))
        message = inference.await_condition("Progressing", "True", "OneByOne")
        assert "because no device is free for one more" in message
        inference.await_condition("Progressing", "False", "Stable")
        assert inference.status["model"] == {"sha256": digest(OTHER), "task": "Detect", "loadedReplicas": 2}
        assert not before & names_of(inference)

    # No device for a bad model either: one worker has to go for it, and comes back; the other never stops.
    models.put("broken.onnx", NO_MODEL)
    with nothing_fails(client, inference):
        before = names_of(inference)
        change_model(inference, models.http_uri("broken.onnx"), digest(NO_MODEL))
        message = inference.await_condition("Progressing", "False", "RolledBack", timeout_s=120)
        assert "UnsupportedModel" in message
        inference.await_ready_replicas(2)
    assert len(before & names_of(inference)) == 1
    assert inference.status["model"]["sha256"] == digest(OTHER)
    assert inference.condition("Ready")[:2] == ("False", "RolledBack")


def test_it_goes_one_by_one_with_more_workers_ordered_than_accelerators(
    cluster: Cluster, namespace: str, models: ModelServer, worker_image: str, client: Client
) -> None:
    if cluster.state is None:
        pytest.skip("a named cluster has its own number of accelerators")
    wants = {"acceleratorResource": "nvidia.com/gpu"}
    inference = deployed(cluster, namespace, models, worker_image, client, 3, places=2, **wants)
    inference.await_condition("ScalingLimited", "True", "Unschedulable")
    fewest, told = 2, set[str]()

    def over() -> bool:
        nonlocal fewest
        fewest = min(fewest, sum(is_ready(pod) for pod in inference.pods()))
        told.add(inference.condition("Progressing")[2])
        return both_have_the_other(inference)

    with nothing_fails(client, inference):
        before = names_of(inference)
        change_model(inference, models.http_uri("other.onnx"), digest(OTHER))
        await_that(over, 180, "both places have the new model")
    assert fewest == 1, "never more than one that serves is away"
    assert any("1 of 3 ordered has no place, and one that serves goes at a time" in text for text in told), told
    assert not before & names_of(inference)

    def as_before() -> bool:
        deployment = cluster.get("deployment", inference.name, namespace)
        assert deployment is not None
        update = deployment["spec"]["strategy"]["rollingUpdate"]
        return bool(deployment["spec"]["replicas"] == 3 and update == {"maxSurge": 1, "maxUnavailable": 0})

    await_that(as_before, 30, "the next change tries a surge again")


def test_it_goes_one_by_one_where_a_quota_has_no_room_for_one_more(
    cluster: Cluster, namespace: str, models: ModelServer, worker_image: str, client: Client
) -> None:
    inference = deployed(cluster, namespace, models, worker_image, client, 2)
    cluster.kubectl("create", "quota", "workers", "--hard=pods=3", "-n", namespace)  # the server of the models is one
    told = set[str]()

    def over() -> bool:
        told.add(inference.condition("Progressing")[2])
        return both_have_the_other(inference)

    with nothing_fails(client, inference):
        before = names_of(inference)
        change_model(inference, models.http_uri("other.onnx"), digest(OTHER))
        await_that(over, 240, "both have the new model")
        assert not before & names_of(inference)
    assert any("after 10 s an old worker makes room" in text and "exceeded quota" in text for text in told), told
    inference.await_condition("Progressing", "False", "Stable")


def test_a_bad_model_beside_a_shared_device_goes_back_and_the_old_one_never_stops(
    cluster: Cluster, namespace: str, models: ModelServer, worker_image: str, client: Client
) -> None:
    inference = deployed(cluster, namespace, models, worker_image, client, 1, shared=True)
    (before,) = inference.pods()
    with nothing_fails(client, inference):
        models.put("broken.onnx", NO_MODEL)
        change_model(inference, models.http_uri("broken.onnx"), digest(NO_MODEL))
        message = inference.await_condition("Progressing", "False", "RolledBack")
        assert "UnsupportedModel" in message
        inference.await_ready_replicas(1)
        (after,) = inference.pods()
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert after["status"]["containerStatuses"][0]["restartCount"] == 0
        assert [reason for reason, _ in inference.events()].count("RolledBack") == 1

        change_model(inference, models.http_uri("other.onnx"), digest(OTHER))
        await_that(lambda: inference.status.get("model", {}).get("sha256") == digest(OTHER), 60, "the next model serves")
        inference.await_condition("Progressing", "False", "Stable")


def evict(inference: Inference, pod: str) -> None:
    """`POST …/eviction`, as `kubectl drain` does it."""
    where = {"name": pod, "namespace": inference.namespace}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": where}
    path = f"/api/v1/namespaces/{inference.namespace}/pods/{pod}/eviction"
    inference.cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def test_evictions_go_one_at_a_time_and_lose_nothing(
    cluster: Cluster, namespace: str, models: ModelServer, worker_image: str, client: Client
) -> None:
    inference = deployed(cluster, namespace, models, worker_image, client, 2)
    first, second = sorted(names_of(inference))
    with nothing_fails(client, inference):
        evict(inference, first)
        with pytest.raises(CommandError, match="disruption budget"):
            evict(inference, second)

        def evicted() -> bool:
            evict(inference, second)
            return True

        await_that(evicted, 60, "the second may go once there is another")
        inference.await_ready_replicas(2)
    assert not {first, second} & names_of(inference)


@pytest.mark.parametrize("late", [False, True], ids=["noticed", "noticed-late"])
def test_a_killed_worker_costs_what_is_under_way_on_it(
    cluster: Cluster, namespace: str, models: ModelServer, worker_image: str, client: Client, late: bool
) -> None:
    """`late`: its container is started again while the Service still has it."""
    if cluster.state is None:
        pytest.skip("only on this host a process of a pod can be killed")
    inference = deployed(cluster, namespace, models, worker_image, client, 2, pace=SLOW)
    victim = inference.pods()[0]
    with (
        client.prober(inference.url, IMAGE, rate_per_s=20) as once,
        client.prober(inference.url, IMAGE, rate_per_s=20, connect_retries=50) as again,
    ):
        # A Service may leave out a worker for seconds after it became ready.
        await_that(lambda: answered(client, victim) > 20, 30, "the one to be killed has its share")
        killed_s = time.monotonic()
        with stopped(int((cluster.state / "pid/proxy").read_text())) if late else nullcontext():
            gone_s = kill(main_process(victim["metadata"]["uid"]))
            await_that(lambda: restarts(inference) == 1, 30, "the node has started it again")
            inference.await_ready_replicas(2)
        over_s = time.monotonic() - killed_s
    refused = [item for item in once.report.failures if "ConnectionRefusedError" in item["problem"]]
    under_way = {
        "once": [once.report.began_s + item["at_s"] for item in once.report.failures if item not in refused],
        "again": [again.report.began_s + item["at_s"] for item in again.report.failures],
    }
    parts = ", ".join(f"{name}: {len(found)} under way" for name, found in under_way.items())
    print(f"killed, of 2 times {once.report.sent}: {parts}, {len(refused)} refused; back after {over_s:.1f} s")
    assert any(under_way.values()), "none was under way: nothing is shown"
    # Both clocks are this host's. How many are under way is the machine's affair; that none is lost later is ours, to all who try
    # again where nobody listens.
    assert all(sent_s <= gone_s for found in under_way.values() for sent_s in found), (gone_s, under_way)
    assert once.report.failed == len(once.report.failures), "more failed than a report lists"
    moments = [item["at_s"] for item in refused]
    assert not moments or max(moments) - min(moments) <= (over_s if late else NOTICED_S), once.report.failures


def kill(process: int) -> float:
    """Kills it; the monotonic time at which it is gone, with its connections."""
    handle = os.pidfd_open(process)
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        assert select.select([handle], [], [], 10)[0], f"process {process} does not end"
        return time.monotonic()
    finally:
        os.close(handle)


def answered(client: Client, pod: Any) -> float:
    text = client.get(f"http://{pod['status']['podIP']}:9000/metrics")[1]
    return sum(float(value) for value in ANSWERED.findall(text))


def restarts(inference: Inference) -> int:
    return sum(status["restartCount"] for pod in inference.pods() for status in pod["status"].get("containerStatuses", []))


def main_process(pod_uid: str) -> int:
    """Process id on this host of a pod's worker."""
    wanted = (pod_uid, pod_uid.replace("-", "_"))
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            group, command = (folder / "cgroup").read_text(), (folder / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
        if any(uid in group for uid in wanted) and b"serve" in command:
            return int(folder.name)
    raise AssertionError(f"no worker process of pod {pod_uid} on this host")
