"""What was freed between what is kept goes back to the system; the thread ends when it is told to."""

import subprocess
import sys
import threading

from yolastic_operator import trimming

PROGRAM = """
import ctypes, time
from pathlib import Path
from yolastic_operator import trimming

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
SIZE, COUNT = 16 << 10, 2000  # below what the C library maps by itself

def resident_kib():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))

blocks = [libc.malloc(SIZE) for _ in range(COUNT)]
for block in blocks:
    ctypes.memset(block, 1, SIZE)
for number, block in enumerate(blocks):
    if number % 20:
        libc.free(block)
kept_kib, freed_kib = resident_kib(), COUNT * 19 // 20 * SIZE >> 10
stop = trimming.start(every_s=0.01)
deadline_s = time.monotonic() + 30
while resident_kib() > kept_kib - freed_kib // 2:
    if time.monotonic() > deadline_s:
        raise SystemExit(f"{kept_kib} KiB, {freed_kib} of them free, are {resident_kib()} KiB still")
    time.sleep(0.01)
stop()
"""


def test_what_was_freed_between_what_is_kept_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_thread_ends() -> None:
    before = set(threading.enumerate())
    stop = trimming.start()
    assert {thread.name for thread in set(threading.enumerate()) - before} == {"trimming"}
    stop()
    assert set(threading.enumerate()) == before
