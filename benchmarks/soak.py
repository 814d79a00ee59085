"""Does a worker grow? Mixed load for half an hour on a real model, and the slopes of its memory, descriptors and threads."""

import argparse
import asyncio
import itertools
import random
import statistics
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil
from benchmarks.client import ROOT
from benchmarks.common import Row, ServedWorker, random_jpegs, served

_SAMPLE_S, _WARM_SHARE, _BLOCKS = 1.0, 0.25, 16
_T_95 = 2.145
"""Student's t for 14 degrees of freedom, two-sided 95 %."""
_GROWN_SHARE, _GROWN_COUNT = 0.005, 1.0
_LIMIT_S = 15.0
_HONEST = ("good 200", "good 429")
"""A busy machine may have a good request refused; it may not fail."""
_BOUNDARY = "soak"


@dataclass(frozen=True, slots=True)
class Slope:
    """A line through samples: growth a minute with the half width of its 95 % confidence interval."""

    per_min: float
    half_width: float
    level: float
    minutes: float

    def flat(self, tolerance: float) -> bool:
        """No growth beyond noise: the interval holds 0 or less, or all that grew over the run stays within `tolerance`."""
        return self.per_min - self.half_width <= 0 or self.per_min * self.minutes <= tolerance


def slope(times_s: Sequence[float], values: Sequence[float]) -> Slope:
    """Least squares over the means of 16 blocks, which are nearly independent where samples a second apart are not.

    The first quarter is left out: pools, arenas and caches fill once.
    """
    kept = [(at, value) for at, value in zip(times_s, values, strict=True) if at >= times_s[-1] * _WARM_SHARE]
    size = len(kept) // _BLOCKS
    if not size:
        raise ValueError(f"{len(kept)} samples are too few for {_BLOCKS} blocks")
    blocks = [kept[index * size : (index + 1) * size] for index in range(_BLOCKS)]
    minutes = [statistics.fmean(at for at, _ in block) / 60 for block in blocks]
    means = [statistics.fmean(value for _, value in block) for block in blocks]
    line = statistics.linear_regression(minutes, means)
    spread = sum((minute - statistics.fmean(minutes)) ** 2 for minute in minutes)
    rest = sum((mean - line.slope * minute - line.intercept) ** 2 for minute, mean in zip(minutes, means, strict=True))
    error: float = (rest / (_BLOCKS - 2) / spread) ** 0.5
    return Slope(line.slope, _T_95 * error, statistics.fmean(means), minutes[-1] - minutes[0])


def _request(body: bytes, content_type: str = "image/jpeg", extra: str = "") -> bytes:
    head = f"POST /predict HTTP/1.1\r\nHost: soak\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


def _form(bodies: Sequence[bytes]) -> bytes:
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    parts = b"".join(head.encode() + body + b"\r\n" for body in bodies)
    return _request(parts + f"--{_BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={_BOUNDARY}")


class Mixed:
    """Requests of many kinds against one worker, each kind at its own pace."""

    def __init__(self, worker: ServedWorker, seed: int = 11) -> None:
        self.port, self.control = urlsplit(worker.url).port, urlsplit(worker.control).port
        self.seen: Counter[str] = Counter()
        self._random = random.Random(seed)
        small, photo, large = (random_jpegs(3, *size) for size in ((160, 120), (640, 480), (1920, 1080)))
        self._good = itertools.cycle([_request(body) for body in (*small, *photo)])
        self._large = itertools.cycle([_request(body) for body in large])
        self._forms = itertools.cycle([_form(photo), _form(small[:2]), _form((photo[0], b"not an image"))])
        bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 60_000, 60_000, 8, 2, 0, 0, 0, 0)
        bad = (photo[0][: len(photo[0]) // 2], b"not an image", b"", bomb, bytes(self._random.randbytes(5000)))
        self._bad = itertools.cycle([_request(body) for body in bad] + [_request(b"{}", "application/json")])
        self._hurried = itertools.cycle([_request(photo[0], extra="X-Request-Timeout-Ms: 1\r\n")])
        self._photo = photo[0]

    async def _exchange(self, what: str, request: bytes, port: int | None = None) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port)
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            self.seen[f"{what} {head[9:12].decode()}"] += 1
            lines = head.lower().split(b"\r\n")
            length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)
            await reader.readexactly(length)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _good_ones(self) -> None:
        await self._exchange("good", next(self._good))

    async def _large_one(self) -> None:
        await self._exchange("large", next(self._large))

    async def _form_one(self) -> None:
        await self._exchange("multipart", next(self._forms))

    async def _bad_one(self) -> None:
        await self._exchange("bad", next(self._bad))

    async def _hurried_one(self) -> None:
        await self._exchange("hurried", next(self._hurried))

    async def _asked(self) -> None:
        for path in ("/metrics", "/state", "/readyz"):
            await self._exchange("control", f"GET {path} HTTP/1.1\r\nHost: soak\r\n\r\n".encode(), self.control)

    async def _gone_one(self) -> None:
        """Hangs up at once, or in the middle of its body."""
        request = _request(self._photo)
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request if self._random.random() < 0.5 else request[: len(request) // 2])
        writer.close()
        self.seen["gone"] += 1

    async def _slow_one(self) -> None:
        """Sends a little at a time, and hangs up before the end."""
        request = _request(self._photo)
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for at in range(20):
            writer.write(request[at * 40 : at * 40 + 40])
            await asyncio.sleep(0.1)
        writer.close()
        self.seen["slow"] += 1

    async def _kind(self, per_s: float, one: Callable[[], Awaitable[None]], end_s: float) -> None:
        """Requests of one kind at Poisson times until `end_s`; each is bounded in time."""
        tasks: set[asyncio.Task[None]] = set()

        async def bounded() -> None:
            try:
                async with asyncio.timeout(_LIMIT_S):
                    await one()
            except (OSError, EOFError, TimeoutError) as error:
                self.seen[f"{one.__name__.strip('_')}: {type(error).__name__}"] += 1

        while (now_s := time.monotonic()) < end_s:
            tasks.add(task := asyncio.create_task(bounded()))
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(min(self._random.expovariate(per_s), end_s - now_s))
        await asyncio.gather(*tasks)

    async def run(self, seconds: float) -> None:
        """All kinds at once."""
        end_s = time.monotonic() + seconds
        kinds = (
            (12.0, self._good_ones), (1.0, self._large_one), (2.0, self._form_one), (4.0, self._bad_one),
            (2.0, self._hurried_one), (2.0, self._gone_one), (1.0, self._slow_one), (0.5, self._asked),
        )  # fmt: skip
        await asyncio.gather(*(self._kind(per_s, one, end_s) for per_s, one in kinds))


async def _soak(worker: ServedWorker, seconds: float) -> tuple[list[tuple[float, int, int, int]], Counter[str]]:
    """(seconds, resident bytes, descriptors, threads) each second, and what was answered."""
    mixed, process, samples = Mixed(worker), psutil.Process(worker.pid), list[tuple[float, int, int, int]]()
    began_s = time.monotonic()
    load = asyncio.create_task(mixed.run(seconds))
    while not load.done():
        at_s = time.monotonic() - began_s
        samples.append((at_s, process.memory_info().rss, process.num_fds(), process.num_threads()))
        if len(samples) % 60 == 0:
            _, resident, descriptors, threads = samples[-1]
            print(f"  {at_s / 60:.0f} min: {resident / 2**20:.1f} MiB, {descriptors} descriptors, {threads} threads", flush=True)
        await asyncio.wait([load], timeout=_SAMPLE_S)
    await load
    return samples, mixed.seen


def soak(minutes: float) -> list[Row]:
    """The row: slopes over the last three quarters of the run."""
    model = ROOT / "examples/models/shapes.onnx"
    with served(("--model", str(model), "--max-batch", "8")) as worker:
        samples, seen = asyncio.run(_soak(worker, minutes * 60))
    times_s = [sample[0] for sample in samples]
    resident, descriptors, threads = (slope(times_s, [sample[index] for sample in samples]) for index in (1, 2, 3))
    flat = resident.flat(resident.level * _GROWN_SHARE), descriptors.flat(_GROWN_COUNT), threads.flat(_GROWN_COUNT)
    measured = (
        f"RSS {resident.per_min / 1024:+.1f} ± {resident.half_width / 1024:.1f} KiB/min at {resident.level / 2**20:.0f} MiB, "
        f"descriptors {descriptors.per_min:+.3f} ± {descriptors.half_width:.3f}/min at {descriptors.level:.0f}, "
        f"threads {threads.per_min:+.3f} ± {threads.half_width:.3f}/min at {threads.level:.0f}"
    )
    failed = {what: count for what, count in seen.items() if what.startswith("good") and what not in _HONEST}
    told = ", ".join(f"{what} {count}" for what, count in sorted(seen.items()))
    settings = (
        f"{minutes:g} minutes on the model shapes, mixed requests a second: 12 good, 1 of 1920x1080, 2 forms, 4 bad, 2 hurried, "
        "2 gone, 1 slow; regression over the last three quarters, 95 % interval; flat: it holds 0, or less than 0.5 % (RSS) or 1 "
        f"(the others) in all; answered: {told}"
    )
    figure = f"{minutes:g} minutes of mixed load: slopes of RSS, descriptors, threads"
    return [Row(figure, "0 within noise, no good request fails", measured, all(flat) and not failed, settings)]


def main() -> int:
    """Run alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    (row,) = soak(parser.parse_args().minutes)
    print(f"{row.figure}: {row.measured} ({'yes' if row.held else 'NO'}) — {row.settings}")
    return 0 if row.held else 1


if __name__ == "__main__":
    sys.exit(main())
