"""Load comes and goes, models change, the operator restarts: what grows, what shrinks, and that nothing is lost."""

import json

from cluster_kit.cluster import Cluster, await_that
from cluster_kit.prometheus import Prometheus
from cluster_kit.services import ModelServer
from cluster_kit.traffic import Client
from cluster_kit.yolastic import IMAGE, OTHER, SHAPES, SYSTEM, Inference, digest, labelled, served, simulated_runtime

PACE = "fixed_ms=100,per_image_ms=10,memory_fixed_mib=200,memory_per_image_mib=50,memory_limit_mib=2048"
QUICK_DOWN = {"scaleDown": {"stabilizationWindowSeconds": 15}}
BASE, CEILING = 4, 16
NAMES = [item["name"] for item in labelled()]


def larger_batches(prometheus: Prometheus, namespace: str, than: int) -> float:
    """Batches with more images than that, over all workers, as a real Prometheus has them."""
    where = f'namespace="{namespace}"'
    all_batches = prometheus.query(f"sum(yolastic_batch_size_count{{{where}}})")
    small = prometheus.query(f'sum(yolastic_batch_size_bucket{{{where},le="{than}.0"}})')
    return all_batches[0][1] - small[0][1] if all_batches and small else 0.0


def elastic(cluster: Cluster, namespace: str, models: ModelServer, worker_image: str, client: Client) -> Inference:
    """An inference on a simulated accelerator, 1 to 2 workers, ready and answering."""
    cluster.apply(simulated_runtime("played", worker_image, PACE))
    inference = Inference(cluster, namespace, "elastic").apply(
        models.http_uri("shapes.onnx"),
        digest(SHAPES),
        runtime="played",
        autoscaling={"minReplicas": 1, "maxReplicas": 2, "behavior": QUICK_DOWN},
        batching={"maxSize": CEILING},
        objective={"latencyMilliseconds": 1000},
        drain={"timeoutSeconds": 20},
    )
    inference.await_condition("Ready", "True")
    served(client, inference)
    return inference


def test_load_comes_and_goes_and_nothing_is_lost(
    cluster: Cluster, namespace: str, models: ModelServer, worker_image: str, client: Client, prometheus: Prometheus
) -> None:
    inference = elastic(cluster, namespace, models, worker_image, client)

    def granted() -> bool:
        batch = inference.status.get("batch", {})
        return (batch.get("base"), batch.get("ceiling"), batch.get("appliedReplicas")) == (BASE, CEILING, 1)

    await_that(granted, 30, f"the tiers {BASE} and {CEILING} are granted and confirmed")
    with (
        client.prober(inference.url, IMAGE, rate_per_s=2, expect_names=NAMES) as fresh,
        client.prober(inference.url, IMAGE, rate_per_s=2, connection="keep-alive", expect_names=NAMES) as kept,
    ):
        with client.load(inference.url, IMAGE, clients=32, limit_s=150) as load:
            await_that(lambda: larger_batches(prometheus, namespace, BASE) > 0, 30, "batches grow into the burst tier")
            assert inference.status["desiredReplicas"] == 1, "the burst tier comes before a second worker"
            inference.await_ready_replicas(2, timeout_s=120)
        assert load.report.failed == 0, load.report.failures
        inference.await_ready_replicas(1, timeout_s=120)
    for stream in (fresh, kept):
        assert stream.report.failed == 0, stream.report.failures
        assert stream.report.sent > 50
    metrics = inference.status["autoscaling"]["metrics"]
    assert [item["source"] for item in metrics] == ["Prometheus"]
    assert {"Rescaled", "BatchCeilingChanged"} <= {reason for reason, _ in inference.events()}


def test_a_new_model_and_a_new_operator_lose_nothing(
    cluster: Cluster, namespace: str, models: ModelServer, worker_image: str, client: Client
) -> None:
    inference = elastic(cluster, namespace, models, worker_image, client)
    before = {pod["metadata"]["name"] for pod in inference.pods()}
    with (
        client.prober(inference.url, IMAGE, rate_per_s=5, expect_names=NAMES) as fresh,
        client.prober(inference.url, IMAGE, rate_per_s=5, connection="keep-alive", expect_names=NAMES) as kept,
    ):
        cluster.kubectl("rollout", "restart", "deployment/yolastic-operator", "-n", SYSTEM)
        cluster.kubectl("rollout", "status", "deployment/yolastic-operator", "-n", SYSTEM, "--timeout=60s", timeout_s=70)
        change = {"model": {"uri": models.http_uri("other.onnx"), "sha256": digest(OTHER)}}
        cluster.kubectl("patch", "yolo", inference.name, "-n", namespace, "--type=merge", "-p", json.dumps({"spec": change}))
        await_that(lambda: inference.status.get("model", {}).get("sha256") == digest(OTHER), 90, "the new model serves")
        await_that(lambda: not before & {pod["metadata"]["name"] for pod in inference.pods()}, 90, "the old worker is gone")
    for stream in (fresh, kept):
        assert stream.report.failed == 0, stream.report.failures
        assert stream.report.sent > 50
    inference.await_condition("Ready", "True", "WorkersReady")


def test_more_workers_than_accelerators_is_said(
    cluster: Cluster, namespace: str, models: ModelServer, worker_image: str, client: Client
) -> None:
    cluster.apply(simulated_runtime("two-of-them", worker_image, PACE, acceleratorResource="nvidia.com/gpu"))
    inference = Inference(cluster, namespace, "crowded").apply(
        models.http_uri("shapes.onnx"), digest(SHAPES), runtime="two-of-them", autoscaling={"minReplicas": 3, "maxReplicas": 4}
    )
    message = inference.await_condition("ScalingLimited", "True", "Unschedulable")
    assert "no place for 1 worker" in message
    await_that(lambda: inference.status.get("readyReplicas") == 2, 90, "two workers are ready")
    assert inference.condition("Ready")[0] == "True"
    assert served(client, inference)
