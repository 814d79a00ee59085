"""Runs the demo: local mode with the example detector, a load that goes night, rush hour, night, and a look at both."""

import argparse
import asyncio
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from yolastic_cli.demo.samples import Run, Sample, phase_latencies, requirements
from yolastic_cli.demo.view import View
from yolastic_cli.documents import LocalInference, load
from yolastic_cli.errors import CliError
from yolastic_cli.load import LoadProcess, OpenLoad, Phase, load_process, percentile, rate_at, read_labelled_images
from yolastic_cli.local_run import LocalRun
from yolastic_contract.metrics import BATCH_SIZE
from yolastic_contract.state import WorkerState
from yolastic_operator.cluster.base import Event, WorkerError
from yolastic_operator.cluster.local import Listener

EXAMPLES: Final = Path(__file__).resolve().parents[4] / "examples"
PHASES: Final = (
    Phase("night", 12, 3, 3),
    Phase("morning", 30, 3, 60),
    Phase("rush hour", 20, 60, 60),
    Phase("evening", 6, 60, 3),
    Phase("night", 30, 3, 3),
)
CONF: Final = 0.4
"""Confidence from which a box counts; at the default of 0.25 the little detector also reports some that are not there."""
TICK_S: Final = 1.0
START_LIMIT_S: Final = 60.0
_WINDOW_S: Final = 3.0
"""Latency of a tick is taken over this long, or a quiet night would have no percentiles."""
HELP = "night, rush hour and night again on this machine, in under three minutes"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--picture", type=Path, default=None, help="where the PNG goes (default: runs/demo-TIME.png)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Play it; 0 and `demo: ok` when everything that was promised held."""
    try:
        inference, images = load(EXAMPLES / "demo.yaml"), read_labelled_images(EXAMPLES / "images")
    except OSError as error:
        raise CliError(f"the demo needs the examples folder of a checkout: {error}") from error
    picture = arguments.picture or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}.png"
    _check_place(picture)
    console = Console()
    console.print(
        "The example detector finds shapes in images. Its answers here are its own (ONNX Runtime on this CPU); their pace is a\n"
        "[bold]simulated accelerator's[/bold]: 240 ms + 12 ms an image, since on a CPU a batch gains nothing and there would be\n"
        "nothing elastic to see. The loop and the workers are those that run on Kubernetes.",
        highlight=False,
        soft_wrap=True,
    )
    result = asyncio.run(_play(inference, images, console))
    from yolastic_cli.demo.picture import draw  # noqa: PLC0415 - matplotlib takes a second that every other command would wait

    draw(result, "One day in a hundred seconds: load, workers, batches and latency (simulated accelerator)", picture)
    return _summarise(result, inference, picture, console)


def _check_place(picture: Path) -> None:
    """Before the day is played, not after it."""
    if picture.suffix != ".png":
        raise CliError(f"--picture {picture}: is not the name of a PNG, which ends in .png")
    try:
        picture.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CliError(f"--picture {picture}: cannot be written: {error.strerror}") from error
    if picture.is_dir() or not os.access(picture if picture.exists() else picture.parent, os.W_OK):
        raise CliError(f"--picture {picture}: cannot be written")


async def _play(inference: LocalInference, images: Sequence[Any], console: Console) -> Run:
    run, task = Run(), asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with View(console) as view:
        notes = _Notes(run, view)
        async with LocalRun(inference, port=0, listener=notes) as running, aiohttp.ClientSession() as session:
            await _ready(notes, running)
            with load_process(f"{running.url}/predict?conf={CONF}", OpenLoad(PHASES), images) as process:
                notes.began_s = time.monotonic()
                await _watch(_Watcher(run, view, running, session, notes), process, running)
    return run


async def _ready(notes: "_Notes", running: LocalRun) -> None:
    broken = asyncio.ensure_future(running.failed())
    ready = asyncio.ensure_future(notes.ready.wait())
    await asyncio.wait({broken, ready}, timeout=START_LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if broken.done():
        broken.result()
    broken.cancel()
    if not notes.ready.is_set():
        raise CliError(f"no worker was ready within {START_LIMIT_S:.0f} s: {notes.trouble or 'no reason was given'}")


async def _watch(watcher: "_Watcher", process: LoadProcess, running: LocalRun) -> None:
    limit_s = sum(phase.seconds for phase in PHASES) + 30
    while not process.done and watcher.at_s < limit_s:
        await asyncio.sleep(TICK_S)
        await watcher.tick(process)
    if not process.done:
        raise CliError(f"the load had not ended after {limit_s:.0f} s")


class _Notes(Listener):
    """Hears the loop: decisions for the view, statuses for the samples."""

    def __init__(self, run: Run, view: View) -> None:
        self._run = run
        self._view = view
        self.began_s = time.monotonic()
        self.ready = asyncio.Event()
        self.trouble = ""
        self.latest: dict[str, Any] = {}

    def event(self, event: Event) -> None:
        at_s = max(0.0, time.monotonic() - self.began_s)
        text = f"{event.reason}: {event.message}"
        self._run.notes.append((at_s, text))
        self._view.note(at_s, text)

    def status(self, status: dict[str, Any]) -> None:
        self.latest = status
        if status.get("readyReplicas"):
            self.ready.set()
        self.trouble = next((c["message"] for c in status.get("conditions", []) if c["status"] == "False"), "")


class _Watcher:
    """Makes one sample a tick from the load's answers, the workers' own numbers and the status."""

    def __init__(self, run: Run, view: View, running: LocalRun, session: aiohttp.ClientSession, notes: _Notes) -> None:
        self._run, self._view, self._running, self._session, self._notes = run, view, running, session, notes
        self._batches: dict[str, tuple[float, float]] = {}
        self._last_s = 0.0

    @property
    def at_s(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self._notes.began_s

    async def tick(self, process: LoadProcess) -> None:
        """Take a sample and show it."""
        at_s = self.at_s
        fresh = process.read()
        self._run.answers += fresh
        states, batch = await self._workers()
        latencies = [
            a.latency_s for a in self._run.answers[-600:] if a.status == 200 and a.sent_s + a.latency_s > at_s - _WINDOW_S
        ]
        span_s = at_s - self._last_s
        status = self._notes.latest
        ratios = [state.load.ratio for state in states]
        sample = Sample(
            at_s=at_s,
            phase=_phase_at(at_s),
            sent_per_s=rate_at(PHASES, at_s),
            answered_per_s=len(fresh) / span_s,
            ready=sum(state.phase == "Ready" for state in states),
            desired=status.get("desiredReplicas", 0),
            base=status.get("batch", {}).get("base"),
            ceiling=status.get("batch", {}).get("ceiling"),
            batch=batch,
            queue=sum(state.load.queue_images for state in states),
            load_ratio=sum(ratios) / len(ratios) if ratios else None,
            p50_s=percentile(latencies, 50) if latencies else None,
            p95_s=percentile(latencies, 95) if latencies else None,
            failed=sum(a.status != 200 for a in self._run.answers),
        )
        self._last_s = at_s
        self._run.samples.append(sample)
        self._view.sample(sample)

    async def _workers(self) -> tuple[list[WorkerState], float | None]:
        ref, cluster = self._running.inference.ref, self._running.cluster
        states, images, batches = [], 0.0, 0.0
        for worker in (await cluster.fleet(ref)).workers:
            if worker.address is None:
                continue
            with suppress(WorkerError, aiohttp.ClientError, TimeoutError):  # it is starting, or has just gone
                states.append(await cluster.state(ref, worker))
                total = await self._batch_totals(f"http://{worker.address}:{worker.control_port}/metrics")
                before = self._batches.get(worker.name, (0.0, 0.0))
                images, batches = images + total[0] - before[0], batches + total[1] - before[1]
                self._batches[worker.name] = total
        return states, images / batches if batches else None

    async def _batch_totals(self, url: str) -> tuple[float, float]:
        """(images, batches) a worker has run."""
        async with self._session.get(url, timeout=aiohttp.ClientTimeout(total=2)) as reply:
            text = await reply.text()
        found = {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            if family.name == BATCH_SIZE.name
            for sample in family.samples
        }
        return found.get(f"{BATCH_SIZE.name}_sum", 0.0), found.get(f"{BATCH_SIZE.name}_count", 0.0)


def _phase_at(at_s: float) -> str:
    for phase in PHASES:
        if at_s < phase.seconds:
            return phase.name
        at_s -= phase.seconds
    return PHASES[-1].name


def _summarise(run: Run, inference: LocalInference, picture: Path, console: Console) -> int:
    console.print()
    start_s = 0.0
    for phase in PHASES:
        p50_s, p95_s = phase_latencies(run, start_s, start_s + phase.seconds)
        ready = [sample.ready for sample in run.samples if start_s <= sample.at_s < start_s + phase.seconds]
        console.print(
            f"{phase.name:>10}: {phase.from_per_s:.0f} to {phase.to_per_s:.0f} images/s, {min(ready, default=0)} to "
            f"{max(ready, default=0)} workers, p50 {p50_s * 1000:.0f} ms, p95 {p95_s * 1000:.0f} ms",
            highlight=False,
        )
        start_s += phase.seconds
    autoscaling = inference.spec.autoscaling
    found = requirements(run, min_replicas=autoscaling.min_replicas if autoscaling else 1)
    for item in found:
        console.print(f"{'  ok' if item.held else 'FAIL'}  {item.text}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"picture: {picture}", highlight=False, soft_wrap=True)
    broken = [item.text for item in found if not item.held]
    console.print(
        "demo: ok" if not broken else f"demo: failed: {'; '.join(broken)}", highlight=False, markup=False, soft_wrap=True
    )
    return 0 if not broken else 1
