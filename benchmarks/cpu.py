"""CPU time of a request around the engine: HTTP, admission, decoding, letterbox, batching, postprocessing, answer."""

import statistics
import time
import urllib.request

import numpy as np
import psutil
from benchmarks.client import Target, open_loop
from benchmarks.common import SIMULATED, Row, ServedWorker, random_jpegs, served

from yolastic_worker.engine.simulated import SimulatedEngine, parse_simulation

_RATE_PER_S, _WIDTH, _HEIGHT, _QUALITY = 490.0, 640, 480, 85


def _batches(worker: ServedWorker) -> int:
    """Batches run so far."""
    with urllib.request.urlopen(f"{worker.control}/metrics", timeout=5) as reply:
        text = reply.read().decode()
    return int(float(next(line.split()[-1] for line in text.splitlines() if line.startswith("yolastic_batch_size_count"))))


def _engine_s() -> float:
    """CPU seconds of one run of the simulated engine alone: it sleeps, and spins for the last 0.2 ms."""
    engine = SimulatedEngine(parse_simulation(SIMULATED[3]))
    pixels = np.zeros((640, 640, 3), np.uint8)
    began_s = time.thread_time()
    for _ in range(40):
        engine.run([pixels] * 4)
    return (time.thread_time() - began_s) / 40


def around_the_engine(seconds: float, repeats: int) -> list[Row]:
    """CPU time of the worker process (user and system, all threads) less the engine's, over the requests answered.

    At 80 % of capacity, where CPU time is scarce, Poisson arrivals. The engine's share is the number of batches times the CPU
    time of one run of the simulated engine, measured alone.
    """
    (image,) = random_jpegs(1, _WIDTH, _HEIGHT, _QUALITY)
    found_ms, engine_s = [], _engine_s()
    with served((*SIMULATED, "--input-size", "640x640")) as worker:
        process, target = psutil.Process(worker.pid), Target(worker.url, (image,))
        open_loop(target, [(_RATE_PER_S, 2.0)])
        for repeat in range(repeats):
            times, batches = process.cpu_times(), _batches(worker)
            outcome = open_loop(target, [(_RATE_PER_S, seconds)], seed=7 + repeat)[0].clean()
            after, ran = process.cpu_times(), _batches(worker) - batches
            cpu_s = after.user + after.system - times.user - times.system
            found_ms.append((cpu_s - ran * engine_s) / outcome.answered * 1e3)
            print(
                f"  round {repeat + 1}: {found_ms[-1]:.2f} ms a request ({cpu_s / outcome.answered * 1e3:.2f} in all)", flush=True
            )
    value_ms = statistics.median(found_ms)
    settings = (
        f"{_WIDTH}x{_HEIGHT} JPEG (q{_QUALITY}, {len(image) // 1024} KiB), Poisson {_RATE_PER_S:.0f}/s on the simulated "
        f"accelerator, process CPU less the engine's {engine_s * 1e3:.2f} ms a batch, {repeats} runs of {seconds:.0f} s, median"
    )
    return [
        Row("CPU time a request around the engine, 640 px JPEG", "<= 2.0 ms", f"{value_ms:.2f} ms", value_ms <= 2.0, settings)
    ]
