"""A real worker that says about itself what a file tells it to: `lying_worker.py FILE serve …`.

FILE holds the name of a worker and one of `LIES`; it is read at every `GET /state`. Any other worker tells the truth, and so does
everything but that answer.
"""

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from yolastic_worker.__main__ import main
from yolastic_worker.api.http import Refusal, Reply, Request
from yolastic_worker.control import Control

_TEXT: Final[Mapping[str, Callable[[str], str]]] = {
    "nan": lambda told: re.sub(r'"ratio":[^,]+', '"ratio":NaN', told),
    "infinite": lambda told: re.sub(r'"arrived_per_s":[^,]+', '"arrived_per_s":1e999', told),
    "negative": lambda told: re.sub(r'"ratio":[^,]+', '"ratio":-1.0', told),
    "impossible": lambda told: re.sub(r'"ratio":[^,]+', '"ratio":1e12', told),
    "huge": lambda told: re.sub(r'"queue_images":\d+', f'"queue_images":{10**400}', told),
    "above-its-limit": lambda told: re.sub(r'"ceiling":(\d+)', '"ceiling":4096', told),
    "endless-buckets": lambda told: re.sub(r'"buckets":\[', f'"buckets":[{2**40},', told),
    "endless-batch": lambda told: re.sub(r'"max_batch":\d+', f'"max_batch":{2**40}', told),
    "half": lambda told: told[: len(told) // 2],
    "page": lambda told: "<html>It works!</html>",
    "endless": lambda told: told + " " * (2 << 20),
}


def lie_of(file: Path, worker: str) -> str | None:
    name, _, lie = file.read_text().strip().partition(" ")
    return lie if name == worker else None


def main_with_lies(file: Path) -> None:
    truth: Callable[[Control, Request], Awaitable[Reply]] = Control.state

    async def state(self: Control, request: Request) -> Reply:
        told = await truth(self, request)
        log = self._worker.settings.termination_log
        lie = None if log is None else lie_of(file, log.stem)
        if lie is None:
            return told
        if lie == "silent":
            await asyncio.sleep(3600)
        if lie == "error":
            raise Refusal(500, "failed", "it is broken")
        return Reply(_TEXT[lie](told.body.decode()).encode())

    Control.state = state  # type: ignore[method-assign]
    main()


LIES = (*_TEXT, "silent", "error")

if __name__ == "__main__":
    main_with_lies(Path(sys.argv.pop(1)))
