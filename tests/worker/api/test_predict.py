"""Which images the event loop decodes itself: none that can hold it. And what is left of a request nobody waits for."""

import asyncio
import contextlib
import gc
import math
import sys
import time
from collections.abc import Callable

import pytest
from benchmarks import hostile

from yolastic_worker.api.http import ClientGone, Refusal, Request
from yolastic_worker.api.parameters import parse_parameters
from yolastic_worker.api.predict import Pending, is_light
from yolastic_worker.decode import ImageRefused, decode_as, read_header

_MOST_S = 0.008
_JPEG = hostile.sound_images()["jpeg"]
_PNG = hostile.sound_images()["png"]
_SMALL = [
    *hostile.bombs(),
    hostile.Body("png of 1 pixel with 15 MiB of data", hostile.png(1, 1, extra=15 * 2**20), frozenset()),
    hostile.Body("png with a long end", _PNG + bytes(2**25), frozenset()),
    hostile.Body("jpeg with a long end", _JPEG + bytes(2**25), frozenset()),
    hostile.Body("jpeg with many segments", _JPEG[:2] + b"\xff\xe1\x00\x02" * 4000 + _JPEG[2:], frozenset()),
    hostile.Body("jpeg with 90 scans", hostile.many_scans_jpeg(85), frozenset()),
]


def test_a_cameras_small_frame_is_light() -> None:
    assert is_light(read_header(_JPEG), _JPEG)
    assert not is_light(read_header(_PNG), _PNG)


@pytest.mark.parametrize("body", _SMALL, ids=lambda body: body.name)
def test_no_hostile_image_is_light_and_slow(body: hostile.Body) -> None:
    try:
        header = read_header(body.content)
    except ImageRefused:
        return
    if not is_light(header, body.content):
        return
    best_s = math.inf
    for _ in range(3):
        began_s = time.thread_time()
        with contextlib.suppress(ImageRefused):
            decode_as(header, body.content)
        best_s = min(best_s, time.thread_time() - began_s)
    assert best_s < _MOST_S


@pytest.mark.parametrize(("end", "error"), [(Pending.cancel, ClientGone), (Pending.expire, Refusal)])
def test_who_has_left_holds_no_bodies(end: Callable[[Pending], None], error: type[Exception]) -> None:
    """They wait in the decode pool behind large images, and are not counted any more."""

    async def leave() -> Pending:
        bodies = [_JPEG, _PNG]
        pending = Pending(bodies, parse_parameters({}, 64, 64), source="", silent=True, received_s=0.0, deadline_s=1.0)
        assert pending.bodies == bodies
        end(pending)
        failure = await pending.done
        assert failure is not None
        assert isinstance(failure(), error)
        return pending

    pending = asyncio.run(leave())
    assert pending.cancelled
    assert not pending.bodies


def test_a_refused_body_is_gone_at_once() -> None:
    """Not only when the garbage collector comes by: with few and large bodies that is long after the memory is full."""
    part = bytes(2**16)
    referrers = sys.getrefcount(part)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": part, "more_body": True}

    async def read() -> None:
        scope = {"method": "POST", "path": "/predict", "headers": [], "query_string": b""}
        with pytest.raises(Refusal, match="larger"):
            await Request(scope, receive).body(2**20, 5.0)  # type: ignore[arg-type]

    gc.disable()
    try:
        asyncio.run(read())
        assert sys.getrefcount(part) <= referrers + 1
    finally:
        gc.enable()
