"""Load with honest figures: images posted from a process of their own, every answer timed and checked.

It follows a rate over time and never waits for answers, as cameras do; it is bounded in time and ends by itself.
"""

import asyncio
import itertools
import json
import math
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An encoded image and the objects in it, boxes x1 y1 x2 y2 in source pixels."""

    name: str
    body: bytes
    objects: tuple[tuple[str, Box], ...] = ()
    content_type: str = "image/jpeg"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request."""

    sent_s: float
    """Seconds since the load began."""
    latency_s: float
    status: int
    """HTTP status; 0 when the connection failed."""
    expected: int = 0
    """Labelled objects in the image."""
    found: int = 0
    """Of those, found with the right class and an IoU of at least 0.5."""
    extra: int = 0
    """Boxes that match no label."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of time with a rate that goes evenly from one value to another, images/s."""

    name: str
    seconds: float
    from_per_s: float
    to_per_s: float


@dataclass(frozen=True, slots=True)
class OpenLoad:
    """Images sent by a rate, whatever comes back; Poisson arrivals when `poisson`, else evenly spaced."""

    phases: tuple[Phase, ...]
    poisson: bool = True
    seed: int = 7


def read_labelled_images(folder: Path) -> tuple[LabelledImage, ...]:
    """The images of `folder` with the objects that its `labels.json` names.

    Raises:
        OSError: a file is missing.
    """
    entries = json.loads((folder / "labels.json").read_text())["images"]
    return tuple(
        LabelledImage(
            name=entry["file"],
            body=(folder / entry["file"]).read_bytes(),
            objects=tuple((item["name"], tuple(item["box"])) for item in entry["objects"]),
        )
        for entry in entries
    )


def rate_at(phases: Sequence[Phase], at_s: float) -> float:
    """The rate of an open load at a time, images/s; 0 after its end."""
    for phase in phases:
        if at_s < phase.seconds:
            return phase.from_per_s + (phase.to_per_s - phase.from_per_s) * at_s / phase.seconds
        at_s -= phase.seconds
    return 0.0


def arrivals(load: OpenLoad) -> Iterator[float]:
    """Times at which an open load sends, seconds from its beginning: the rate integrated, or a Poisson process of it."""
    rng = random.Random(load.seed)
    end_s = sum(phase.seconds for phase in load.phases)
    at_s, step_s, owed = 0.0, 0.005, 0.0
    next_owed = rng.expovariate(1.0) if load.poisson else 1.0
    while at_s < end_s:
        owed += rate_at(load.phases, at_s) * step_s
        while owed >= next_owed:
            yield at_s
            next_owed += rng.expovariate(1.0) if load.poisson else 1.0
        at_s += step_s


def intersection_over_union(a: Box, b: Box) -> float:
    """Overlap of two boxes, 0 to 1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    overlap = width * height
    return overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap)


def compare(objects: Sequence[tuple[str, Box]], results: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """(found, extra): labelled objects that an answer has, and boxes of it that match none."""
    boxes = [(row["name"], (row["box"]["x1"], row["box"]["y1"], row["box"]["x2"], row["box"]["y2"])) for row in results]
    found = 0
    for name, box in objects:
        match = next((item for item in boxes if item[0] == name and intersection_over_union(box, item[1]) >= 0.5), None)
        if match is not None:
            boxes.remove(match)
            found += 1
    return found, len(boxes)


async def _post(session: aiohttp.ClientSession, url: str, image: LabelledImage, began_s: float) -> Answer:
    sent_s = time.monotonic()
    try:
        async with session.post(url, data=image.body, headers={"Content-Type": image.content_type}) as response:
            body = await response.read()
            latency_s = time.monotonic() - sent_s
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return Answer(sent_s - began_s, time.monotonic() - sent_s, 0, error=f"{type(error).__name__}: {error}")
    if response.status != 200:
        return Answer(sent_s - began_s, latency_s, response.status, error=body[:200].decode(errors="replace"))
    if not image.objects:
        return Answer(sent_s - began_s, latency_s, 200)
    found, extra = compare(image.objects, json.loads(body)["images"][0]["results"])
    return Answer(sent_s - began_s, latency_s, 200, len(image.objects), found, extra)


async def _open(load: OpenLoad, send: Callable[[], Any], began_s: float) -> None:
    tasks: set[asyncio.Task[None]] = set()
    for at_s in arrivals(load):
        delay_s = began_s + at_s - time.monotonic()
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        task = asyncio.create_task(send())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)


async def play(
    url: str,
    load: OpenLoad,
    images: Sequence[LabelledImage],
    tell: Callable[[Answer], None],
    timeout_s: float = 30.0,
) -> None:
    """Post images to `url` until the load is over; `tell` hears of every answer.

    Connections are kept alive and used by one request at a time.
    """
    turns = itertools.cycle(images)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=timeout_s)) as session:
        began_s = time.monotonic()

        async def send() -> None:
            tell(await _post(session, url, next(turns), began_s))

        await _open(load, send, began_s)


def _process(pipe: Connection, url: str, load: OpenLoad, images: Sequence[LabelledImage]) -> None:
    try:
        asyncio.run(play(url, load, images, pipe.send))
        pipe.send(None)
    except (KeyboardInterrupt, BrokenPipeError):
        return


class LoadProcess:
    """A load that runs in its own process, so that it is not slowed by, and does not slow, what it measures."""

    def __init__(self, url: str, load: OpenLoad, images: Sequence[LabelledImage]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, child = context.Pipe(duplex=False)
        self._process = context.Process(target=_process, args=(child, url, load, images), daemon=True)
        self._process.start()
        child.close()
        self.done = False

    def read(self) -> list[Answer]:
        """Answers since the last call; sets `done` after the last one.

        Raises:
            RuntimeError: the process died before the load was over.
        """
        answers: list[Answer] = []
        while not self.done and self._pipe.poll():
            try:
                answer = self._pipe.recv()
            except EOFError:
                raise RuntimeError(f"the load process died (exit code {self._process.exitcode})") from None
            if answer is None:
                self.done = True
            else:
                answers.append(answer)
        return answers

    def stop(self) -> None:
        """End it now."""
        self._pipe.close()
        self._process.terminate()
        self._process.join(5)


@contextmanager
def load_process(url: str, load: OpenLoad, images: Sequence[LabelledImage]) -> Iterator[LoadProcess]:
    """A LoadProcess that is gone afterwards, however the block ends."""
    process = LoadProcess(url, load, images)
    try:
        yield process
    finally:
        process.stop()


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` % of `values` do not exceed (nearest rank); NaN when there are none."""
    if not values:
        return float("nan")
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]
