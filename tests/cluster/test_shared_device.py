"""Two inferences on one simulated device in a real cluster: each starts when it was granted memory; bursts are lent in turn."""

import json
import time

from cluster_kit.cluster import Cluster, await_that
from cluster_kit.services import ModelServer
from cluster_kit.traffic import Client
from cluster_kit.yolastic import IMAGE, SHAPES, Inference, digest, served, simulated_runtime

PACE = "fixed_ms=200,per_image_ms=5,memory_fixed_mib=4096,memory_per_image_mib=200,memory_limit_mib=18432,device=GPU-shared-{}"
BUDGET_MIB = 18432 * 0.9
"""Room for one base of 8 and one burst of 32: 5696 and 10496 MiB."""
WITHIN_S = 15.0
"""Asking through `kubectl exec` takes its time on a busy machine; how soon a burst is lent is a figure of `make bench`."""


def test_bursts_are_lent_in_turn(
    cluster: Cluster, namespace: str, models: ModelServer, worker_image: str, client: Client
) -> None:
    cluster.apply(simulated_runtime("lent-out", worker_image, PACE.format(namespace), shared=True))
    both = [
        Inference(cluster, namespace, name).apply(
            models.http_uri("shapes.onnx"), digest(SHAPES), runtime="lent-out", replicas=1, batching={"maxSize": 32}
        )
        for name in ("lent-a", "lent-b")
    ]
    for inference in both:
        inference.await_ready_replicas(1, 120)
        served(client, inference)
    addresses = {inference.name: inference.pods()[0]["status"]["podIP"] for inference in both}

    def look() -> dict[str, tuple[int, int]]:
        """(effective, most that it may hold in MiB) of each."""
        states = {name: json.loads(client.get(f"http://{address}:9000/state")[1]) for name, address in addresses.items()}
        most = {name: max(told["ceiling"]["ceiling"], told["memory"]["held_images"]) for name, told in states.items()}
        return {name: (told["ceiling"]["effective"], 4096 + 200 * most[name]) for name, told in states.items()}

    waited_s = []
    for inference in (both[0], both[1], both[0]):
        began_s = time.monotonic()
        with client.load(inference.url, IMAGE, clients=48, limit_s=60) as load:
            await_that(lambda name=inference.name: look()[name][0] == 32, WITHIN_S, f"{inference.name} bursts")
            waited_s.append(time.monotonic() - began_s)
            assert sum(mib for _, mib in look().values()) <= BUDGET_MIB
        assert load.report.failed == 0, load.report.failures
    print(f"lent within {', '.join(f'{waited:.1f}' for waited in waited_s)} s, asking included")
    steps = {step["about"]: step["text"] for step in both[0].status["autoscaling"]["explanation"]}
    assert steps["Lease"].startswith(f"device GPU-shared-{namespace}: ")
    assert both[0].condition("MemoryBudgetResolved")[:2] == ("True", "Device")
