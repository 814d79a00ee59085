"""Five hundred objects with two thousand workers on a real API server: what a turn takes, and what the operator takes for all."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
from benchmarks.apiserver import api_server_with_resources, binaries, free_port
from benchmarks.client import ROOT
from benchmarks.common import Row
from benchmarks.many_workers import address
from benchmarks.memory import resident_bytes

OBJECTS: Final = 500
WORKERS_EACH: Final = 4
REST_S: Final = 120.0
"""Length of the measurement, seconds: the children of each object are looked at once in it."""
_SETTLE_S: Final = 330.0
"""From the last pod's appearance to the measurement: the forecast looks back on five minutes, and sees workers come in them."""
_AT_ONCE: Final = 32
_LIMIT_S: Final = 180.0
_API: Final = "/apis/yolastic.dev/v1alpha1/namespaces/default/yoloinferences"


_CHILDREN: Final = {
    "/api/v1": ("services", "secrets", "pods"),
    "/apis/apps/v1": ("deployments",),
    "/apis/networking.k8s.io/v1": ("networkpolicies",),
    "/apis/events.k8s.io/v1": ("events",),
}
"""Whatever else the operator could write."""


class _Api:
    """The API server for the bench itself, whose requests are not the operator's."""

    def __init__(self, session: aiohttp.ClientSession, config: Path) -> None:
        told = json.loads(config.read_text())
        self._session, self._server = session, told["clusters"][0]["cluster"]["server"]
        self._headers = {"Authorization": f"Bearer {told['users'][0]['user']['token']}"}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def ask(self, method: str, path: str, body: Any = None, content: str = "application/json") -> Any:
        """One request.

        Raises:
            RuntimeError: the answer was an error.
        """
        headers = {**self._headers, "Content-Type": content}
        data = None if body is None else json.dumps(body)
        async with (
            self._slots,
            self._session.request(method, f"{self._server}{path}", data=data, headers=headers, ssl=False) as answer,
        ):
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {(await answer.text())[:300]}")
            return await answer.json()


def _inference(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "yolastic.dev/v1alpha1",
        "kind": "YoloInference",
        "metadata": {"name": f"line-{number}", "namespace": "default"},
        "spec": {
            "model": {"uri": "http://models.invalid/model.onnx", "sha256": f"{number:064x}"},
            "autoscaling": {"minReplicas": WORKERS_EACH, "maxReplicas": 8},
            "batching": {"maxSize": 8},
            "objective": {"latencyMilliseconds": 500},
        },
    }


async def _make_objects(api: _Api) -> None:
    runtime = {
        "apiVersion": "yolastic.dev/v1alpha1",
        "kind": "YoloRuntime",
        "metadata": {"name": "cpu"},
        "spec": {"image": "example.invalid/yolastic-worker:test"},
    }
    await api.ask("POST", "/apis/yolastic.dev/v1alpha1/yoloruntimes", runtime)
    await asyncio.gather(*(api.ask("POST", _API, _inference(number)) for number in range(OBJECTS)))


async def _make_pods(api: _Api) -> None:
    """Pods as a Deployment's controller and a kubelet would make them, as soon as their Deployment is there."""
    deadline_s, waiting = time.monotonic() + _LIMIT_S, set(range(OBJECTS))
    while waiting:
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"{len(waiting)} of {OBJECTS} Deployments were not made within {_LIMIT_S:.0f} s")
        there = (await api.ask("GET", "/apis/apps/v1/namespaces/default/deployments"))["items"]
        found = {int(one["metadata"]["name"].removeprefix("line-")): one for one in there}
        new = waiting & found.keys()
        await asyncio.gather(*(_make_pod(api, found[number], number, rank) for number in new for rank in range(WORKERS_EACH)))
        waiting -= new
        await asyncio.sleep(1)


async def _make_pod(api: _Api, deployment: dict[str, Any], number: int, rank: int) -> None:
    template, name = deployment["spec"]["template"], f"line-{number}-{rank}"
    pods = "/api/v1/namespaces/default/pods"
    # Bound from the start: no scheduler runs here.
    spec = {**template["spec"], "nodeName": "none"}
    await api.ask(
        "POST", pods, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **template["metadata"]}, "spec": spec}
    )
    ip, state = address(number * WORKERS_EACH + rank), {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    status = {
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "conditions": [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")],
        "containerStatuses": [
            {"name": one["name"], "ready": True, "restartCount": 0, "image": one["image"], "imageID": "", "state": state}
            for one in spec["containers"]
        ],
    }
    await api.ask("PATCH", f"{pods}/{name}/status", {"status": status}, "application/strategic-merge-patch+json")


async def _versions(api: _Api) -> dict[str, str]:
    """ResourceVersion of everything the operator could write."""
    versions = {}
    for path in (_API, *(f"{group}/namespaces/default/{plural}" for group, plurals in _CHILDREN.items() for plural in plurals)):
        for item in (await api.ask("GET", path))["items"]:
            versions[f"{path}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
    return versions


class Figures:
    """The operator's own metrics at a moment."""

    def __init__(self, text: str, process: int) -> None:
        self.turns: dict[float, float] = {}
        """Turns that took at most so long, over all objects, by seconds."""
        self.requests: dict[str, float] = {}
        """Requests to the API server by verb."""
        for line in text.splitlines():
            if line.startswith("yolastic_operator_turn_seconds_bucket"):
                bound = float(line.split('le="')[1].split('"')[0])
                self.turns[bound] = self.turns.get(bound, 0.0) + float(line.rsplit(" ", 1)[1])
            elif line.startswith("yolastic_operator_api_requests_total"):
                verb = line.split('verb="')[1].split('"')[0]
                self.requests[verb] = self.requests.get(verb, 0.0) + float(line.rsplit(" ", 1)[1])
        self.cpu_s = _cpu_s(process)
        self.at_s = time.monotonic()

    def slowest_s(self, share: float, since: "Figures") -> float:
        """The bucket bound within which this share of the turns since then ended, seconds."""
        count = {bound: turns - since.turns.get(bound, 0.0) for bound, turns in self.turns.items()}
        total = max(count.values())
        return min(bound for bound, turns in count.items() if turns >= share * total)


def _cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, *command], text=True, cwd=ROOT, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def operator_at_scale() -> list[Row]:
    """Turns, CPU time, memory and API requests of `yolastic-operator` with 500 objects and 2,000 workers at rest."""
    folder = binaries()
    if folder is None:
        print("operator at scale: not measured, needs the binaries that `make test-cluster` builds", flush=True)
        return []
    with api_server_with_resources(folder) as config:
        return asyncio.run(_measure(config))


async def _measure(config: Path) -> list[Row]:
    metrics_port, health_port = free_port(), free_port()
    environment = {
        **os.environ, "KUBECONFIG": str(config), "YOLASTIC_OPERATOR_METRICS_PORT": str(metrics_port),
        "YOLASTIC_OPERATOR_HEALTH_PORT": str(health_port),
    }  # fmt: skip
    count = OBJECTS * WORKERS_EACH
    with _child(["-m", "benchmarks.many_workers", str(count), str(WORKERS_EACH)], stdout=subprocess.PIPE) as workers:
        assert workers.stdout is not None
        workers.stdout.readline()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with _child(["-m", "yolastic_operator"], env=environment, **quiet) as operator:
            async with aiohttp.ClientSession() as session:
                api = _Api(session, config)
                began_s = time.monotonic()
                await _make_objects(api)
                await _make_pods(api)
                made_s = time.monotonic() - began_s
                await asyncio.sleep(_SETTLE_S)
                before, figures_before = await _versions(api), _figures(metrics_port, operator.pid)
                await asyncio.sleep(REST_S)
                after_rest = _figures(metrics_port, operator.pid)
                resident = resident_bytes(operator.pid)
                after = await _versions(api)
            return _rows(made_s, figures_before, after_rest, resident, _changed(before, after))


def _figures(port: int, process: int) -> Figures:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as reply:
        return Figures(reply.read().decode(), process)


def _changed(before: dict[str, str], after: dict[str, str]) -> int:
    return sum(before.get(path) != after.get(path) for path in before.keys() | after.keys())


def _rows(made_s: float, before: Figures, after: Figures, resident: int, changed: int) -> list[Row]:
    seconds = after.at_s - before.at_s
    cores = (after.cpu_s - before.cpu_s) / seconds
    requests = {verb: number - before.requests.get(verb, 0.0) for verb, number in after.requests.items()}
    each = sum(requests.values()) / OBJECTS / seconds * 60
    turns = max(after.turns.values()) - max(before.turns.values())
    slowest_s = after.slowest_s(0.99, before)
    settings = (
        f"{OBJECTS} objects of {WORKERS_EACH} pods each on a real API server, the pods' control ports answered by one process on "
        f"the same cores; {seconds:.0f} s at rest, turns of 5 s"
    )
    by_verb = ", ".join(f"{verb} {number:.0f}" for verb, number in sorted(requests.items()) if number)
    turn = f"<= {slowest_s:g} s of {turns:.0f} turns; made at once, they all had their Deployments after {made_s:.0f} s"
    asked, memory = f"{each:.2f} ({by_verb or 'none'}); {changed} objects written", f"{resident / 1e6:.0f} MB resident"
    at = "at 500 objects and 2,000 pods"
    return [
        Row(f"a turn {at}, p99", "<= 1 s", turn, slowest_s <= 1, settings),
        Row(f"CPU time of the operator {at}", "<= 1 core", f"{cores:.2f} cores", cores <= 1, settings),
        Row(f"memory of the operator {at}", "<= 250 MB", memory, resident <= 250e6, settings),
        Row("API requests an object and minute at rest", "<= 15, no writes", asked, each <= 15 and not changed, settings),
    ]


if __name__ == "__main__":
    for row in operator_at_scale():
        print(f"{row.figure}: {row.measured} (reach {row.reach}: {'yes' if row.held else 'NO'})")
