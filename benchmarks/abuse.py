"""What abuse takes from an honest client: a prober's good answers and p99, alone and beside strangers who mean the worker ill.

`python benchmarks/abuse.py [--seconds S] [--repeats N]`; with `--attack PORT SECONDS` it is the strangers.
"""

import argparse
import contextlib
import http.client
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import hostile
from benchmarks.client import Target, open_loop
from benchmarks.common import Row, random_jpegs, served

_WORKER: Final = ("--backend", "simulated", "--simulate", "fixed_ms=20,per_image_ms=1", "--max-connections", "256")
_PROBES_PER_S: Final = 100.0
_SLOW_CLIENTS: Final = 150
_RATES_PER_S: Final = {"broken image": 40.0, "broken form": 20.0, "no HTTP": 20.0, "connection": 50.0, "bomb": 2.0}
"""What the strangers send: bounded, so that the machine's other core is not what is measured."""
_NO_HTTP: Final = (
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /info HTTP/1.1\r\nx: " + b"a" * 200_000,
    b"GET /info HTTP/1.1\r\nhost: x\r\n\r\n" * 300,
)


def abuse(seconds: float, repeats: int) -> list[Row]:
    """A prober of 100 images/s for `seconds`, quiet and under attack, one worker for each of the rounds."""
    (image,) = random_jpegs(1, 320, 240)
    ratios, quiets, attackeds, good, sent = [], [], [], 0, 0
    for _ in range(repeats):
        with served(_WORKER) as worker:
            target = Target(worker.url, (image,))
            quiet = open_loop(target, [(_PROBES_PER_S, 2.0), (_PROBES_PER_S, seconds)])[1].clean()
            with subprocess.Popen(
                [sys.executable, __file__, "--attack", worker.url.rpartition(":")[2], str(seconds + 3)]
            ) as strangers:
                attacked = open_loop(target, [(_PROBES_PER_S, 2.0), (_PROBES_PER_S, seconds)])[1]
                strangers.wait(seconds + 60)
        if quiet.p99_ms is None or attacked.p99_ms is None:
            raise RuntimeError(f"the prober got no answer: {attacked.codes}")
        quiets.append(quiet.p99_ms)
        attackeds.append(attacked.p99_ms)
        ratios.append(attacked.p99_ms / quiet.p99_ms)
        good += attacked.codes.get("200", 0)
        sent += attacked.intended
    share, ratio = good / sent, statistics.median(ratios)
    words = f"{statistics.median(attackeds):.1f} ms, quiet {statistics.median(quiets):.1f} ms: x{ratio:.2f}"
    rates = ", ".join(f"{name} {rate:.0f}/s" for name, rate in _RATES_PER_S.items())
    settings = (
        f"simulated 20 ms + 1 ms/image; prober {_PROBES_PER_S:.0f} images/s (Poisson); {_SLOW_CLIENTS} slow clients, {rates}; "
        f"{repeats} rounds of {seconds:.0f} s, median"
    )
    return [
        Row("under abuse: good answers of a prober", ">= 0.999", f"{share:.4f} of {sent}", share >= 0.999, settings),
        Row("under abuse: p99 of a prober against its quiet p99", "<= 2", words, ratio <= 2, settings),
    ]


def attack(port: int, seconds: float) -> None:
    """Be the strangers, for so long."""
    until_s = time.monotonic() + seconds
    rng = random.Random(3)
    images, forms, bombs = list(hostile.broken_images(3, 300)), list(hostile.broken_forms(3, 200)), hostile.bombs()
    with contextlib.ExitStack() as stack:
        for number in range(_SLOW_CLIENTS):
            slow = stack.enter_context(hostile.connect(port))
            with contextlib.suppress(OSError):
                slow.sendall((b"", b"GET /info HTTP/1.1\r\nx: ", hostile.post_head(10_000) + b"\xff\xd8\xff")[number % 3])
        acts: dict[str, Callable[[], None]] = {
            "broken image": lambda: _post(port, rng.choice(images), "image/jpeg"),
            "broken form": lambda: _post(port, (chosen := rng.choice(forms))[1], chosen[0]),
            "no HTTP": lambda: _raw(port, rng.choice(_NO_HTTP)),
            "connection": lambda: _raw(port, b""),
            "bomb": lambda: _post(port, rng.choice(bombs), "image/png"),
        }
        threads = [threading.Thread(target=_repeat, args=(acts[name], rate, until_s)) for name, rate in _RATES_PER_S.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _repeat(act: Callable[[], None], rate_per_s: float, until_s: float) -> None:
    next_s = time.monotonic()
    while next_s < until_s:
        time.sleep(max(0.0, next_s - time.monotonic()))
        with contextlib.suppress(OSError, http.client.HTTPException):
            act()
        next_s = max(next_s + 1 / rate_per_s, time.monotonic() - 0.1)


def _post(port: int, body: hostile.Body, content_type: str) -> None:
    connection = http.client.HTTPConnection(hostile.HOST, port, timeout=10)
    try:
        connection.request("POST", "/predict", body.content, {"content-type": content_type})
        connection.getresponse().read()
    finally:
        connection.close()


def _raw(port: int, raw: bytes) -> None:
    with hostile.connect(port) as connection:
        connection.sendall(raw)
        if raw:
            connection.shutdown(socket.SHUT_WR)
            connection.recv(65536)


def main() -> int:
    """Measure, or be the strangers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attack", nargs=2, metavar=("PORT", "SECONDS"))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if options.attack:
        attack(int(options.attack[0]), float(options.attack[1]))
        return 0
    found = abuse(options.seconds, options.repeats)
    for row in found:
        print(f"{row.figure}: {row.measured} (reach {row.reach}) — {row.settings}", flush=True)
    return 0 if all(row.held for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
