"""Three inferences on one simulated 24 GiB device, real worker processes: how soon a burst is lent, and that the sum holds.

The workers' own `/state` is read some 30 times a second. What a worker may use counts: its memory at the granted ceiling, or at
the largest batch that it has not given back, or all it was granted to start with.
"""

import asyncio
import hashlib
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp
from benchmarks.client import ROOT
from benchmarks.common import Row

from yolastic_cli.documents import LocalInference
from yolastic_cli.local_run import LocalRun
from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_contract.state import WorkerState
from yolastic_operator.model import Ref
from yolastic_operator.policy.accounts import Accounts

MIB = 2**20
DEVICE_MIB, FIXED_MIB, PER_IMAGE_MIB, HEADROOM_PERCENT = 24 * 1024, 4096, 200, 10
BUDGET_BYTES = DEVICE_MIB * MIB * (100 - HEADROOM_PERCENT) // 100
BASE, CEILING = 8, 32
SIMULATE = (
    f"fixed_ms=100,per_image_ms=4,memory_fixed_mib={FIXED_MIB},memory_per_image_mib={PER_IMAGE_MIB},"
    f"memory_limit_mib={DEVICE_MIB},device=GPU-0"
)
RUNTIME = RuntimeSpec(image="none", backend="Simulated", simulate=SIMULATE, shared=True)
CLIENTS = 48
PERIOD_S = 0.03
NAMES = ("weld", "paint", "press")
IMAGE = (ROOT / "examples/images/shapes-00.jpg").read_bytes()


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at all workers."""

    at_s: float
    states: dict[str, WorkerState]
    """By inference; one worker each."""

    def bytes(self, name: str) -> int:
        """The most that this worker may use."""
        state = self.states[name]
        if state.waits_for_memory:
            return 0
        if state.phase == "Starting":
            return state.ceiling.budget_bytes or 0
        return (FIXED_MIB + PER_IMAGE_MIB * max(state.ceiling.ceiling, state.memory.held_images or 0)) * MIB


@dataclass(slots=True)
class Device:
    """The three that run, and what was seen of them."""

    runs: dict[str, LocalRun]
    looks: list[Seen] = field(default_factory=list)
    looked: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def watch(self) -> None:
        """Look at all workers, again and again."""
        async with aiohttp.ClientSession() as session:
            while True:
                began_s = time.monotonic()
                found = await asyncio.gather(*(self._state(session, name) for name in self.runs))
                states = {name: state for name, state in zip(self.runs, found, strict=True) if state is not None}
                async with self.looked:
                    self.looks.append(Seen(time.monotonic(), states))
                    self.looked.notify_all()
                await asyncio.sleep(max(PERIOD_S - (time.monotonic() - began_s), 0.001))

    async def _state(self, session: aiohttp.ClientSession, name: str) -> WorkerState | None:
        run = self.runs[name]
        fleet = await run.cluster.fleet(run.inference.ref)
        for worker in fleet.workers:
            if worker.address is not None:
                with suppress(aiohttp.ClientError, OSError, TimeoutError):
                    async with session.get(f"http://127.0.0.1:{worker.control_port}/state") as answer:
                        return WorkerState.model_validate_json(await answer.read())
        return None

    async def until(self, name: str, ceiling: int, within_s: float) -> float:
        """Seconds until the next batch of this worker may have so many images.

        Raises:
            TimeoutError: it took longer.
        """
        began_s = time.monotonic()
        async with asyncio.timeout(within_s), self.looked:
            await self.looked.wait_for(lambda: self._effective(name, began_s) >= ceiling)
        return time.monotonic() - began_s

    def _effective(self, name: str, since_s: float) -> int:
        last = self.looks[-1] if self.looks else None
        if last is None or last.at_s < since_s or name not in last.states or last.states[name].phase != "Ready":
            return 0
        return last.states[name].ceiling.effective

    async def ready(self, within_s: float) -> None:
        """Until all of them serve with their base."""
        async with asyncio.timeout(within_s), self.looked:
            await self.looked.wait_for(
                lambda: (
                    bool(self.looks)
                    and all(
                        name in self.looks[-1].states
                        and self.looks[-1].states[name].phase == "Ready"
                        and self.looks[-1].states[name].ceiling.ceiling == BASE
                        for name in self.runs
                    )
                )
            )

    def most_bytes(self) -> int:
        """The largest sum over the workers at any look.

        The looks at the three are milliseconds apart: what a worker shows in two looks in a row counts.
        """
        sums = []
        for one, other in zip(self.looks, self.looks[1:], strict=False):
            names = one.states.keys() & other.states.keys()
            sums.append(sum(min(one.bytes(name), other.bytes(name)) for name in names))
        return max(sums)

    def looks_per_s(self) -> float:
        """How often all of them were looked at."""
        return (len(self.looks) - 1) / (self.looks[-1].at_s - self.looks[0].at_s)

    @asynccontextmanager
    async def load(self, *names: str) -> AsyncIterator[list[int]]:
        """Clients that ask without a pause; yields the statuses of their answers."""
        statuses: list[int] = []
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            tasks = [asyncio.create_task(self._client(session, name, statuses)) for name in names for _ in range(CLIENTS)]
            try:
                yield statuses
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _client(self, session: aiohttp.ClientSession, name: str, statuses: list[int]) -> None:
        headers = {"content-type": "image/jpeg", "x-request-timeout-ms": "20000"}
        while True:
            async with session.post(f"{self.runs[name].url}/predict", data=IMAGE, headers=headers) as answer:
                await answer.read()
                statuses.append(answer.status)


def _inference(name: str) -> LocalInference:
    model = ROOT / "tests/worker/data/dynamic.onnx"
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    spec = {
        "model": {"uri": f"file://{model}", "sha256": digest}, "runtime": "shared", "replicas": 1,
        "batching": {"maxSize": CEILING}, "memory": {"headroomPercent": HEADROOM_PERCENT},
    }  # fmt: skip
    return LocalInference(Ref("default", name), InferenceSpec.model_validate(spec), {"shared": RUNTIME}, model, {})


@asynccontextmanager
async def shared_device(names: Sequence[str] = NAMES, accounts: Accounts | None = None) -> AsyncIterator[Device]:
    """The inferences, running on one device; at the end every worker has ended."""
    accounts = accounts or Accounts()
    async with AsyncExitStack() as stack:
        device = Device({name: LocalRun(_inference(name), port=0, accounts=accounts) for name in names})
        for run in device.runs.values():
            await stack.enter_async_context(run)
        watching = asyncio.create_task(device.watch())
        try:
            yield device
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _lease_times(rounds: int) -> tuple[list[float], int, float]:
    async with shared_device() as device:
        await device.ready(60)
        times: list[float] = []
        for name in NAMES * rounds:
            async with device.load(name):
                times.append(await device.until(name, CEILING, 20))
        return times, device.most_bytes(), device.looks_per_s()


def lease_on_a_shared_device(rounds: int) -> list[Row]:
    """Load that moves from one to the next: from its first request to the next batch that may be as large as the ceiling."""
    times, most_bytes, looks_per_s = asyncio.run(_lease_times(rounds))
    held = max(times) <= 3.0 and most_bytes <= BUDGET_BYTES
    measured = (
        f"{statistics.median(times):.1f} s, at most {max(times):.1f} s of {len(times)}; "
        f"at most {most_bytes / 2**30:.1f} of {BUDGET_BYTES / 2**30:.1f} GiB in use, looked at {looks_per_s:.0f} times a second"
    )
    settings = f"3 inferences, 1 simulated device of 24 GiB, base {BASE}, ceiling {CEILING}, {CLIENTS} clients that move on"
    return [Row("load step to burst on a shared device (lease)", "<= 3 s, never over the budget", measured, held, settings)]
