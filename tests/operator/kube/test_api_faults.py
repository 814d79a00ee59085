"""The operator's process behind an API server that fails, stands still, forgets or goes away, beside people and other operators.

After each fault it must be right within two turns, the same process must still run, and nothing may be left behind.
"""

import secrets
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scene import API, TWO_TURNS_S, Scene, eventually, free_port, scene_of
from stopping import stop

pytestmark = pytest.mark.cluster


def writes(status: int) -> Callable[[str, str], int | None]:
    return lambda method, path: status if method != "GET" else None


def everything(status: int) -> Callable[[str, str], int | None]:
    return lambda method, path: status


@pytest.mark.parametrize(
    "fault",
    [writes(409), writes(410), *(everything(status) for status in (400, 404, 409, 410, 429, 500))],
    ids=["writes 409", "writes 410", "400", "404", "409", "410", "429", "500"],
)
def test_after_refusals_it_is_right_within_two_turns(scene: Scene, fault: Any) -> None:
    scene.make(1)
    process = scene.operator()
    eventually("it is right", lambda: scene.right(1))
    scene.proxy.fault = fault
    scene.proxy.cut()
    scene.make(3)
    time.sleep(4)  # long enough for pauses to grow
    assert scene.size == 1
    scene.proxy.fault = lambda method, path: None
    eventually("it is right again", lambda: scene.right(3), TWO_TURNS_S)
    assert process.poll() is None


def test_a_server_that_is_slow_or_away_is_only_waited_for(scene: Scene) -> None:
    scene.make(1)
    process = scene.operator()
    eventually("it is right", lambda: scene.right(1))
    scene.proxy.delay_s = 0.3
    scene.make(2)
    eventually("it is right, if late", lambda: scene.right(2), 20)
    scene.proxy.delay_s = 0.0
    scene.proxy.stop()
    scene.make(3)
    time.sleep(4)
    scene.proxy.start()
    eventually("it is right again", lambda: scene.right(3), TWO_TURNS_S)
    assert process.poll() is None


def test_a_server_that_is_killed_and_started_again_finds_the_operator_where_it_was(scene: Scene) -> None:
    scene.make(1)
    process = scene.operator()
    eventually("it is right", lambda: scene.right(1))
    before = scene.deployment["metadata"]["generation"]
    scene.server.process.kill()
    time.sleep(3)
    scene.server.process.start()
    scene.server.await_up()
    assert (scene.size, scene.deployment["metadata"]["generation"]) == (1, before), "nothing was changed by that"
    scene.make(3)
    eventually("it is right again", lambda: scene.right(3), TWO_TURNS_S)
    scene.pod("weld-1")
    eventually("it watches pods again", lambda: scene.status.get("replicas") == 1, TWO_TURNS_S)
    assert process.poll() is None


def test_a_pod_that_went_while_no_watch_looked_is_missed(scene: Scene) -> None:
    scene.make(1)
    scene.operator()
    path = scene.pod("weld-1")
    eventually("it is seen", lambda: scene.status.get("replicas") == 1)
    # Nobody may look at pods while it goes; when the watch begins anew, the server has forgotten what was before.
    scene.proxy.fault = lambda method, path: 503 if "/pods" in path else None
    scene.proxy.gone()
    scene.remove(path)
    time.sleep(1)
    scene.proxy.fault = lambda method, path: None
    scene.pod("weld-2")
    eventually("the new one is seen beside what is left of the old", lambda: scene.status["replicas"] == 2)
    eventually("the old one is missed", lambda: scene.status["replicas"] == 1, TWO_TURNS_S)


def test_a_pod_that_came_while_the_watch_stood_still_is_found(scene: Scene) -> None:
    scene.make(1)
    scene.operator()
    scene.pod("weld-1")
    eventually("it is seen", lambda: scene.status.get("replicas") == 1)
    scene.proxy.frozen = "/pods"
    scene.make(2)
    eventually("it is ordered", lambda: scene.size == 2)
    scene.pod("weld-2")
    eventually("it is found", lambda: scene.status["replicas"] == 2, TWO_TURNS_S)


def test_at_sigterm_it_ends_without_a_pause(scene: Scene) -> None:
    scene.make(1)
    process = scene.operator()
    eventually("it is right", lambda: scene.right(1))
    process.send_signal(signal.SIGTERM)
    assert process.wait(4) == 0  # kopf waits 5 s for what it believes to hang
    scene.operator()
    scene.make(2)
    eventually("the next one goes on", lambda: scene.right(2))


def test_an_error_that_comes_down_a_watch_makes_it_begin_anew(scene: Scene) -> None:
    scene.make(1)
    process = scene.operator()
    eventually("it is right", lambda: scene.right(1))
    scene.proxy.tell({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "InternalError", "code": 500})
    scene.make(3)
    eventually("it is right again", lambda: scene.right(3), TWO_TURNS_S)
    assert process.poll() is None


@pytest.mark.parametrize("status", [410, 429, 500])
def test_while_lists_are_refused_it_goes_on_and_only_does_not_shrink(scene: Scene, status: int) -> None:
    scene.make(2)
    scene.operator()
    eventually("it is right", lambda: scene.right(2))
    scene.pod("weld-1")
    eventually("it is seen", lambda: scene.status.get("replicas") == 1)
    # That a second pod is missing makes a list due.
    scene.proxy.fault = lambda method, path: status if "/pods?" in path and "watch=true" not in path else None
    eventually("a list was refused", lambda: f"look: list /api/v1/namespaces/{scene.namespace}/pods: {status}" in log(scene))
    scene.make(3)
    eventually("it grows", lambda: scene.right(3), TWO_TURNS_S)
    scene.make(1)
    eventually("it is told", lambda: "no smaller size while" in str(scene.status["autoscaling"]["explanation"]), TWO_TURNS_S)
    time.sleep(2)
    assert scene.size == 3
    scene.proxy.fault = lambda method, path: None
    eventually("it shrinks", lambda: scene.right(1), TWO_TURNS_S)
    assert "look works again" in log(scene)


def log(scene: Scene) -> str:
    return scene.log(0).read_text()


@pytest.mark.parametrize(
    ("step", "moment"),
    [
        ("/scale?", "before"),
        ("/scale?", "after"),
        ("/status?", "before"),
        ("/deployments/weld?", "before"),
        ("/deployments/weld?", "after"),
    ],
)
def test_an_operator_killed_in_the_middle_is_followed_by_one_that_finishes(scene: Scene, step: str, moment: str) -> None:
    scene.make(1)
    first = scene.operator()
    eventually("it is right", lambda: scene.right(1))

    def kill(method: str, path: str) -> None:
        if method == "PATCH" and step in path + "?" and first.poll() is None:
            first.kill()

    setattr(scene.proxy, moment, kill)
    spec = {"replicas": 3, "queue": {"maxLength": 7}}
    scene.server.merge(scene.path, {"spec": spec})
    eventually("it is killed", lambda: first.poll() is not None)
    scene.operator()
    eventually("the next one finishes", lambda: scene.right(3))
    assert scene.server.get(scene.path)["metadata"]["finalizers"] == ["yolastic.dev/finalizer"]
    assert len(scene.server.get(f"/apis/apps/v1/namespaces/{scene.namespace}/deployments")["items"]) == 1


def test_two_operators_agree_and_come_to_rest(scene: Scene) -> None:
    scene.make(1)
    scene.operator()
    scene.operator()
    for size in (3, 2):
        scene.make(size)
        for name in ("a", "b", "c")[:size]:
            scene.pod(f"weld-{name}-{size}")
        eventually("it is right", lambda size=size: scene.right(size))
    for pod in ("a-3", "b-3", "c-3"):
        scene.remove(f"/api/v1/namespaces/{scene.namespace}/pods/weld-{pod}")
    eventually("it settles", lambda: scene.status.get("replicas") == 2)
    time.sleep(1)
    before = scene.deployment["metadata"]["generation"]
    time.sleep(3)
    assert (scene.size, scene.deployment["metadata"]["generation"]) == (2, before), "nobody fights"


def answer_of(port: str, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_a_second_operator_waits_and_takes_over_and_who_lost_the_lease_ends(scene: Scene) -> None:
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{scene.namespace}/leases/yolastic"

    def start(instance: str) -> tuple["subprocess.Popen[bytes]", str, str]:
        health, metrics = str(free_port()), str(free_port())
        names = {"OWN_NAMESPACE": scene.namespace, "LEASE_NAME": "yolastic", "INSTANCE": instance}
        return scene.operator(**names, HEALTH_PORT=health, METRICS_PORT=metrics), health, metrics

    def holder() -> str:
        return str((scene.server.get(lease) or {}).get("spec", {}).get("holderIdentity"))

    scene.make(1)
    first, _, metrics = start("one")
    eventually("the first is right", lambda: scene.right(1))
    assert 'yolastic_operator_leader{holder="one"} 1.0' in answer_of(metrics, "/metrics")
    second, health, metrics = start("two")
    eventually("the second waits", lambda: 'yolastic_operator_leader{holder="one"} 0.0' in answer_of(metrics, "/metrics"))
    assert answer_of(health, "/healthz") == "waits for the Lease"
    stop(first.pid)
    scene.make(3)
    time.sleep(5)
    assert (scene.size, holder()) == (1, "one"), "it may be at work yet"
    eventually("the second takes over", lambda: scene.right(3) and holder() == "two", 25)
    eventually("kopf answers the probe", lambda: "heartbeat" in answer_of(health, "/healthz"))
    first.send_signal(signal.SIGCONT)
    scene.refused.add(0)
    assert first.wait(15) == 2
    assert "another operator, two, holds the Lease yolastic now: this one ends" in scene.log(0).read_text()
    third, _, _ = start("three")
    eventually("the third waits", lambda: "another operator, two, holds" in scene.log(2).read_text())
    second.send_signal(signal.SIGTERM)
    assert second.wait(10) == 0
    scene.make(2)
    eventually("who ends in order lets go of it", lambda: scene.right(2) and holder() == "three", TWO_TURNS_S)
    assert third.poll() is None


def test_who_waits_for_the_lease_ends_when_it_is_told_to(scene: Scene) -> None:
    settings = {"OWN_NAMESPACE": scene.namespace, "LEASE_NAME": "yolastic"}
    scene.operator(**settings)
    eventually("the first has it", lambda: "holds the Lease" in scene.log(0).read_text())
    waiting = scene.operator(**settings)
    eventually("the second waits", lambda: "does nothing" in scene.log(1).read_text())
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait(5) == 0


def test_without_an_answer_of_the_server_nobody_acts_and_afterwards_it_goes_on(scene: Scene) -> None:
    scene.make(1)
    process = scene.operator(OWN_NAMESPACE=scene.namespace, LEASE_NAME="yolastic")
    eventually("it is right", lambda: scene.right(1))
    scene.proxy.fault = lambda method, path: 503 if "/leases/" in path else None
    eventually("it stops acting", lambda: "does not tell who holds" in scene.log(0).read_text())
    scene.make(3)
    time.sleep(2)
    assert scene.size == 1
    scene.proxy.fault = lambda method, path: None
    eventually("it goes on", lambda: scene.right(3), TWO_TURNS_S)
    assert process.poll() is None


def test_what_people_do_to_the_children_is_put_right(scene: Scene) -> None:
    scene.make(2)
    scene.operator()
    eventually("it is right", lambda: scene.right(2))
    scene.pod("weld-1")
    scene.pod("weld-2")
    path = f"/apis/apps/v1/namespaces/{scene.namespace}/deployments/weld"
    scene.server.merge(f"{path}/scale", {"spec": {"replicas": 1}})
    eventually("it is scaled back", lambda: scene.size == 2, TWO_TURNS_S)
    uid = scene.deployment["metadata"]["uid"]
    scene.remove(path)
    eventually("it is made again", lambda: scene.size == 2 and scene.deployment["metadata"]["uid"] != uid, TWO_TURNS_S)


CHILDREN = {
    "services": ("/api/v1", {"spec": {"selector": {"app": "mine"}}}, ["spec", "selector"]),
    "networkpolicies": ("/apis/networking.k8s.io/v1", {"spec": {"ingress": []}}, ["spec", "ingress"]),
    "poddisruptionbudgets": ("/apis/policy/v1", {"spec": {"maxUnavailable": 7}}, ["spec", "maxUnavailable"]),
    "deployments": (
        "/apis/apps/v1",
        {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}},
        ["spec", "template", "spec", "terminationGracePeriodSeconds"],
    ),
}


def test_an_edited_or_deleted_child_is_put_right_within_two_turns_and_then_there_is_rest(scene: Scene) -> None:
    scene.make(1)
    scene.operator()
    eventually("it is right", lambda: scene.right(1))
    applies: list[tuple[float, str]] = []

    def note(method: str, path: str) -> None:
        if method == "PATCH" and "/status" not in path:
            applies.append((time.monotonic(), path))

    scene.proxy.before = note

    def child(kind: str) -> Any:
        return scene.server.get(f"{CHILDREN[kind][0]}/namespaces/{scene.namespace}/{kind}/weld")

    def value(kind: str) -> Any:
        found = child(kind)
        for step in CHILDREN[kind][2]:
            found = found and found.get(step)
        return found

    for kind, (group, edit, _) in CHILDREN.items():
        path, before = f"{group}/namespaces/{scene.namespace}/{kind}/weld", value(kind)
        scene.server.merge(path, edit)
        assert value(kind) != before
        eventually(f"{kind} is as before", lambda kind=kind, before=before: value(kind) == before, TWO_TURNS_S)
    for kind, (group, _, _) in CHILDREN.items():
        uid = child(kind)["metadata"]["uid"]
        scene.remove(f"{group}/namespaces/{scene.namespace}/{kind}/weld")
        again = lambda kind=kind, uid=uid: (child(kind) or {}).get("metadata", {}).get("uid", uid) != uid  # noqa: E731
        eventually(f"{kind} is made again", again, TWO_TURNS_S)
    eventually("it rests", lambda: time.monotonic() - applies[-1][0] > 1)
    applies.clear()
    for kind in ("services", "poddisruptionbudgets"):
        path = f"{CHILDREN[kind][0]}/namespaces/{scene.namespace}/{kind}/weld"
        condition = {"type": "X", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        scene.server.merge(f"{path}/status", {"status": {"conditions": [condition]}})
        scene.server.merge(path, {"metadata": {"annotations": {"somebody.example/note": "x"}}})
    time.sleep(3)
    assert applies == [], "neither our own apply nor a status makes another one"


def test_an_object_made_anew_while_the_operator_acts_has_its_own_status_and_children(scene: Scene) -> None:
    scene.make(1)
    scene.operator()
    eventually("it is right", lambda: scene.right(1))
    for size in (2, 3):
        scene.make(size)  # acted on while it is deleted
        scene.server.request("DELETE", scene.path)
        eventually("it is gone", lambda: scene.server.get(scene.path) is None)
        uid = scene.make(size + 1)
        eventually("the new one is right", lambda size=size: scene.right(size + 1))
        assert [owner["uid"] for owner in scene.deployment["metadata"]["ownerReferences"]] == [uid]


def test_a_namespace_that_goes_is_not_held_up(api_server: Any, tmp_path: Path) -> None:
    name = f"test-{secrets.token_hex(4)}"
    api_server.apply(f"/api/v1/namespaces/{name}", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    with scene_of(api_server, name, tmp_path) as scene:
        scene.make(1)
        scene.operator()
        eventually("it is right", lambda: scene.right(1))
        api_server.request("DELETE", f"/api/v1/namespaces/{name}")
        scene.server.request("DELETE", f"{API}/namespaces/{name}/yoloinferences")  # as the namespace's controller does
        eventually("its objects are gone", lambda: not api_server.get(f"{API}/namespaces/{name}/yoloinferences")["items"])


@pytest.mark.parametrize("again", [True, False])
def test_an_object_that_goes_before_anything_held_it_is_let_go(scene: Scene, again: bool) -> None:
    # What holds an object until its loop has ended is written a moment after the loop begins; here it cannot be.
    scene.proxy.fault = lambda method, path: 503 if (method, path.partition("?")[0]) == ("PATCH", scene.path) else None
    scene.make(1)
    metrics = str(free_port())
    scene.operator(METRICS_PORT=metrics)
    eventually("it is right", lambda: scene.right(1))
    assert "finalizers" not in scene.server.get(scene.path)["metadata"]
    assert 'inference="weld"' in answer_of(metrics, "/metrics")
    scene.server.request("DELETE", scene.path)
    assert scene.server.get(scene.path) is None
    uids = [scene.make(2)] if again else []
    scene.proxy.fault = lambda method, path: None
    if again:
        eventually("the new one is right", lambda: scene.right(2) and owners(scene.deployment) == uids, TWO_TURNS_S)
        eventually("it is held", lambda: scene.server.get(scene.path)["metadata"].get("finalizers"))  # tried again within 4 s
    else:
        eventually("its loop has ended", lambda: 'inference="weld"' not in answer_of(metrics, "/metrics"), TWO_TURNS_S)
        scene.remove(f"/apis/apps/v1/namespaces/{scene.namespace}/deployments/weld")  # as the garbage collector does
    eventually("it rests", lambda: writes_within(scene, 1.0) == [])
    assert writes_within(scene, 2.0) == [], "nobody fights, and nothing is made for what is gone"
    assert (owners(scene.deployment) if again else scene.deployment) == (uids if again else None)


def writes_within(scene: Scene, seconds: float) -> list[str]:
    writes: list[str] = []
    scene.proxy.before = lambda method, path: None if method == "GET" else writes.append(path)
    time.sleep(seconds)
    return writes


def owners(body: Any) -> list[str]:
    return [owner["uid"] for owner in body["metadata"]["ownerReferences"]]
