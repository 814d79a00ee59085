"""Two lanes: large images wait for memory and for each other, small ones for neither."""

import queue
import threading
import time

from yolastic_worker.decode.header import SMALL_PIXELS
from yolastic_worker.decode.pool import DecodePool, Lane, decoding_bytes

LARGE = SMALL_PIXELS + 1
WAIT_S = 10


def test_small_images_pass_while_large_ones_fill_their_lane() -> None:
    pool = DecodePool(2, memory_bytes=decoding_bytes(LARGE), most_large=4)
    release, small_ran = threading.Event(), threading.Event()
    ran = [threading.Event() for _ in range(4)]

    def block(event: threading.Event) -> None:
        assert release.wait(WAIT_S)
        event.set()

    for event in ran:
        pool.submit(LARGE, block, event)
    assert not pool.has_room(1)
    assert pool.has_room(0)
    pool.submit(SMALL_PIXELS, small_ran.set)
    assert small_ran.wait(WAIT_S)
    release.set()
    assert all(event.wait(WAIT_S) for event in ran)


def test_memory_of_large_images_is_bounded_and_one_alone_always_fits() -> None:
    pool = DecodePool(8, memory_bytes=2 * decoding_bytes(LARGE), most_large=100)
    lock, together, most, done = threading.Lock(), 0, 0, threading.Semaphore(0)
    gate = threading.Barrier(2)

    def decode() -> None:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        gate.wait(WAIT_S)
        with lock:
            together -= 1
        done.release()

    for _ in range(20):
        pool.submit(LARGE, decode)
    assert all(done.acquire(timeout=WAIT_S) for _ in range(20))
    assert most == 2
    alone = threading.Event()
    pool.submit(10 * LARGE, alone.set)
    assert alone.wait(WAIT_S)


def test_a_task_goes_to_the_thread_that_became_idle_last_and_wakes_no_other() -> None:
    lane = Lane(4, "test")
    ran: queue.Queue[int] = queue.Queue()

    def rest() -> None:
        give_up_s = time.monotonic() + WAIT_S
        while lane.idle < 4 and time.monotonic() < give_up_s:
            time.sleep(0.001)
        assert lane.idle == 4

    rest()
    threads = set()
    for _ in range(20):
        lane.put(lambda: ran.put(threading.get_ident()))
        threads.add(ran.get(timeout=WAIT_S))
        rest()
    assert len(threads) == 1


def test_tasks_that_find_no_idle_thread_run_in_order_and_a_failure_costs_no_other() -> None:
    lane = Lane(1, "test")
    release, ran = threading.Event(), queue.Queue[int]()
    lane.put(release.wait, WAIT_S)
    lane.put(int, "no number")
    for number in range(50):
        lane.put(ran.put, number)
    release.set()
    assert [ran.get(timeout=WAIT_S) for _ in range(50)] == list(range(50))
