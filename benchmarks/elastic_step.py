"""How soon a step of load is met: the burst tier of a worker that has its device for itself, and the order of more workers."""

import asyncio
import hashlib
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.client import ROOT, Target, open_loop
from benchmarks.common import Row, random_jpegs

from yolastic_cli.documents import LocalInference
from yolastic_cli.local_run import LocalRun
from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.model import Ref

TURN_S: Final = 5.0
_MODEL: Final = ROOT / "examples/models/shapes.onnx"
_SLOW: Final = "fixed_ms=100,per_image_ms=10,memory_limit_mib=65536"
"""Slow enough for all images of a burst to be decoded before the first batch ends: 76 images/s in batches of 32."""
_CALM_PER_S, _STEP_PER_S = 5.0, 220.0
_CALM_S: Final = 16.0
"""A window of the load ratio, and a little."""
_LIMIT_S: Final = 30.0
_IMAGES: Final = 32
_LOOK_S: Final = 0.02


@asynccontextmanager
async def _running(turn_s: float) -> AsyncIterator[LocalRun]:
    """One worker that is ready and has its tiers, with the operator's own loop beside it."""
    spec = InferenceSpec.model_validate(
        {
            "model": {"uri": _MODEL.as_uri(), "sha256": hashlib.sha256(_MODEL.read_bytes()).hexdigest()},
            "runtime": "simulated",
            "autoscaling": {"minReplicas": 1, "maxReplicas": 4},
        }
    )
    runtimes = {"simulated": RuntimeSpec(image="none", backend="Simulated", simulate=_SLOW)}
    inference = LocalInference(Ref("local", "step"), spec, runtimes, _MODEL, {})
    async with LocalRun(inference, port=0, turn_s=turn_s) as run:
        deadline_s = time.monotonic() + 60
        while run.cluster.statuses.get("batch", {}).get("appliedReplicas") != 1:
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"no worker got its tiers within 60 s: {run.cluster.statuses.get('conditions')}")
            await asyncio.sleep(0.1)
        yield run


async def _batches(session: aiohttp.ClientSession, control: str, base: int) -> tuple[float, float]:
    """Batches so far: of at most a base batch, and in all."""
    async with session.get(f"{control}/metrics") as answer:
        lines = [line for line in (await answer.text()).splitlines() if line.startswith("yolastic_batch_size_")]
    small = next(float(line.rsplit(" ", 1)[1]) for line in lines if f'le="{base}.0"' in line)
    return small, next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("yolastic_batch_size_count"))


async def _small_batches_before_the_burst(bursts: int) -> tuple[list[float], int, int]:
    """For each burst of 32 images on an idle worker: batches within the base tier; then the tiers."""
    jpeg, found = random_jpegs(1, 160, 120)[0], []
    async with _running(TURN_S) as run, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        worker = (await run.cluster.fleet(run.inference.ref)).workers[0]
        control, batch = f"http://127.0.0.1:{worker.control_port}", run.cluster.statuses["batch"]

        async def post() -> None:
            headers = {"Content-Type": "image/jpeg"}
            async with session.post(f"{run.url}/predict", data=jpeg, headers=headers) as answer:
                if answer.status != 200:
                    raise RuntimeError(f"an image of the burst got {answer.status}")
                await answer.read()

        await asyncio.gather(*(post() for _ in range(_IMAGES)))  # connections are made, the code is warm
        for _ in range(bursts):
            await asyncio.sleep(31)  # the burst tier is left after 30 calm seconds
            await post()
            before = await _batches(session, control, batch["base"])
            await asyncio.gather(*(post() for _ in range(_IMAGES)))
            after = await _batches(session, control, batch["base"])
            found.append(after[0] - before[0])
    return found, batch["base"], batch["ceiling"]


async def _order_s(phase_s: float) -> float:
    """From a step of load to the order of more workers, seconds; `phase_s` moves the step against the operator's turns."""
    async with _running(TURN_S) as run:
        target = Target(run.url, random_jpegs(1, 160, 120))
        phases = ((_CALM_PER_S, _CALM_S + phase_s), (_STEP_PER_S, _LIMIT_S))
        began_s = time.monotonic()
        load = asyncio.create_task(asyncio.to_thread(open_loop, target, phases, patience_ms=2000.0))
        step_s = began_s + _CALM_S + phase_s
        try:
            while (await run.cluster.fleet(run.inference.ref)).replicas == 1:
                if time.monotonic() > step_s + _LIMIT_S:
                    raise RuntimeError(f"nothing was ordered within {_LIMIT_S:.0f} s of the step")
                await asyncio.sleep(_LOOK_S)
            return time.monotonic() - step_s
        finally:
            await load


def elastic_step(repeats: int) -> list[Row]:
    """The next batch, and the next turn."""
    small, base, ceiling = asyncio.run(_small_batches_before_the_burst(min(repeats, 3)))
    orders_s = [asyncio.run(_order_s(TURN_S * number / repeats)) for number in range(repeats)]
    device = "simulated device of its own, 100 ms + 10 ms an image"
    most = max(small)
    how = f"{_IMAGES} images at once on an idle worker, {len(small)} times; {device}, tiers {base} and {ceiling}"
    waited = f"batch {most + 1:.0f}, after the {most:.0f} that had begun when they came"
    step = (
        f"Poisson {_CALM_PER_S:.0f}/s, then {_STEP_PER_S:.0f}/s; the operator's loop with turns of {TURN_S:.0f} s on processes "
        f"of this host; {repeats} steps at different moments of a turn; {device}"
    )
    told = f"{max(orders_s):.1f} s at most, median {statistics.median(orders_s):.1f} s"
    ordered = all(order_s >= 0 for order_s in orders_s) and max(orders_s) <= 15
    return [
        Row("load step to burst on an exclusive device", "the next batch", waited, most <= 1, how),
        Row("load step to new workers ordered", "<= 15 s", told, ordered, step),
    ]


if __name__ == "__main__":
    for row in elastic_step(2):
        print(f"{row.figure}: {row.measured} (reach {row.reach}: {'yes' if row.held else 'NO'})")
