"""What is left of a request nobody waits for."""

import asyncio
import gc
import sys
from collections.abc import Callable

import pytest
from benchmarks import hostile

from yolastic_worker.api.http import ClientGone, Refusal, Request
from yolastic_worker.api.parameters import parse_parameters
from yolastic_worker.api.predict import Pending

_JPEG = hostile.sound_images()["jpeg"]
_PNG = hostile.sound_images()["png"]


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
