"""A worker that joins gets its share though every client holds a keep-alive connection."""

import re
import time

from cluster_kit.cluster import Cluster
from cluster_kit.services import ModelServer
from cluster_kit.traffic import Client
from cluster_kit.yolastic import IMAGE, SHAPES, Inference, digest, served, simulated_runtime

PACE = "fixed_ms=1000,per_image_ms=5,memory_fixed_mib=200,memory_per_image_mib=5,memory_limit_mib=2048"
CLIENTS = 120
WITHIN_S = 10.0
LEAST_SHARE = 0.7
UNDER_WAY = re.compile(r"^yolastic_inflight_images(?:\{[^}]*\})? (\S+)", re.MULTILINE)
"""A client in a closed loop always has one image under way, so this counts connections, whatever the batches do meanwhile."""


def test_a_new_worker_gets_its_share_within_ten_seconds(
    cluster: Cluster, namespace: str, models: ModelServer, worker_image: str, client: Client
) -> None:
    cluster.apply(simulated_runtime("shared-out", worker_image, PACE))
    inference = Inference(cluster, namespace, "shared-out").apply(
        models.http_uri("shapes.onnx"),
        digest(SHAPES),
        runtime="shared-out",
        replicas=1,
        batching={"policy": "Fixed", "maxSize": 64},
        objective={"latencyMilliseconds": 5000},
        drain={"timeoutSeconds": 20},
    )
    inference.await_ready_replicas(1)
    served(client, inference)
    (old,) = inference.pods()

    def under_way() -> dict[str, float]:
        """Images that each worker has taken in and not answered yet."""
        texts = {
            pod["metadata"]["name"]: client.get(f"http://{pod['status']['podIP']}:9000/metrics")[1] for pod in inference.pods()
        }
        return {name: sum(float(value) for value in UNDER_WAY.findall(text)) for name, text in texts.items()}

    with client.load(inference.url, IMAGE, clients=CLIENTS, limit_s=120) as load:
        cluster.kubectl("patch", "yolo", inference.name, "-n", namespace, "--type=merge", "-p", '{"spec": {"replicas": 2}}')
        inference.await_ready_replicas(2)
        joined_s = time.monotonic()
        time.sleep(max(0.0, joined_s + WITHIN_S - time.monotonic()))
        looks = [under_way() for _ in range(5)]
    counts = {name: sum(look[name] for look in looks) for name in looks[0]}
    assert len(counts) == 2
    shares = {name: count / (sum(counts.values()) / 2) for name, count in counts.items()}
    share = next(share for name, share in shares.items() if name != old["metadata"]["name"])
    print(f"share of the new worker {WITHIN_S:g} s after it was ready: {share:.2f}; {load.report.codes}")
    assert load.report.failed == 0, load.report.failures
    assert min(shares.values()) >= LEAST_SHARE, shares
