"""Zero loss as a number: twenty workers leave one after the other, and no client notices."""

import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.alone

Start = Callable[..., Any]
TIMES = 20
SIMULATED = (
    "--backend", "simulated", "--simulate", "fixed_ms=5,per_image_ms=1", "--input-size", "64x64", "--max-batch", "2",
    "--decode-threads", "1",
)  # fmt: skip


def test_twenty_sigterms_of_one_of_two_workers_lose_nothing(
    start_worker: Start, jpeg: bytes, prober: Any, shared_socket: Callable[[], socket.socket]
) -> None:
    """Probers at a constant rate, on connections that stay and on new ones; the older of two workers leaves, again and again.

    The next worker starts beside the probers and takes its place before the next one leaves.
    """
    start_s, exits = time.monotonic(), Counter[int]()
    with shared_socket() as door:
        port = door.getsockname()[1]
        serving = deque(start_worker(*SIMULATED, shared=door, wait=False) for _ in range(2))
        for worker in serving:
            worker.wait_ready()
        coming = start_worker(*SIMULATED, shared=door, wait=False)
        with (
            prober(port, jpeg) as staying,
            prober(port, jpeg, reconnect=True) as renewing,
            prober(port, jpeg, period_s=0.05) as slow,
        ):
            for left in range(TIMES, 0, -1):
                leaving = serving.popleft()
                leaving.terminate()
                serving.append(coming.wait_ready())
                if left > 1:
                    coming = start_worker(*SIMULATED, shared=door, wait=False)
                exits[leaving.wait()] += 1
                staying.wait_answers(2)
                renewing.wait_answers(2)
        for probe in (staying, renewing, slow):
            probe.assert_lossless()
    assert exits == {0: TIMES}
    answers = sum(probe.codes.total() for probe in (staying, renewing, slow))
    assert answers > TIMES * 10
    assert time.monotonic() - start_s < 100, "bounded, also on a machine that does something else"
