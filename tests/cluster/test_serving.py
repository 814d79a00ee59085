"""What a user does first: install, apply, post an image; and what is said when something is wrong."""

import json

import pytest
from cluster_kit.cluster import Cluster, CommandError, Object, await_that
from cluster_kit.services import ModelServer
from cluster_kit.traffic import Client
from cluster_kit.yolastic import API_VERSION, IMAGE, SHAPES, SYSTEM, Inference, digest, labelled, served

AUTOSCALED = {"minReplicas": 1, "maxReplicas": 2}


def assert_right(answer: object) -> None:
    """The answer has exactly the labelled objects, each box within a few pixels of its label."""
    assert isinstance(answer, dict)
    rows = answer["images"][0]["results"]
    wanted = sorted(labelled(), key=lambda item: (item["name"], item["box"]))
    assert sorted(row["name"] for row in rows) == [item["name"] for item in wanted]
    for item in wanted:
        boxes = [[row["box"][corner] for corner in ("x1", "y1", "x2", "y2")] for row in rows if row["name"] == item["name"]]
        assert any(max(abs(a - b) for a, b in zip(box, item["box"], strict=True)) < 12 for box in boxes), (item, boxes)


def test_helm_tells_the_next_command_and_brings_the_runtimes(cluster: Cluster, release: str) -> None:
    assert "kubectl apply" in release
    names = cluster.kubectl("get", "yolort", "-o", "name").split()
    assert {"yoloruntime.yolastic.dev/cpu", "yoloruntime.yolastic.dev/cuda"} <= set(names)
    deployment = cluster.get("deployment", "yolastic-operator", SYSTEM)
    assert deployment is not None
    assert deployment["status"]["readyReplicas"] == 1


def test_a_model_from_http_serves_and_goes_without_a_trace(
    cluster: Cluster, namespace: str, models: ModelServer, client: Client
) -> None:
    inference = Inference(cluster, namespace, "shapes").apply(models.http_uri("shapes.onnx"), digest(SHAPES))
    inference.await_condition("Ready", "True", "WorkersReady")
    assert_right(served(client, inference))
    assert inference.condition("ModelLoaded")[:2] == ("True", "Loaded")
    assert inference.condition("MemoryBudgetResolved")[0] == "True"
    assert inference.status["model"]["sha256"] == digest(SHAPES)
    row = cluster.kubectl("get", "yolo", "shapes", "-n", namespace).splitlines()
    assert row[0].split() == ["NAME", "READY", "REPLICAS", "DESIRED", "BATCH", "VRAM", "REASON", "AGE"]
    assert row[1].split()[1:4] == ["True", "1", "1"]

    cluster.delete("yoloinference", "shapes", namespace, timeout_s=20)
    kinds = "deployments,replicasets,services,secrets,networkpolicies,poddisruptionbudgets"
    left = f"app.kubernetes.io/name=yolastic-worker,yolastic.dev/inference={inference.name}"
    await_that(lambda: not cluster.list(f"{kinds},pods", namespace, left), 60, "no child is left")


def test_a_model_from_a_claim_serves_with_autoscaling_and_refuses_kubectl_scale(
    cluster: Cluster, namespace: str, models: ModelServer, client: Client
) -> None:
    inference = Inference(cluster, namespace, "claimed")
    inference.apply(models.claim_uri("shapes.onnx"), digest(SHAPES), autoscaling=AUTOSCALED)
    inference.await_condition("Ready", "True")
    assert_right(served(client, inference))
    with pytest.raises(CommandError, match="replicas and autoscaling exclude each other"):
        cluster.kubectl("scale", "yoloinference/claimed", "--replicas=2", "-n", namespace)
    inference.await_condition("MetricsAvailable", "True")


def test_what_is_wrong_is_said_and_others_are_not_affected(
    cluster: Cluster, namespace: str, models: ModelServer, worker_image: str, client: Client
) -> None:
    models.put("text.onnx", b"this is no model")
    good = Inference(cluster, namespace, "good").apply(models.http_uri("shapes.onnx"), digest(SHAPES))
    wrong_sum = Inference(cluster, namespace, "wrong-sum").apply(models.http_uri("shapes.onnx"), "0" * 64)
    no_model = Inference(cluster, namespace, "no-model").apply(models.http_uri("text.onnx"), digest(b"this is no model"))
    nowhere = Inference(cluster, namespace, "nowhere").apply(models.http_uri("absent.onnx"), digest(SHAPES))
    no_file = Inference(cluster, namespace, "no-file").apply(models.claim_uri("2026/absent.onnx"), digest(SHAPES))
    cluster.exec(namespace, models.name, "mkdir", "/models/2025")
    folder = Inference(cluster, namespace, "folder").apply(models.claim_uri("2025"), digest(SHAPES))
    no_runtime = Inference(cluster, namespace, "no-runtime").apply(models.http_uri("shapes.onnx"), digest(SHAPES), runtime="tpu")
    secret = {"uri": models.http_uri("shapes.onnx"), "sha256": digest(SHAPES), "credentialsSecretName": "not-there"}
    no_secret = Inference(cluster, namespace, "no-secret").apply(secret["uri"], secret["sha256"], model=secret)
    runtime = {"image": worker_image, "priorityClassName": "not-there"}
    cluster.apply({"apiVersion": API_VERSION, "kind": "YoloRuntime", "metadata": {"name": "classless"}, "spec": runtime})
    no_class = Inference(cluster, namespace, "no-class").apply(
        models.http_uri("shapes.onnx"), digest(SHAPES), runtime="classless"
    )

    assert "0000000000" in wrong_sum.await_condition("ModelLoaded", "False", "ChecksumMismatch")
    assert "ONNX" in no_model.await_condition("ModelLoaded", "False", "UnsupportedModel")
    nowhere.await_condition("ModelLoaded", "False", "DownloadFailed")
    assert "2026/absent.onnx" in no_file.await_condition("ModelLoaded", "False", "ModelNotFound")
    assert "/2025 is a directory" in folder.await_condition("ModelLoaded", "False", "ModelNotFound")
    assert "tpu" in no_runtime.await_condition("Ready", "False", "RuntimeNotFound")
    assert "not-there" in no_secret.await_condition("Ready", "False", "SecretNotFound")
    assert "no PriorityClass with name not-there" in no_class.await_condition("Ready", "False", "FailedCreate")
    for broken in (wrong_sum, no_model, nowhere, no_file, folder, no_runtime, no_secret, no_class):
        assert broken.condition("Ready")[0] == "False"
        assert broken.status.get("readyReplicas", 0) == 0

    good.await_condition("Ready", "True")
    assert_right(served(client, good))


def test_api_keys_open_the_door_and_a_missing_secret_is_named(
    cluster: Cluster, namespace: str, models: ModelServer, client: Client
) -> None:
    key = "yk_" + "0123456789abcdef" * 2
    line = f"camera-1:{digest(key.encode())}:1000\n"
    secret: Object = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "clients", "namespace": namespace}}
    cluster.apply({**secret, "stringData": {"keys": line, "other": "not for the workers"}})
    model = models.http_uri("shapes.onnx"), digest(SHAPES)
    guarded = Inference(cluster, namespace, "guarded").apply(*model, apiKeysSecretName="clients")
    without = Inference(cluster, namespace, "without").apply(*model, apiKeysSecretName="not-there")

    guarded.await_condition("Ready", "True")
    allowed = {"Content-Type": "image/jpeg", "Authorization": f"Bearer {key}"}
    predict = f"{guarded.url}/predict"
    await_that(lambda: client.request(predict, IMAGE, headers=allowed)[0] == 200, 15, "the key opens the door")
    assert client.predict(guarded.url, IMAGE)[0] == 401
    assert client.request(predict, IMAGE, headers=allowed | {"Authorization": f"Bearer {key[:-1]}0"})[0] == 401
    (pod,) = guarded.pods()
    seen = cluster.exec(namespace, pod["metadata"]["name"], "ls", "/etc/yolastic/api-keys")
    assert seen.split() == ["keys"], "nothing else of the Secret is there"

    assert "Secret not-there" in without.await_condition("Ready", "False", "SecretNotFound")
    assert without.condition("ModelLoaded")[0] == "Unknown"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}, "minReplicas must not exceed maxReplicas"),
        ({"replicas": 1, "autoscaling": {"maxReplicas": 2}}, "replicas and autoscaling exclude each other"),
        ({"model": {"uri": "ftp://models/shapes.onnx", "sha256": "0" * 64}}, "spec.model.uri"),
        ({"model": {"uri": "http://models/shapes.onnx", "sha256": "zz"}}, "spec.model.sha256"),
        ({"batching": {"maxSize": 300}}, "spec.batching.maxSize"),
        ({"image": "evil:latest"}, "unknown field"),
    ],
)
def test_the_api_server_refuses_what_cannot_be(cluster: Cluster, release: str, spec: dict[str, object], said: str) -> None:
    model = {"uri": "http://models/shapes.onnx", "sha256": "0" * 64}
    manifest: Object = {"apiVersion": API_VERSION, "kind": "YoloInference", "metadata": {"name": "refused"}}
    with pytest.raises(CommandError, match=said):
        cluster.kubectl(
            "create", "--validate=strict", "-f", "-", stdin=json.dumps({**manifest, "spec": {"model": model, **spec}})
        )
