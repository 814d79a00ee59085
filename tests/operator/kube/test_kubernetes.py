"""The cluster verbs against a real API server, with exactly the operator's rights."""

import asyncio
import base64
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import aiohttp
import pytest

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.act import workload
from yolastic_operator.act.manifests import Surroundings
from yolastic_operator.cluster.api import ApiError, KubernetesApi, connect
from yolastic_operator.cluster.base import ClusterError, Event, RefusedError, WorkerError
from yolastic_operator.cluster.cache import FleetCache
from yolastic_operator.cluster.control import ControlClient
from yolastic_operator.cluster.kubernetes import KubernetesCluster
from yolastic_operator.model import Ref, Worker, Workload

T = TypeVar("T")
pytestmark = pytest.mark.cluster

API = "/apis/yolastic.dev/v1alpha1"
SPEC: dict[str, Any] = {"model": {"uri": "http://models.invalid/m.onnx", "sha256": "0" * 64}}
CHILDREN = {
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments/{}",
    "Service": "/api/v1/namespaces/{}/services/{}",
    "Secret": "/api/v1/namespaces/{}/secrets/{}-control",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies/{}",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets/{}",
}


class Rig:
    """A cluster of the verbs on the API server, and what it asked."""

    def __init__(self, api_server: Any, namespace: str) -> None:
        self.server = api_server
        self.namespace = namespace
        self.requests: Counter[tuple[str, str]] = Counter()
        self.runtimes: dict[str, Any] = {}

    def make(self, name: str = "weld", spec: dict[str, Any] = SPEC) -> Ref:
        path = f"{API}/namespaces/{self.namespace}/yoloinferences/{name}"
        body = {"apiVersion": "yolastic.dev/v1alpha1", "kind": "YoloInference", "metadata": {"name": name}, "spec": spec}
        return Ref(self.namespace, name, self.server.apply(path, body)["metadata"]["uid"])

    def work(self, ref: Ref, **spec: Any) -> Workload:
        return workload.build(ref, InferenceSpec.model_validate(SPEC | spec), "cpu", RuntimeSpec(image="worker:1"))

    def child(self, kind: str, name: str = "weld") -> Any:
        return self.server.get(CHILDREN[kind].format(self.namespace, name))

    def tokens(self) -> list[str]:
        return base64.b64decode(self.child("Secret")["data"]["token"]).decode().split()

    def run(self, scenario: Callable[[KubernetesCluster], Awaitable[T]], **options: Any) -> T:
        async def connected() -> T:
            def count(verb: str, code: str) -> None:
                self.requests[verb, code] += 1

            async with connect(count, str(self.server.operator_kubeconfig)) as api, aiohttp.ClientSession() as session:
                control = ControlClient(session, timeout_s=1)
                cache = FleetCache(time.monotonic)
                return await scenario(KubernetesCluster(api, control, Surroundings(), cache, self.runtimes, **options))

        return asyncio.run(connected())


@pytest.fixture
def rig(api_server: Any, namespace: str) -> Rig:
    return Rig(api_server, namespace)


def test_applying_twice_changes_nothing(rig: Rig) -> None:
    work = rig.work(rig.make())

    async def twice(cluster: KubernetesCluster) -> tuple[dict[str, Any], dict[str, Any]]:
        await cluster.ensure(work, 2)
        first = {kind: rig.child(kind) for kind in CHILDREN}
        await cluster.ensure(work, 5)
        return first, {kind: rig.child(kind) for kind in CHILDREN}

    first, second = rig.run(twice)
    assert first == second, "not even a resourceVersion moved"
    assert rig.requests["apply", "200"] + rig.requests["apply", "201"] == 7, "the second time nothing was even sent"
    assert first["Deployment"]["spec"]["replicas"] == 2
    for child in first.values():
        assert [owner["uid"] for owner in child["metadata"]["ownerReferences"]] == [work.ref.uid]


def test_the_size_is_ordered_through_the_scale_and_survives_applying(rig: Rig) -> None:
    ref = rig.make()

    async def scenario(cluster: KubernetesCluster) -> tuple[int | None, int | None]:
        await cluster.ensure(rig.work(ref), 0)
        await cluster.fleet(ref)
        await cluster.scale(ref, 3, [])
        known = (await cluster.fleet(ref)).replicas
        await cluster.ensure(rig.work(ref, queue={"maxLength": 7}), 1)
        return known, (await cluster.fleet(ref)).replicas

    assert rig.run(scenario) == (3, 3)
    assert rig.child("Deployment")["spec"]["replicas"] == 3


class DyingApi:
    """The API until the nth apply of a Deployment: the operator ends right before or right after it."""

    def __init__(self, api: KubernetesApi, nth: int, moment: str) -> None:
        self._api, self._left, self._moment = api, nth, moment

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)

    async def apply(self, path: str, body: Any, **options: Any) -> Any:
        self._left -= body["kind"] == "Deployment"
        is_last = self._left == 0 and body["kind"] == "Deployment"
        if is_last and self._moment == "before":
            raise ApiError("the end", 0)
        answer = await self._api.apply(path, body, **options)
        if is_last:
            raise ApiError("the end", 0)
        return answer


@pytest.mark.parametrize("who", ["the same process", "another process"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_deployment_that_was_half_made_keeps_its_size(rig: Rig, nth: int, moment: str, who: str) -> None:
    ref = rig.make()
    work = rig.work(ref)

    def size() -> int | None:
        deployment = rig.child("Deployment")
        return None if deployment is None else int(deployment["spec"]["replicas"])

    async def dies(cluster: KubernetesCluster) -> None:
        api = cluster._api
        cluster._api = DyingApi(api, nth, moment)  # type: ignore[assignment]
        with pytest.raises(ClusterError, match="the end"):
            await cluster.ensure(work, 5)
        cluster._api = api
        if who == "the same process":
            await finishes(cluster)

    async def finishes(cluster: KubernetesCluster) -> None:
        assert size() == (None if (nth, moment) == (1, "before") else 5)
        await cluster.ensure(work, 5 if size() is None else 1)
        assert size() == 5
        before = rig.requests["apply", "200"]
        await cluster.ensure(work, 1)
        assert rig.requests["apply", "200"] == before, "at rest nothing is written"
        await cluster.ensure(rig.work(ref, queue={"maxLength": 7}), 1)
        assert size() == 5
        await cluster.fleet(ref)
        await cluster.scale(ref, 2, [])
        await cluster.ensure(work, 1)
        assert size() == 2

    rig.run(dies)
    if who == "another process":
        rig.run(finishes)


def test_how_workers_are_replaced_and_what_is_remembered_is_kept_with_the_deployment(rig: Rig) -> None:
    ref = rig.make()
    one_by_one = replace(rig.work(ref), manner="OneByOne", unplaced=2, record='{"a":1}')

    async def scenario(cluster: KubernetesCluster) -> None:
        await cluster.ensure(one_by_one, 2)
        found = await cluster.fleet(ref)
        assert (found.manner, found.unplaced, found.record) == ("OneByOne", 2, '{"a":1}')
        before = rig.child("Deployment")
        await cluster.ensure(replace(one_by_one, manner="Surge", unplaced=0, record='{"a":2}'), 2)
        after = rig.child("Deployment")
        assert before["spec"]["template"] == after["spec"]["template"], "another manner restarts nobody"
        assert after["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        found = await cluster.fleet(ref)
        assert (found.manner, found.record) == ("Surge", '{"a":2}')

    rig.run(scenario)


def test_a_fleet_that_starts_with_none(rig: Rig) -> None:
    ref = rig.make()

    async def scenario(cluster: KubernetesCluster) -> None:
        await cluster.ensure(rig.work(ref), 0)

    rig.run(scenario)
    assert rig.child("Deployment")["spec"]["replicas"] == 0


def test_what_is_left_out_goes(rig: Rig) -> None:
    ref = rig.make()
    with_selector = RuntimeSpec(image="worker:1", node_selector={"zone": "a"})
    spec = InferenceSpec.model_validate(SPEC)

    async def scenario(cluster: KubernetesCluster) -> None:
        await cluster.ensure(workload.build(ref, spec, "cpu", with_selector), 1)
        assert rig.child("Deployment")["spec"]["template"]["spec"]["nodeSelector"] == {"zone": "a"}
        await cluster.ensure(rig.work(ref), 1)

    rig.run(scenario)
    assert "nodeSelector" not in rig.child("Deployment")["spec"]["template"]["spec"]


def other_volume(template: Any) -> None:
    volume = next(one for one in template["spec"]["volumes"] if "emptyDir" in one)
    del volume["emptyDir"]
    volume["configMap"] = {"name": "mine"}


def other_port(template: Any) -> None:
    template["spec"]["containers"][0]["ports"][0]["containerPort"] += 1


def with_template(change: Callable[[Any], None]) -> Callable[[Any], Any]:
    def edited(live: Any) -> Any:
        change(live["spec"]["template"])
        return {"template": live["spec"]["template"]}

    return edited


@pytest.mark.parametrize(
    ("kind", "edit"),
    [
        ("Service", lambda live: {"ports": [live["spec"]["ports"][0] | {"port": 8080}]}),
        ("PodDisruptionBudget", lambda live: {"maxUnavailable": None, "minAvailable": 1}),
        ("Deployment", with_template(other_volume)),
        ("Deployment", with_template(other_port)),
        ("Deployment", lambda live: {"paused": True, "minReadySeconds": 300}),
    ],
    ids=["port of the Service", "least of the budget", "volume", "port of the workers", "pause"],
)
def test_an_edit_that_an_apply_alone_does_not_undo_is_undone(rig: Rig, kind: str, edit: Callable[[Any], Any]) -> None:
    ref = rig.make()
    first, second = rig.work(ref), rig.work(ref, model={**SPEC["model"], "sha256": "1" * 64})

    async def scenario(cluster: KubernetesCluster) -> None:
        await cluster.ensure(first, 3)
        before = rig.child(kind)["spec"]
        path = CHILDREN[kind].format(rig.namespace, "weld")
        rig.server.merge(path, {"spec": edit(rig.child(kind))})
        assert rig.child(kind)["spec"] != before
        await cluster.ensure(first, 1)
        assert rig.child(kind)["spec"] == before
        version = rig.child(kind)["metadata"]["resourceVersion"]
        await cluster.ensure(first, 1)
        assert rig.child(kind)["metadata"]["resourceVersion"] == version, "that is not done over and over"
        generation = rig.child("Deployment")["metadata"]["generation"]
        await cluster.ensure(second, 1)
        assert rig.child("Deployment")["metadata"]["generation"] == generation + 1
        assert rig.child("Deployment")["spec"]["replicas"] == 3

    rig.run(scenario)


def test_the_token_is_made_once(rig: Rig) -> None:
    work = rig.work(rig.make())

    async def scenario(cluster: KubernetesCluster) -> None:
        await cluster.ensure(work, 1)

    rig.run(scenario)
    first = rig.child("Secret")["data"]
    rig.run(scenario)  # another process
    assert rig.child("Secret")["data"] == first
    assert len(first["token"]) > 40


@pytest.mark.parametrize("kind", ["Service", "Secret", "NetworkPolicy", "PodDisruptionBudget", "Deployment"])
def test_somebody_elses_object_is_never_taken_over(rig: Rig, kind: str) -> None:
    ref = rig.make()
    pod = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    bodies: dict[str, dict[str, Any]] = {
        "Service": {"apiVersion": "v1", "spec": {"ports": [{"port": 80}]}},
        "Secret": {"apiVersion": "v1", "data": {"token": "c2VjcmV0"}},
        "NetworkPolicy": {"apiVersion": "networking.k8s.io/v1", "spec": {"podSelector": {}}},
        "PodDisruptionBudget": {"apiVersion": "policy/v1", "spec": {"maxUnavailable": 1}},
        "Deployment": {"apiVersion": "apps/v1", "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": pod}},
    }
    path = CHILDREN[kind].format(rig.namespace, "weld")
    theirs = rig.server.apply(path, bodies[kind] | {"kind": kind, "metadata": {"name": path.rsplit("/", 1)[1]}})

    async def scenario(cluster: KubernetesCluster) -> None:
        await cluster.ensure(rig.work(ref), 1)

    with pytest.raises(RefusedError, match=f"{kind} weld.* exists already") as caught:
        rig.run(scenario)
    assert caught.value.reason == "NameTaken"
    assert rig.child(kind) == theirs


EDITS: dict[str, dict[str, str | None]] = {
    "another manager": {"app.kubernetes.io/managed-by": "Helm"},
    "no inference": {"yolastic.dev/inference": None},
    "none at all": dict.fromkeys(["app.kubernetes.io/managed-by", "app.kubernetes.io/name", "yolastic.dev/inference"]),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("kind", ["Service", "Secret", "NetworkPolicy", "PodDisruptionBudget", "Deployment"])
def test_labels_that_somebody_edits_are_put_right(rig: Rig, kind: str, edit: str) -> None:
    """What an owner reference says is ours is not taken for somebody else's."""
    ref = rig.make()
    path = CHILDREN[kind].format(rig.namespace, "weld")

    async def scenario(cluster: KubernetesCluster) -> None:
        await cluster.ensure(rig.work(ref), 1)
        before = rig.child(kind)["metadata"]["labels"]
        rig.server.merge(path, {"metadata": {"labels": EDITS[edit]}})
        assert rig.child(kind)["metadata"].get("labels") != before
        await cluster.ensure(rig.work(ref), 1)
        assert rig.child(kind)["metadata"]["labels"] == before

    rig.run(scenario)


def test_a_local_file_is_refused(rig: Rig) -> None:
    ref = Ref(rig.namespace, "weld", "uid")

    async def scenario(cluster: KubernetesCluster) -> None:
        await cluster.ensure(rig.work(ref, model={"uri": "file:///m.onnx", "sha256": "0" * 64}), 1)

    with pytest.raises(RefusedError, match="file://") as caught:
        rig.run(scenario)
    assert caught.value.reason == "UriNotAllowed"
    assert not rig.requests


def test_a_status_is_replaced_and_never_makes_an_object(rig: Rig) -> None:
    ref = rig.make()
    ready = {"type": "Ready", "status": "False", "reason": "Starting", "lastTransitionTime": "2026-11-22T10:00:00Z"}
    first = {"replicas": 2, "url": "http://weld", "conditions": [ready, ready | {"type": "Progressing"}]}

    async def scenario(cluster: KubernetesCluster) -> None:
        await cluster.write_status(ref, first)
        assert status_of(rig)["url"] == "http://weld"
        await cluster.write_status(ref, {"replicas": 1, "conditions": [ready | {"status": "True"}]})
        with pytest.raises(ClusterError, match="404"):
            await cluster.write_status(Ref(ref.namespace, "never-made", ""), first)

    rig.run(scenario)
    status = status_of(rig)
    assert status["replicas"] == 1
    assert "url" not in status
    assert [(item["type"], item["status"]) for item in status["conditions"]] == [("Ready", "True")]


def status_of(rig: Rig) -> Any:
    return rig.server.get(f"{API}/namespaces/{rig.namespace}/yoloinferences/weld")["status"]


def test_an_event_is_found_where_people_look(rig: Rig) -> None:
    ref = rig.make()

    async def scenario(cluster: KubernetesCluster) -> None:
        await cluster.post_event(ref, Event("Warning", "RuntimeNotFound", "there is no YoloRuntime gone" + "!" * 2000))

    rig.run(scenario)
    field = f"involvedObject.uid={ref.uid}"
    events = rig.server.get(f"/api/v1/namespaces/{rig.namespace}/events?fieldSelector={field}")["items"]
    assert [(event["type"], event["reason"], event["reportingComponent"]) for event in events] == [
        ("Warning", "RuntimeNotFound", "yolastic-operator")
    ]


def make_pod(rig: Rig, name: str, labels: dict[str, str]) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "worker", "image": "worker:1"}]},
    }
    rig.server.apply(f"/api/v1/namespaces/{rig.namespace}/pods/{name}", body)


def test_a_fleet_at_rest_costs_no_request(rig: Rig) -> None:
    ref = rig.make()
    work = rig.work(ref)
    make_pod(rig, "weld-1", {**work.labels, "yolastic.dev/revision": work.revision})
    make_pod(rig, "paint-1", {**work.labels, "yolastic.dev/inference": "paint"})

    async def scenario(cluster: KubernetesCluster) -> None:
        await cluster.ensure(work, 1)
        fleet = await cluster.fleet(ref)
        assert (fleet.replicas, fleet.revision) == (1, work.revision)
        assert [(worker.name, worker.phase) for worker in fleet.workers] == [("weld-1", "Pending")]
        before = rig.requests.total()
        assert await cluster.fleet(ref) == fleet
        assert rig.requests.total() == before

    rig.run(scenario)


def test_victims_are_marked_before_the_size_is_ordered(rig: Rig) -> None:
    ref = rig.make()
    work = rig.work(ref)
    for name in ("weld-1", "weld-2"):
        make_pod(rig, name, work.labels)

    async def scenario(cluster: KubernetesCluster) -> None:
        await cluster.ensure(work, 3)
        await cluster.scale(ref, 1, ["weld-2", "gone-already", "weld-1"])

    rig.run(scenario)
    costs = {
        name: rig.server.get(f"/api/v1/namespaces/{rig.namespace}/pods/{name}")["metadata"]["annotations"]
        for name in ("weld-1", "weld-2")
    }
    key = "controller.kubernetes.io/pod-deletion-cost"
    assert int(costs["weld-2"][key]) < int(costs["weld-1"][key]) < 0


def test_runtimes_come_from_the_watch_or_the_server(rig: Rig) -> None:
    body = {"apiVersion": "yolastic.dev/v1alpha1", "kind": "YoloRuntime", "metadata": {"name": rig.namespace}}
    rig.server.apply(f"{API}/yoloruntimes/{rig.namespace}", body | {"spec": {"image": "worker:1"}})
    rig.runtimes["watched"] = {"spec": {"image": "worker:2"}}
    rig.runtimes["broken"] = {"spec": {"image": "worker:2", "colour": "red"}}

    async def scenario(cluster: KubernetesCluster) -> None:
        for _ in range(2):
            assert (await cluster.runtime(rig.namespace)) == RuntimeSpec(image="worker:1")
        assert (await cluster.runtime("watched")) == RuntimeSpec(image="worker:2")
        for _ in range(2):
            assert await cluster.runtime("gone") is None
        with pytest.raises(RefusedError, match=r"YoloRuntime broken: spec.colour: Extra inputs") as caught:
            await cluster.runtime("broken")
        assert caught.value.reason == "RuntimeInvalid"

    rig.run(scenario)
    assert rig.requests == {("get", "200"): 2, ("get", "404"): 1}, "a runtime that is missing is not asked for every turn"


def test_a_runtime_that_went_while_no_watch_looked_is_missed_within_two_minutes(rig: Rig) -> None:
    body, name, now_s = {"apiVersion": "yolastic.dev/v1alpha1", "kind": "YoloRuntime"}, rig.namespace, [1000.0]
    path = f"{API}/yoloruntimes/{name}"
    rig.server.apply(path, body | {"metadata": {"name": name}, "spec": {"image": "worker:1"}})
    rig.runtimes[name] = {"spec": {"image": "worker:1"}}

    async def turns(cluster: KubernetesCluster, seconds: float) -> RuntimeSpec | None:
        """Those of ten inferences at once."""
        for _ in range(int(seconds / 5)):
            now_s[0] += 5
            found = await asyncio.gather(*(cluster.runtime(name) for _ in range(10)))
        return found[-1]

    async def scenario(cluster: KubernetesCluster) -> None:
        api, cluster._api = cluster._api, None  # type: ignore[assignment]
        assert await turns(cluster, 60) == RuntimeSpec(image="worker:1"), "what the watch has just shown is not asked for"
        cluster._api = api
        assert await turns(cluster, 540) == RuntimeSpec(image="worker:1")
        assert rig.requests == {("get", "200"): 5}, "once in two minutes, however many inferences there are"
        assert rig.server.request("DELETE", path)[0] == 200
        assert await turns(cluster, 120) is None
        assert rig.requests["get", "404"] == 1
        assert name not in rig.runtimes
        rig.runtimes[name] = {"spec": {"image": "worker:2"}}  # the watch tells that it is there again
        assert await turns(cluster, 5) == RuntimeSpec(image="worker:2")

    rig.run(scenario, monotonic=lambda: now_s[0])


def test_rights_that_are_missing_and_servers_that_are_gone_are_cluster_errors(rig: Rig) -> None:
    async def scenario() -> tuple[ApiError, ApiError]:
        errors = []
        async with connect(lambda *_: None, str(rig.server.operator_kubeconfig)) as api:
            with pytest.raises(ApiError) as caught:
                await api.list(f"/api/v1/namespaces/{rig.namespace}/secrets", "")
            errors.append(caught.value)
            api._client.client.configuration.host = "https://127.0.0.1:1"
            with pytest.raises(ApiError) as caught:
                await api.get("/api")
            errors.append(caught.value)
        return errors[0], errors[1]

    forbidden, gone = asyncio.run(scenario())
    assert forbidden.code == 403
    assert "\n" not in str(forbidden)
    assert gone.code == 0


def test_a_token_that_is_refused_is_read_again_once(rig: Rig) -> None:
    ref, worker = rig.make(), Worker("weld-1", "r", "Ready", 0.0, address="127.0.0.1")
    work = rig.work(ref)
    tokens: list[str] = []

    class Control:
        """A worker that was given another token than the one in memory."""

        async def drain(self, base_url: str, token: str) -> None:
            assert base_url == "http://127.0.0.1:9000"
            tokens.append(token)
            if token != "rotated":
                raise WorkerError("status 401", 401)

    async def scenario(cluster: KubernetesCluster) -> None:
        cluster._control = Control()  # type: ignore[assignment]
        await cluster.ensure(work, 1)
        rig.server.merge(CHILDREN["Secret"].format(rig.namespace, "weld"), {"stringData": {"token": "rotated"}})
        await cluster.drain(ref, worker)
        await cluster.drain(ref, worker)
        rig.server.merge(CHILDREN["Secret"].format(rig.namespace, "weld"), {"stringData": {"token": "wrong"}})
        cluster.forget(ref)
        with pytest.raises(WorkerError):
            await cluster.drain(ref, worker)

    rig.run(scenario)
    assert tokens[1:] == ["rotated", "rotated", "wrong"]


class Pod:
    """A worker's control port: it takes the tokens of its file, which follows the Secret late."""

    def __init__(self) -> None:
        self.file: list[str] = []
        self.told: list[bool] = []

    async def drain(self, base_url: str, token: str) -> None:
        self.told.append(token in self.file)
        if not self.told[-1]:
            raise WorkerError("status 401", 401)


@pytest.mark.parametrize("how", ["asked", "aged", "deleted"])
def test_a_token_is_replaced_and_no_call_is_refused(rig: Rig, how: str) -> None:
    ref, worker, pod = rig.make(), Worker("weld-1", "r", "Ready", 0.0, address="127.0.0.1"), Pod()
    work, path = rig.work(ref), CHILDREN["Secret"].format(rig.namespace, "weld")
    clock = [1_795_000_000.0]

    async def scenario(cluster: KubernetesCluster) -> None:
        cluster._control = pod  # type: ignore[assignment]
        await cluster.ensure(work, 1)
        (first,) = pod.file = rig.tokens()
        if how == "asked":
            rig.server.merge(path, {"metadata": {"annotations": {"yolastic.dev/rotate": "now"}}})
        elif how == "aged":
            clock[0] += 8 * 86400
        else:
            assert rig.server.request("DELETE", path)[0] == 200
            await cluster.drain(ref, worker)
        await cluster.ensure(work, 1)
        assert "yolastic.dev/rotate" not in rig.child("Secret")["metadata"]["annotations"]
        both = rig.tokens()
        assert both[0] == first
        assert len(both) == 2
        await cluster.drain(ref, worker)  # its file is the old one still
        pod.file = both
        await cluster.drain(ref, worker)
        before = rig.child("Secret")
        await cluster.ensure(work, 1)
        assert rig.child("Secret") == before, "nothing is written while the overlap lasts"
        rig.server.merge(path, {"metadata": {"annotations": {"yolastic.dev/rotate": "again"}}})
        await cluster.ensure(work, 1)
        assert rig.child("Secret")["metadata"]["annotations"]["yolastic.dev/rotate"] == "again", "it waits for the overlap's end"
        clock[0] += 300
        await cluster.ensure(work, 1)
        assert rig.tokens()[:-1] == both[1:]
        assert "yolastic.dev/rotate" not in rig.child("Secret")["metadata"]["annotations"]
        both = rig.tokens()
        await cluster.drain(ref, worker)
        pod.file = both
        clock[0] += 300
        await cluster.ensure(work, 1)
        assert rig.tokens() == both[1:]
        await cluster.drain(ref, worker)
        pod.file = both[1:]
        await cluster.drain(ref, worker)
        assert all(pod.told), pod.told

    rig.run(scenario, token_age_s=7 * 86400.0, wall=lambda: clock[0])
    assert len(pod.told) >= 4


def test_a_worker_that_was_cut_off_is_still_reached(rig: Rig) -> None:
    """Its node did not bring it the Secret while the token was replaced."""
    ref, worker, pod = rig.make(), Worker("weld-1", "r", "Ready", 0.0, address="127.0.0.1"), Pod()
    work, path = rig.work(ref), CHILDREN["Secret"].format(rig.namespace, "weld")
    clock = [1_795_000_000.0]

    async def scenario(cluster: KubernetesCluster) -> None:
        cluster._control = pod  # type: ignore[assignment]
        await cluster.ensure(work, 1)
        pod.file = rig.tokens()
        rig.server.merge(path, {"metadata": {"annotations": {"yolastic.dev/rotate": "now"}}})
        for _ in range(2):
            await cluster.ensure(work, 1)
            clock[0] += 300
        assert rig.tokens() != pod.file
        await cluster.drain(ref, worker)

    rig.run(scenario, wall=lambda: clock[0])
    assert pod.told[-1]
