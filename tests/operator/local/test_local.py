"""Workers as processes: started, restarted, rolled, ended, and never left behind. Real processes of a tiny worker."""

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.act.workload import build
from yolastic_operator.cluster import process
from yolastic_operator.cluster.base import RefusedError
from yolastic_operator.cluster.local import Listener, LocalCluster, model_path
from yolastic_operator.model import Ref, Worker, Workload

REF = Ref("default", "shapes")
TINY = str(Path(__file__).parent / "tiny_worker.py")
CPU = RuntimeSpec(image="none")


def workload(sha256: str = "0" * 64, uri: str = "file:///models/m.onnx", drain_s: int = 5) -> Workload:
    spec = InferenceSpec.model_validate({"model": {"uri": uri, "sha256": sha256}, "drain": {"timeoutSeconds": drain_s}})
    return build(REF, spec, "cpu", CPU)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(process, "KILL_AFTER_S", 1.0)
    monkeypatch.setattr("yolastic_operator.cluster.local.KEEP_S", 0.05)


class Lines(Listener):
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.starts_s: list[float] = []

    def worker_line(self, worker: str, line: str) -> None:
        self.lines.append((worker, line))
        if line.startswith("started"):
            self.starts_s.append(time.monotonic())


def play(scenario: Callable[[LocalCluster], Awaitable[None]], listener: Listener | None = None) -> None:
    """Run a scenario in a cluster of tiny workers; afterwards none of them may be there."""

    before = set(children())

    async def scene() -> None:
        cluster = LocalCluster(port=0, worker_command=(sys.executable, TINY), listener=listener)
        async with asyncio.timeout(60), cluster:
            await scenario(cluster)
        assert not list(cluster._folder.parent.glob(cluster._folder.name))

    asyncio.run(scene())
    assert set(children()) <= before


def children() -> list[int]:
    return [child.pid for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


async def until(cluster: LocalCluster, stop: Callable[[tuple[Worker, ...]], Any]) -> tuple[Worker, ...]:
    while True:
        workers = (await cluster.fleet(REF)).workers
        if stop(workers):
            return workers
        await asyncio.sleep(0.02)


def all_ready(number: int) -> Callable[[tuple[Worker, ...]], bool]:
    return lambda workers: len(workers) == number and all(worker.ready for worker in workers)


async def ask(cluster: LocalCluster) -> int:
    """One request on a connection of its own; the answering process."""
    async with aiohttp.ClientSession() as session, session.get(await cluster.url(REF)) as response:
        return int(await response.text())


def test_sizes_are_kept() -> None:
    async def scenario(cluster: LocalCluster) -> None:
        assert (await cluster.fleet(REF)).replicas is None
        await cluster.ensure(workload(), 2)
        await cluster.ensure(workload(), 7)
        workers = await until(cluster, all_ready(2))
        assert {worker.name for worker in workers} == {"shapes-1", "shapes-2"}
        assert {worker.phase for worker in workers} == {"Ready"}
        await cluster.scale(REF, 3, ())
        await until(cluster, all_ready(3))
        await cluster.scale(REF, 2, ["shapes-2"])
        workers = await until(cluster, all_ready(2))
        assert {worker.name for worker in workers} == {"shapes-1", "shapes-3"}
        await cluster.scale(REF, 0, ())
        await until(cluster, lambda workers: not workers)

    play(scenario)


def test_connections_wait_while_nobody_accepts() -> None:
    async def scenario(cluster: LocalCluster) -> None:
        early = asyncio.create_task(ask(cluster))
        await cluster.ensure(workload(), 1)
        first = await early
        await until(cluster, all_ready(1))
        os.kill(first, signal.SIGKILL)
        await until(cluster, lambda workers: not workers[0].ready)
        assert await ask(cluster) != first

    play(scenario)


def test_a_killed_worker_comes_back_and_says_what_happened() -> None:
    async def scenario(cluster: LocalCluster) -> None:
        await cluster.ensure(workload(), 1)
        await until(cluster, all_ready(1))
        pid = await ask(cluster)
        os.kill(pid, signal.SIGKILL)
        (worker,) = await until(cluster, lambda workers: workers[0].failure_reason is not None)
        assert (worker.failure_reason, worker.failure_message) == ("WorkerExited", "ended by SIGKILL")
        (worker,) = await until(cluster, all_ready(1))
        assert worker.name == "shapes-1"
        assert worker.failure_reason is None

    play(scenario)


@pytest.mark.parametrize(
    ("behaviour", "reason", "message"),
    [("fail", "UnsupportedModel", "no ONNX file"), ("crash", "WorkerExited", "ended with exit code 7: the last words")],
)
def test_a_worker_that_cannot_start_is_tried_again_ever_slower(
    monkeypatch: pytest.MonkeyPatch, behaviour: str, reason: str, message: str
) -> None:
    monkeypatch.setenv("TINY_WORKER", behaviour)
    heard = Lines()

    async def scenario(cluster: LocalCluster) -> None:
        await cluster.ensure(workload(), 1)
        (worker,) = await until(cluster, lambda workers: workers[0].phase == "Failed")
        assert (worker.failure_reason, worker.failure_message) == (reason, message)
        assert worker.address is None
        # While it is tried again, the reason stays: a condition must not flap.
        (worker,) = await until(cluster, lambda workers: workers[0].phase == "Starting")
        assert worker.failure_reason == reason
        await until(cluster, lambda _: len(heard.starts_s) >= 4)
        pauses_s = [end - start for start, end in itertools.pairwise(heard.starts_s)]
        assert pauses_s[1] > 0.2
        assert pauses_s[2] > 0.4

    play(scenario, heard)
    assert heard.lines[0] == ("shapes-1", f"started as {behaviour}")


def test_a_worker_that_crashed_once_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_WORKER", "crash-once")

    async def scenario(cluster: LocalCluster) -> None:
        await cluster.ensure(workload(), 2)
        await until(cluster, all_ready(2))

    play(scenario)


def test_a_new_revision_serves_before_the_old_one_goes() -> None:
    async def scenario(cluster: LocalCluster) -> None:
        await cluster.ensure(workload(), 2)
        await until(cluster, all_ready(2))
        await cluster.ensure(workload("1" * 64), 2)
        revision = (await cluster.fleet(REF)).revision
        serving: list[int] = []

        def done(workers: tuple[Worker, ...]) -> bool:
            serving.append(sum(worker.ready for worker in workers))
            return len(workers) == 2 and all(worker.ready and worker.revision == revision for worker in workers)

        await until(cluster, done)
        assert min(serving) >= 2
        assert max(serving) <= 3

    play(scenario)


def test_a_new_revision_that_never_starts_leaves_the_old_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(cluster: LocalCluster) -> None:
        await cluster.ensure(workload(), 2)
        await until(cluster, all_ready(2))
        monkeypatch.setenv("TINY_WORKER", "fail")
        await cluster.ensure(workload("1" * 64), 2)
        await until(cluster, lambda workers: any(worker.failure_reason for worker in workers))
        await asyncio.sleep(0.5)
        workers = (await cluster.fleet(REF)).workers
        assert sum(worker.ready for worker in workers) == 2
        assert len(workers) == 3

    play(scenario)


def test_one_by_one_an_old_worker_has_ended_before_its_successor_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(cluster: LocalCluster) -> None:
        await cluster.ensure(replace(workload(), manner="OneByOne"), 2)
        await until(cluster, all_ready(2))
        serving: list[int] = []

        def there(revision: str | None) -> Callable[[tuple[Worker, ...]], bool]:
            def done(workers: tuple[Worker, ...]) -> bool:
                serving.append(sum(worker.ready for worker in workers))
                assert len(workers) <= 2
                return serving[-1] == 2 and {worker.revision for worker in workers} == {revision}

            return done

        new = replace(workload("1" * 64), manner="OneByOne")
        await cluster.ensure(new, 2)
        await until(cluster, there(new.revision))
        monkeypatch.setenv("TINY_WORKER", "fail")
        bad = replace(workload("2" * 64), manner="OneByOne")
        await cluster.ensure(bad, 2)
        workers = await until(cluster, lambda workers: any(worker.failures >= 2 for worker in workers))
        assert [worker.ready for worker in workers if worker.revision == new.revision] == [True]
        monkeypatch.setenv("TINY_WORKER", "serve")
        await cluster.ensure(new, 2)
        await until(cluster, there(new.revision))
        assert min(serving) >= 1

    play(scenario)


def test_a_worker_that_will_not_go_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_WORKER", "stubborn")

    async def scenario(cluster: LocalCluster) -> None:
        await cluster.ensure(workload(drain_s=1), 1)
        await until(cluster, all_ready(1))

    began_s = time.monotonic()
    play(scenario)
    assert time.monotonic() - began_s < 20


def test_a_model_must_be_a_file() -> None:
    assert model_path("file:///models/my%20model.onnx") == "/models/my model.onnx"
    for uri in ("https://models/m.onnx", "pvc://models/m.onnx"):
        with pytest.raises(RefusedError, match=r"spec\.model\.uri") as caught:
            model_path(uri)
        assert caught.value.reason == "UriNotAllowed"


def test_a_taken_port_is_an_os_error() -> None:
    async def scene(port: int) -> None:
        async with LocalCluster(port=port):
            raise AssertionError("the port is taken")

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        asyncio.run(scene(taken.getsockname()[1]))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can tie a child's life to its parent's")
def test_no_worker_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = f"""
        import asyncio, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_local import REF, TINY, LocalCluster, all_ready, until, workload

        async def scene():
            async with LocalCluster(port=0, worker_command=(sys.executable, TINY)) as cluster:
                await cluster.ensure(workload(), 2)
                await until(cluster, all_ready(2))
                print("ready", flush=True)
                await asyncio.sleep(60)

        asyncio.run(scene())
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert parent.stdout is not None
    with parent.stdout:
        assert parent.stdout.readline() == "ready\n"
        workers = psutil.Process(parent.pid).children(recursive=True)
        assert len(workers) == 2
        parent.kill()
        parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert alive == []
