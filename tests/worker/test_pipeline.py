"""The pipeline with an engine that is stepped by hand: what runs together, what is dropped, what is delivered, what fails."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from yolastic_contract.state import CeilingGrant, Fit
from yolastic_worker.admission import Accepted, Refused
from yolastic_worker.batcher import BatchRules
from yolastic_worker.engine.base import EngineInfo
from yolastic_worker.memory.probe import MemoryReading
from yolastic_worker.metrics import WorkerMetrics
from yolastic_worker.pipeline import Pipeline
from yolastic_worker.postprocess import HeadKind
from yolastic_worker.state import refresh_gauges
from yolastic_worker.types import DeviceLost, Displaced, Geometry, Image, Outcome, ShapeKey, Thresholds, TransientFailure
from yolastic_worker.warmup import Warmth

WAIT_S = 10


@dataclass
class SteppedEngine:
    """Runs a batch when told to; `orders` holds what happens to each: None, or the error it ends with."""

    pad: bool = False
    begun: "queue.Queue[tuple[int, int]]" = field(default_factory=queue.Queue)
    orders: "queue.Queue[Exception | None]" = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        self.info = EngineInfo(
            backend="Stepped", device="none", device_id="none", sha256="", task="Detect", names=("object",), height=32, width=32,
            precision="FP32", head=HeadKind.END_TO_END, pad_to_buckets=self.pad,
        )  # fmt: skip

    def run(self, images: Sequence[Any], padded: int = 0) -> Any:
        self.begun.put((len(images), padded))
        error = self.orders.get(timeout=WAIT_S)
        if error is not None:
            raise error
        return np.array([[[0, 0, image[0, 0, 0], 32, 0.9, 0]] for image in images], np.float32)

    def memory(self) -> MemoryReading:
        return MemoryReading(None, None)

    def shrink(self) -> None:
        pass


class Bench:
    """A running pipeline; what is delivered is counted on a thread of its own, as the event loop would."""

    def __init__(self, engine: SteppedEngine, max_batch: int = 8, queue_length: int = 16, **told: Any) -> None:
        buckets = tuple(bucket for bucket in (1, 2, 4, 8) if bucket <= max_batch)
        warmth = Warmth(buckets, tuple((b, 0.01 + 0.001 * b) for b in buckets), Fit(fixed=1, per_image=1), 9, 100, "Device")
        self.engine = engine
        self.metrics = WorkerMetrics("test")
        self.delivered: queue.Queue[Sequence[Image]] = queue.Queue()
        self.pipeline = Pipeline(
            engine, warmth, BatchRules(pad_to_buckets=engine.pad, buckets=buckets), queue_length=queue_length,
            metrics=self.metrics, **{"deliver": self.delivered.put, **told},
        )  # fmt: skip
        self.thread = threading.Thread(target=self.pipeline.run, daemon=True)
        self.thread.start()

    def image(self, value: int = 0, patience_s: float = 60) -> Image:
        now_s = time.monotonic()
        pixels = self.pipeline.slots.take()
        pixels[:] = value
        return Image(
            ShapeKey(32, 32), pixels, Geometry(32, 32, 1.0, 0, 0), Thresholds(), now_s, now_s + patience_s, lambda image: None
        )

    def send(self, *images: Image) -> None:
        for image in images:
            assert isinstance(self.pipeline.admit(1, image.deadline_s), Accepted)
            self.pipeline.offer(image)

    def step(self, error: Exception | None = None) -> tuple[int, int]:
        """Let the batch that has begun end; (images, images run)."""
        begun = self.engine.begun.get(timeout=WAIT_S)
        self.engine.orders.put(error)
        return begun

    def answers(self) -> Sequence[Image]:
        images = self.delivered.get(timeout=WAIT_S)
        self.pipeline.answered(images)
        return images


@pytest.fixture
def bench() -> Any:
    benches: list[Bench] = []

    def make(**options: Any) -> Bench:
        made = Bench(SteppedEngine(options.pop("pad", False)), **options)
        benches.append(made)
        return made

    yield make
    for made in benches:
        made.pipeline.stop()
        for _ in range(8):
            made.engine.orders.put(None)
        made.thread.join(WAIT_S)
        assert not made.thread.is_alive()


Make = Callable[..., Bench]


def test_newcomers_gather_while_the_engine_runs(bench: Make) -> None:
    made = bench()
    made.send(made.image(1))
    assert made.engine.begun.get(timeout=WAIT_S)[0] == 1
    made.send(*(made.image(value) for value in range(2, 7)))
    made.engine.orders.put(None)
    assert made.step()[0] == 5
    assert [image.boxes[0, 2] for image in made.answers()] == [1]
    second = made.answers()
    assert [image.boxes[0, 2] for image in second] == [2, 3, 4, 5, 6], "each image has its own answer"
    assert all(image.outcome is Outcome.OK for image in second)
    assert made.pipeline.inflight == 0
    assert made.pipeline.slots.free == 32
    assert made.metrics.batch_size._sum.get() == 6


def test_never_more_than_the_ceiling(bench: Make) -> None:
    made = bench(max_batch=8)
    made.pipeline.grant(CeilingGrant(base=2, ceiling=4))
    made.send(made.image())
    made.engine.begun.get(timeout=WAIT_S)
    made.send(*(made.image() for _ in range(9)))
    made.engine.orders.put(None)
    assert [made.step()[0] for _ in range(3)] == [4, 4, 1]


def test_padding_goes_up_to_a_warm_size(bench: Make) -> None:
    made = bench(pad=True)
    made.send(made.image())
    made.engine.begun.get(timeout=WAIT_S)
    made.send(*(made.image() for _ in range(3)))
    made.engine.orders.put(None)
    images, run = made.step()
    assert (images, run) in ((3, 4), (2, 2))


def test_cancelled_and_expired_never_run(bench: Make) -> None:
    made = bench()
    made.send(made.image())
    made.engine.begun.get(timeout=WAIT_S)
    gone, late, fine = made.image(), made.image(patience_s=0.0), made.image(3)
    for image in (gone, late, fine):
        made.pipeline.admit(1, time.monotonic() + 60)
        made.pipeline.offer(image)
    gone.cancelled = True
    made.engine.orders.put(None)
    assert made.step()[0] == 1
    outcomes = [image.outcome for _ in range(3) for image in made.answers()]
    assert sorted(outcomes, key=str) == [Outcome.CANCELLED, Outcome.EXPIRED, Outcome.OK, Outcome.OK]
    assert made.pipeline.slots.free == 32


def test_a_lost_device_fails_everything_and_ends(bench: Make) -> None:
    made = bench()
    made.send(made.image())
    made.engine.begun.get(timeout=WAIT_S)
    made.send(made.image(), made.image())
    made.engine.orders.put(DeviceLost("gone"))
    outcomes = [(image.outcome, type(image.error)) for _ in range(2) for image in made.answers()]
    assert outcomes == [(Outcome.FAILED, DeviceLost)] * 3
    made.thread.join(WAIT_S)
    assert made.pipeline.lost is not None
    late = made.image()
    made.pipeline.admit(1, late.deadline_s)
    made.pipeline.offer(late)
    assert made.answers()[0].outcome is Outcome.FAILED


def test_that_the_device_is_lost_is_told_before_anybody_is_answered_so() -> None:
    events: queue.Queue[str] = queue.Queue()
    made = Bench(SteppedEngine(), failed=events.put, deliver=lambda images: events.put("answered"))
    made.send(made.image())
    made.step(DeviceLost("gone"))
    assert [events.get(timeout=WAIT_S) for _ in range(2)] == ["gone", "answered"]
    made.thread.join(WAIT_S)


def test_the_queue_is_bounded_while_images_are_still_decoding(bench: Make) -> None:
    made = bench(queue_length=4)
    deadline_s = time.monotonic() + 60
    verdicts = [made.pipeline.admit(1, deadline_s) for _ in range(6)]
    assert [isinstance(verdict, Accepted) for verdict in verdicts] == [True] * 4 + [False] * 2
    refused = verdicts[-1]
    assert isinstance(refused, Refused)
    assert refused.status == 429
    load = made.pipeline.load()
    assert (load.queue_images, load.inflight_images) == (4, 4)
    assert load.refused_per_s > 0


def test_an_image_whose_client_left_while_it_was_decoded_takes_no_place(bench: Make) -> None:
    made = bench()
    image = made.image()
    made.pipeline.admit(1, image.deadline_s)
    made.pipeline.leave([image])
    assert image.outcome is None, "whoever decodes it has it"
    made.pipeline.offer(image)
    assert made.pipeline.load().queue_images == 0
    assert [image.outcome for image in made.answers()] == [Outcome.CANCELLED]
    assert (made.pipeline.inflight, made.pipeline.slots.free) == (0, 32)


def resting(made: Bench, task: Callable[[], None]) -> None:
    """Hand a task to the engine thread as soon as it waits."""
    give_up_s = time.monotonic() + WAIT_S
    while not made.pipeline.do_while_idle(task):
        assert time.monotonic() < give_up_s
        time.sleep(0.001)


def test_an_idle_engine_decodes_a_lone_image_itself_and_runs_it(bench: Make) -> None:
    made, where = bench(), list[threading.Thread]()
    image = made.image()
    assert isinstance(made.pipeline.admit(1, image.deadline_s), Accepted)

    def decode() -> None:
        where.append(threading.current_thread())
        made.pipeline.offer(image)

    resting(made, decode)
    assert made.step() == (1, 1)
    assert [one.outcome for one in made.answers()] == [Outcome.OK]
    assert where == [made.thread]


def test_a_busy_engine_or_one_that_others_wait_for_decodes_nothing(bench: Make) -> None:
    made, never = bench(), pytest.fail
    image = made.image()
    made.send(image)
    made.engine.begun.get(timeout=WAIT_S)
    assert not made.pipeline.do_while_idle(lambda: never("it runs a batch"))
    made.engine.orders.put(None)
    made.answers()
    done = threading.Event()
    resting(made, done.set)
    assert done.wait(WAIT_S)
    for _ in range(2):
        assert isinstance(made.pipeline.admit(1, time.monotonic() + 60), Accepted)
    assert not made.pipeline.do_while_idle(lambda: never("two are coming"))


def test_a_task_that_fails_costs_no_other(bench: Make) -> None:
    made = bench()
    resting(made, lambda: int("no number"))
    image = made.image()
    made.send(image)
    made.step()
    assert [one.outcome for one in made.answers()] == [Outcome.OK]


def test_a_request_that_no_worker_could_take_is_no_demand(bench: Make) -> None:
    made = bench(queue_length=16)
    verdict = made.pipeline.admit(17, time.monotonic() + 60)
    assert isinstance(verdict, Refused)
    assert verdict.status == 413
    assert (made.pipeline.load().ratio, made.pipeline.load().demand_images) == (0, 0)
    assert isinstance(made.pipeline.admit(1, time.monotonic() - 1), Refused)
    assert made.pipeline.load().demand_images == 1, "too late here, but in time elsewhere"


def test_silent_images_that_were_overtaken_on_purpose_teach_admission_nothing(bench: Make) -> None:
    """They end when their guessed patience is over, and no estimate was wrong; clients that tell would be refused for it."""
    made = bench(queue_length=64)
    made.send(made.image())
    made.engine.begun.get(timeout=WAIT_S)
    silent = [made.image() for _ in range(40)]
    for image in silent:
        image.silent = True
    made.send(*silent)
    made.pipeline.leave(silent[:20])
    made.engine.orders.put(None)
    made.step()
    made.pipeline.observe_late(0.02, 10.0, silent=True)
    assert made.pipeline._admission.margin_s == 0
    made.pipeline.observe_late(0.02, 10.0, silent=False)
    assert made.pipeline._admission.margin_s > 1


def test_whoever_gives_up_its_place_is_answered_so() -> None:
    made = Bench(SteppedEngine(), queue_length=2, drop_oldest=True)
    running, oldest, next_one, newest = (made.image() for _ in range(4))
    made.send(running)
    made.engine.begun.get(timeout=WAIT_S)
    finished: list[Image] = []
    oldest.finish = finished.append
    made.send(oldest, next_one)
    assert made.pipeline.inflight == 3
    made.send(newest)
    assert finished == [oldest]
    assert (oldest.outcome, type(oldest.error)) == (Outcome.REJECTED, Displaced)
    assert made.pipeline.inflight == 3
    made.engine.orders.put(None)
    made.step()
    assert {image.outcome for _ in range(2) for image in made.answers()} == {Outcome.OK}
    made.pipeline.stop()
    made.thread.join(WAIT_S)
    assert (made.pipeline.inflight, made.pipeline.slots.free) == (0, 2 + 2 * 8)


def test_an_image_that_is_given_up_while_decoding_leaves(bench: Make) -> None:
    made = bench(queue_length=1)
    image = made.image()
    made.pipeline.admit(1, image.deadline_s)
    made.pipeline.slots.give(image.pixels)
    image.outcome = Outcome.REJECTED
    made.pipeline.abandon(image)
    assert made.answers() == (image,)
    assert made.pipeline.inflight == 0
    assert isinstance(made.pipeline.admit(1, image.deadline_s), Accepted)


def test_progress_tells_a_hung_engine_from_an_idle_one(bench: Make) -> None:
    made = bench()
    idle = made.pipeline.progress()
    assert (idle.waiting, idle.running) == (0, 0)
    made.send(made.image())
    made.engine.begun.get(timeout=WAIT_S)
    made.send(made.image())
    busy = made.pipeline.progress()
    assert (busy.waiting, busy.running) == (1, 1)
    assert busy.last_s <= time.monotonic()
    assert busy.slowest_s == pytest.approx(0.018)


def test_an_idle_engine_does_not_stay_in_the_burst_tier() -> None:
    later_s = [0.0]
    made = Bench(SteppedEngine(), clock=lambda: time.monotonic() + later_s[0])
    made.pipeline.grant(CeilingGrant(base=1, ceiling=8))
    made.send(made.image())
    made.engine.begun.get(timeout=WAIT_S)
    images = [made.image() for _ in range(4)]
    made.send(*images)
    made.engine.orders.put(None)
    assert made.step() == (4, 4)
    for _ in range(2):
        made.answers()
    assert made.pipeline.ceiling()[0].burst
    later_s[0] = 31
    assert not made.pipeline.ceiling()[0].burst
    assert made.pipeline.ceiling()[0].effective == 1
    made.pipeline.stop()
    made.thread.join(WAIT_S)


def test_gauges_tell_what_is_granted_now(bench: Make) -> None:
    made = bench()
    made.pipeline.grant(CeilingGrant(base=1, ceiling=4, bounds={"latency": 4}, budget_bytes=90))
    refresh_gauges(made.metrics, made.pipeline, 8)
    assert b'bound="latency"' in made.metrics.render()
    assert b'kind="budget"' in made.metrics.render()
    made.pipeline.grant(CeilingGrant(base=1, ceiling=4))
    refresh_gauges(made.metrics, made.pipeline, 8)
    assert b'bound="latency"' not in made.metrics.render()
    assert b'kind="budget"' not in made.metrics.render()
    assert b'bound="effective"' in made.metrics.render()


def test_speed_is_learned(bench: Make) -> None:
    made = bench()
    before = made.pipeline.fit
    for _ in range(3):
        made.send(made.image())
        made.step()
        made.answers()
    after = made.pipeline.fit
    assert before is not None
    assert after is not None
    assert after.samples == before.samples + 3


def test_a_lowered_ceiling_holds_for_what_runs_again(bench: Make) -> None:
    """On a shared device the memory is somebody else's by then."""
    made = bench(max_batch=8)
    made.send(made.image())
    made.engine.begun.get(timeout=WAIT_S)
    made.send(*(made.image() for _ in range(8)))
    made.engine.orders.put(None)
    assert made.engine.begun.get(timeout=WAIT_S)[0] == 8
    assert made.pipeline.held_images == 8
    made.pipeline.grant(CeilingGrant(base=2, ceiling=2, budget_bytes=3, serial=2))
    made.engine.orders.put(TransientFailure("once"))
    assert [made.step()[0] for _ in range(4)] == [2, 2, 2, 2]
    assert made.pipeline.ceiling()[0].ceiling == 2
    made.pipeline.grant(CeilingGrant(base=8, ceiling=8, serial=1))
    assert made.pipeline.ceiling()[0].ceiling == 2, "it was overtaken by the other"


def test_the_load_is_measured_against_what_can_be_lent(bench: Make) -> None:
    made = bench(max_batch=8)
    made.pipeline.grant(CeilingGrant(base=2, ceiling=2, reachable=4))
    assert made.pipeline.load().capacity_per_s == pytest.approx(4 / 0.014, rel=0.01)
    made.pipeline.grant(CeilingGrant(base=2, ceiling=2))
    assert made.pipeline.load().capacity_per_s == pytest.approx(2 / 0.012, rel=0.01)
