"""The pipeline with an engine that fails as told, on the content of its images: who is answered what, and what is remembered.

`None` of a pixel's value: fine. The engine thread is driven by hand where the clock matters.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolastic_contract.state import CeilingGrant, Fit
from yolastic_worker.admission import Accepted
from yolastic_worker.batcher import BatchRules
from yolastic_worker.engine.agreement import observe
from yolastic_worker.engine.base import EngineInfo
from yolastic_worker.health import stalled
from yolastic_worker.memory.probe import MemoryReading
from yolastic_worker.metrics import WorkerMetrics
from yolastic_worker.pipeline import Pipeline
from yolastic_worker.postprocess import HeadKind
from yolastic_worker.recovery import FIRST_PROBE_S
from yolastic_worker.types import (
    DeviceLost,
    Geometry,
    Image,
    Outcome,
    OutOfDeviceMemory,
    Quarantined,
    ShapeKey,
    Thresholds,
    TransientFailure,
)  # fmt: skip
from yolastic_worker.upkeep import CANARY_EVERY_S
from yolastic_worker.warmup import Warmth

WAIT_S = 10
POISON, NOT_A_NUMBER, CANARY = 66, 77, 99
FATAL = "CUDA failure 700: an illegal memory access was encountered"


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class MoodyEngine:
    """Answers each image with its own first pixel as x2; fails as its moods say."""

    fits: int = 8
    """More images than this are out of memory."""
    passing: list[Exception] = field(default_factory=list)
    """Raised once each, first of all."""
    always: Exception | None = None
    wrong: bool = False
    """Every answer is another than it should be."""
    sizes: list[int] = field(default_factory=list)
    begun: Callable[[], int] | None = None
    """Images that are said to run, for liveness."""
    unannounced: list[int] = field(default_factory=list)
    """Runs that were not said to have begun."""
    shrunk: int = 0
    used: int = 0

    def __post_init__(self) -> None:
        self.info = EngineInfo(
            backend="Moody", device="none", device_id="none", sha256="", task="Detect", names=("object",), height=32, width=32,
            precision="FP32", head=HeadKind.END_TO_END,
        )  # fmt: skip

    def run(self, images: Sequence[Any], padded: int = 0) -> Any:
        self.sizes.append(len(images))
        if self.begun is not None and self.begun() != len(images):
            self.unannounced.append(len(images))
        if self.passing:
            raise self.passing.pop(0)
        if self.always is not None:
            raise self.always
        if len(images) > self.fits:
            raise OutOfDeviceMemory("no")
        values = [float(image[0, 0, 0]) for image in images]
        if POISON in values:
            raise RuntimeError("Got invalid dimensions for input")
        self.used = max(self.used, len(images))
        shift = 9 if self.wrong else 0
        return np.array(
            [[[0, 0, value / 4 + shift, 32, np.nan if value == NOT_A_NUMBER else 0.9, 0]] for value in values], np.float32
        )

    def memory(self) -> MemoryReading:
        return MemoryReading(100 + 10 * self.used, 1000)

    def shrink(self) -> None:
        self.shrunk += 1
        self.used = 0


class Bench:
    """A pipeline; `settle` lets its engine thread run until nothing is left to do."""

    def __init__(self, engine: MoodyEngine, canary: bool = True) -> None:
        buckets = (1, 2, 4, 8)
        pixels = np.full((32, 32, 3), CANARY, np.uint8)
        known = observe(pixels, MoodyEngine().run([pixels])[0], engine.info.head) if canary else None
        warmth = Warmth(
            buckets,
            tuple((b, 0.01 + 0.001 * b) for b in buckets),
            Fit(fixed=100, per_image=10),
            180,
            1000,
            "Device",
            canary=known,
        )
        self.engine, self.clock = engine, Clock()
        self.metrics = WorkerMetrics("test")
        self.delivered: queue.Queue[Sequence[Image]] = queue.Queue()
        self.deliver: Callable[[Sequence[Image]], None] = self.delivered.put
        self.pipeline = Pipeline(
            engine, warmth, BatchRules(), queue_length=64, metrics=self.metrics, deliver=self._pass_on,
            clock=self.clock,
        )  # fmt: skip
        engine.begun = lambda: self.pipeline.progress().running
        self.thread: threading.Thread | None = None
        self.raised: BaseException | None = None

    def _pass_on(self, images: Sequence[Image]) -> None:
        self.deliver(images)

    def image(self, value: int) -> Image:
        pixels = self.pipeline.slots.take()
        pixels[:] = value
        deadline_s = self.clock() + 60
        assert isinstance(self.pipeline.admit(1, deadline_s), Accepted)
        return Image(
            ShapeKey(32, 32), pixels, Geometry(32, 32, 1.0, 0, 0), Thresholds(), self.clock(), deadline_s, lambda image: None,
            body=bytes([value]),
        )  # fmt: skip

    def send(self, *values: int) -> list[Image]:
        images = [self.image(value) for value in values]
        for image in images:
            self.pipeline.offer(image)
        return images

    def start(self) -> None:
        def run() -> None:
            try:
                self.pipeline.run()
            except BaseException as error:
                self.raised = error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def together(self, *values: int) -> list[Image]:
        """One batch of these; returns when all are answered."""
        images = self.send(*values)
        if self.thread is None:
            self.start()
        self.wait(images)
        return images

    def wait(self, images: Sequence[Image]) -> None:
        left = len(images)
        while left:
            answered = self.delivered.get(timeout=WAIT_S)
            self.pipeline.answered(answered)
            left -= len(answered)
        assert all(image.outcome is not None for image in images)

    def stop(self) -> None:
        self.pipeline.stop()
        if self.thread is not None:
            self.thread.join(WAIT_S)
            assert not self.thread.is_alive()
            self.thread = None

    def later(self, seconds: float) -> None:
        """Time passes, and the engine thread notices."""
        self.clock.now_s += seconds
        with self.pipeline._changed:
            self.pipeline._changed.notify()

    def count(self, name: str) -> float:
        return float(getattr(self.metrics, name)._value.get())


@pytest.fixture
def bench() -> Any:
    benches: list[Bench] = []

    def make(canary: bool = True, **moods: Any) -> Bench:
        benches.append(Bench(MoodyEngine(**moods), canary))
        return benches[-1]

    yield make
    for made in benches:
        made.stop()
        assert made.pipeline.slots.free == 64 + 16, "every slot came back"
        assert made.pipeline.inflight == 0
        assert made.engine.unannounced == [], "a run that hangs would not be seen"


Make = Callable[..., Bench]


def until(happened: Callable[[], bool]) -> None:
    end_s = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < end_s
        time.sleep(0.002)


def right(images: Sequence[Image]) -> bool:
    """Each with its own answer."""
    return all(image.outcome is Outcome.OK and image.boxes[0, 2] == image.body[0] / 4 for image in images)


def test_out_of_memory_halves_and_everybody_is_answered_rightly(bench: Make) -> None:
    made = bench(fits=2)
    images = made.together(*range(1, 9))
    assert right(images)
    assert [size for size in made.engine.sizes if size > 2] == [8, 4], "no size is tried twice in vain"
    assert made.count("out_of_memory") == 2
    assert made.count("batch_retries") == 5
    assert made.engine.shrunk == 1, "what the arena holds may be in the way of the second try"
    state, _, own = made.pipeline.ceiling()
    assert (state.ceiling, own) == (2, 2)
    health = made.pipeline.health()
    assert (health.out_of_memory_cap, health.next_trial_s) == (2, FIRST_PROBE_S)
    made.engine.sizes.clear()
    assert right(made.together(*range(1, 9)))
    assert made.engine.sizes == [2, 2, 2, 2], "it is remembered"
    assert made.metrics.batch_size._sum.get() == 16


def test_a_grant_above_what_fits_is_cut_and_comes_back_with_the_memory(bench: Make) -> None:
    made = bench(fits=4)
    assert right(made.together(*range(8)))
    assert made.pipeline.grant(CeilingGrant(base=8, ceiling=8)).ceiling == 4
    made.later(FIRST_PROBE_S - 1)
    assert right(made.together(1))
    assert 8 not in made.engine.sizes[1:]
    made.engine.fits = 8
    made.later(1)
    until(lambda: made.pipeline.ceiling()[0].ceiling == 8)
    assert made.engine.sizes.count(8) == 3, "tried twice, with images that nobody waits for"
    assert made.pipeline.health().out_of_memory_cap is None


def test_a_trial_in_vain_costs_nobody_an_answer_and_comes_ever_later(bench: Make) -> None:
    made = bench(fits=4)
    made.together(*range(8))
    for waiting_s in (60, 120, 240):
        assert made.pipeline.health().next_trial_s == waiting_s
        before = made.count("out_of_memory")
        made.later(waiting_s)
        until(lambda before=before: made.count("out_of_memory") == before + 1)
        until(lambda waiting_s=waiting_s: made.pipeline.health().next_trial_s == 2 * waiting_s)
        assert made.pipeline.ceiling()[2] == 4
    assert right(made.together(*range(4)))


def test_no_trial_beyond_the_budget(bench: Make) -> None:
    """The rest of the device's memory is somebody else's by now."""
    made = bench(fits=4)
    made.together(*range(8))
    made.pipeline.grant(CeilingGrant(base=4, ceiling=4, budget_bytes=150))
    made.engine.fits = 8
    made.later(FIRST_PROBE_S)
    until(lambda: made.pipeline.health().next_trial_s == FIRST_PROBE_S)
    assert made.engine.sizes.count(8) == 1


def test_alone_and_still_out_of_memory(bench: Make) -> None:
    made = bench(fits=0)
    images = made.together(1, 2)
    assert [type(image.error) for image in images] == [OutOfDeviceMemory] * 2
    made.engine.fits = 8
    assert right(made.together(3))
    assert made.pipeline.lost is None


def test_many_images_that_do_not_fit_alone_do_not_fill_the_log(bench: Make, caplog: pytest.LogCaptureFixture) -> None:
    made = bench(fits=0)
    for value in range(1, 60):
        made.together(value)
    assert made.count("out_of_memory") == 59
    assert 1 <= len([record for record in caplog.records if record.levelname == "ERROR"]) <= 3


def test_what_passes_is_tried_once_more(bench: Make) -> None:
    made = bench(passing=[TransientFailure("timed out")])
    assert right(made.together(1, 2, 3))
    assert made.engine.sizes == [3, 3]
    assert made.count("batch_retries") == 1
    made.engine.passing = [TransientFailure("timed out")] * 2
    images = made.together(1, 2, 3)
    assert {image.outcome for image in images} == {Outcome.FAILED}
    assert made.pipeline.quarantine.over(made.clock())
    until(lambda: made.engine.sizes[-1] == 1)
    assert right(made.together(4))


def test_what_never_passes_ends_the_worker(bench: Make) -> None:
    made = bench(always=TransientFailure("timed out"))
    images = made.together(1, 2, 3)
    assert {image.outcome for image in images} == {Outcome.FAILED}
    assert made.thread is not None
    made.thread.join(WAIT_S)
    assert "does not answer any more" in str(made.pipeline.lost), "the canary was asked at once, and got no answer either"


def test_a_runtimes_own_words_are_understood(bench: Make) -> None:
    made = bench(passing=[RuntimeError("CUDA failure 2: out of memory ; GPU=0")])
    assert right(made.together(1, 2, 3, 4))
    assert made.count("out_of_memory") == 1


def test_one_bad_image_is_found_and_refused_the_next_time(bench: Make) -> None:
    made = bench()
    images = made.together(1, 2, 3, POISON, 5, 6, 7, 8)
    assert right([image for image in images if image.body[0] != POISON])
    assert isinstance(images[3].error, Quarantined)
    assert made.pipeline.quarantine.holds(images[3].digest, made.clock())
    assert made.pipeline.health().quarantined_images == 1
    assert made.count("quarantined") == 1
    assert made.count("batch_retries") <= 6


def test_one_bad_image_among_good_ones_needs_no_canary(bench: Make) -> None:
    """That the others ran proves the device."""
    made = bench(canary=False)
    images = made.together(1, 2, 3, POISON, 5, 6, 7, 8)
    assert isinstance(images[3].error, Quarantined)


def test_an_image_that_fails_alone_is_judged_by_the_canary(bench: Make) -> None:
    made = bench()
    assert isinstance(made.together(POISON)[0].error, Quarantined)
    assert made.pipeline.lost is None
    without = bench(canary=False)
    assert isinstance(without.together(POISON)[0].error, RuntimeError), "nothing proves that it is the image"
    assert without.pipeline.quarantine.over(without.clock())


def test_an_image_that_failed_once_alone_is_answered_and_not_refused(bench: Make) -> None:
    made = bench(passing=[RuntimeError("something odd")])
    assert right(made.together(1))
    assert made.pipeline.quarantine.over(made.clock())


def test_when_everything_fails_it_is_the_device_and_nobody_is_quarantined(bench: Make) -> None:
    made = bench(always=RuntimeError("Non-zero status code returned while running Conv node"))
    images = made.together(*range(1, 9))
    assert made.thread is not None
    made.thread.join(WAIT_S)
    assert {image.outcome for image in images} == {Outcome.FAILED}
    assert {type(image.error) for image in images} == {DeviceLost}
    assert made.pipeline.quarantine.over(made.clock())
    assert made.pipeline.lost is not None
    assert "does not answer any more" in str(made.pipeline.lost)


def test_when_all_images_fail_and_the_canary_does_not_they_fail_and_the_worker_lives(bench: Make) -> None:
    made = bench()
    images = [made.image(POISON) for _ in range(4)]
    for number, image in enumerate(images):
        image.body = bytes([POISON, number])
        made.pipeline.offer(image)
    made.start()
    made.wait(images)
    assert {type(image.error) for image in images} == {RuntimeError}
    assert made.pipeline.quarantine.over(made.clock())
    assert right(made.together(1, 2))


def test_the_canary_every_thirty_seconds(bench: Make) -> None:
    made = bench()
    made.start()
    made.later(CANARY_EVERY_S - 1)
    assert right(made.together(1))
    assert made.engine.sizes == [1]
    made.later(1)
    until(lambda: made.engine.sizes == [1, 1])
    until(lambda: made.pipeline.health().canary_age_s == 0)
    made.later(CANARY_EVERY_S)
    until(lambda: made.engine.sizes == [1, 1, 1])


def test_a_wrong_answer_is_fatal(bench: Make) -> None:
    made = bench()
    assert right(made.together(1))
    made.engine.wrong = True
    made.later(CANARY_EVERY_S)
    assert made.thread is not None
    made.thread.join(WAIT_S)
    assert "wrong answers" in str(made.pipeline.lost)
    assert {image.outcome for image in made.together(1)} == {Outcome.FAILED}


def test_a_canary_that_hangs_is_no_progress(bench: Make) -> None:
    made = bench()
    hangs, goes_on = threading.Event(), threading.Event()
    original = made.engine.run

    def run(pixels: Sequence[Any], padded: int = 0) -> Any:
        hangs.set()
        assert goes_on.wait(WAIT_S)
        return original(pixels, padded)

    made.engine.run = run  # type: ignore[method-assign]
    made.start()
    made.later(CANARY_EVERY_S)
    assert hangs.wait(WAIT_S)
    made.clock.now_s += 9
    assert stalled(made.pipeline.progress(), 0, made.clock()) is None
    made.clock.now_s += 2
    assert stalled(made.pipeline.progress(), 0, made.clock()) is not None
    goes_on.set()
    until(lambda: made.pipeline.progress().running == 0)
    assert stalled(made.pipeline.progress(), 0, made.clock()) is None


def test_numbers_that_are_none_are_no_answer_and_the_canary_is_asked_at_once(bench: Make) -> None:
    made = bench()
    images = made.together(1, 2, NOT_A_NUMBER, 4)
    assert [image.outcome for image in images] == [Outcome.OK, Outcome.OK, Outcome.FAILED, Outcome.OK]
    until(lambda: made.engine.sizes == [4, 1])
    assert made.pipeline.lost is None


def test_a_device_lost_in_the_middle_of_a_rescue_leaves_nobody_without_an_answer(bench: Make) -> None:
    made = bench(passing=[OutOfDeviceMemory("no"), RuntimeError(FATAL)])
    images = made.together(*range(1, 9))
    assert {type(image.error) for image in images} == {DeviceLost}
    assert made.thread is not None
    made.thread.join(WAIT_S)
    assert made.pipeline.lost is not None


def test_images_whose_clients_left_are_not_run_again(bench: Make) -> None:
    made = bench()
    images = made.send(1, 2, 3, 4)

    class Leaving(OutOfDeviceMemory):
        def __init__(self) -> None:
            super().__init__("no")
            for image in images[:2]:
                image.cancelled = True

    original = made.engine.run
    first = [True]

    def run(pixels: Sequence[Any], padded: int = 0) -> Any:
        if first:
            first.clear()
            made.engine.sizes.append(len(pixels))
            raise Leaving
        return original(pixels, padded)

    made.engine.run = run  # type: ignore[method-assign]
    made.start()
    made.wait(images)
    assert [image.outcome for image in images] == [Outcome.CANCELLED] * 2 + [Outcome.OK] * 2
    assert made.engine.sizes == [4, 2]


def test_a_smaller_budget_gives_memory_back_before_the_next_batch(bench: Make) -> None:
    made = bench()
    made.pipeline.grant(CeilingGrant(base=8, ceiling=8, budget_bytes=900))
    made.together(*range(8))
    made.later(10)
    made.together(*range(8))
    until(lambda: made.pipeline.memory_in_use() == (180, 180))
    made.pipeline.grant(CeilingGrant(base=4, ceiling=4, budget_bytes=140))
    until(lambda: made.pipeline.memory_in_use() == (100, 180))
    assert made.engine.shrunk == 1
    made.pipeline.grant(CeilingGrant(base=4, ceiling=4, budget_bytes=140))
    made.pipeline.grant(CeilingGrant(base=8, ceiling=8, budget_bytes=900))
    assert right(made.together(*range(8)))
    assert made.engine.shrunk == 1, "only a smaller one"


def test_giving_memory_back_is_work_that_ends(bench: Make) -> None:
    """A worker that nobody asks anything afterwards is idle, not stuck."""
    made = bench()
    made.together(*range(1, 9))
    made.pipeline.looked(180)
    made.pipeline.grant(CeilingGrant(base=1, ceiling=1, budget_bytes=150))
    until(lambda: made.engine.shrunk == 1 and not made.pipeline.progress().running)
    made.clock.now_s += 3600
    assert stalled(made.pipeline.progress(), 0.0, made.clock()) is None


def test_a_lowered_ceiling_counts_from_the_next_batch(bench: Make) -> None:
    made = bench()
    images = made.send(*range(8))
    made.pipeline.grant(CeilingGrant(base=2, ceiling=2))
    made.start()
    made.wait(images)
    assert made.engine.sizes == [2, 2, 2, 2]


@settings(max_examples=60, deadline=None)
@given(
    script=st.lists(
        st.sampled_from([None, None, OutOfDeviceMemory("no"), TransientFailure("busy"), RuntimeError("odd"), DeviceLost("gone")]),
        max_size=24,
    ),
    groups=st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=8), min_size=1, max_size=4),
)
def test_whatever_fails_everybody_is_answered_once_and_the_counters_add_up(
    script: list[Exception | None], groups: list[list[int]]
) -> None:
    made = Bench(MoodyEngine())
    original, left = made.engine.run, list(script)

    def run(pixels: Sequence[Any], padded: int = 0) -> Any:
        error = left.pop(0) if left else None
        if error is not None:
            raise error
        return original(pixels, padded)

    made.engine.run = run  # type: ignore[method-assign]
    images = [image for group in groups for image in made.send(*group)]
    finished: list[int] = []
    for image in images:
        image.finish = lambda image: finished.append(id(image))
    made.start()
    made.wait(images)
    made.stop()
    assert sorted(finished) == sorted(map(id, images))
    assert made.delivered.empty()
    assert right([image for image in images if image.outcome is Outcome.OK])
    counted = {outcome: made.metrics.images[outcome]._value.get() for outcome in Outcome}
    assert sum(counted.values()) == len(images)
    assert counted[Outcome.OK] == made.metrics.batch_size._sum.get()
    assert (made.pipeline.inflight, made.pipeline.slots.free) == (0, 64 + 16)


# --- loops survive whatever is called from them


def once(error: Exception, then: Callable[..., Any]) -> Callable[..., Any]:
    """Raises at the first call."""
    left = [error]

    def call(*values: Any, **named: Any) -> Any:
        if left:
            raise left.pop()
        return then(*values, **named)

    return call


def test_the_loops_survive_a_delivery_that_fails(bench: Make) -> None:
    for values in ((1,), (1, 2, 3, 4)):  # finished by the engine thread itself, and by the postprocessing thread
        made = bench()
        made.deliver = once(ValueError("delivery"), made.delivered.put)
        lost = made.send(*values)
        made.start()
        until(lambda lost=lost: all(image.outcome is not None for image in lost))
        assert right(made.together(5, 6, 7))
        made.pipeline.answered(lost)


def test_the_event_loops_side_survives_a_request_that_fails_to_finish(bench: Make) -> None:
    made = bench()
    images = [made.image(value) for value in (1, 2, 3)]
    finished: list[int] = []
    for image in images:
        image.finish = lambda image: finished.append(1 // (image.body[0] - 1))
        made.pipeline.offer(image)
    made.start()
    made.wait(images)
    assert finished == [1, 0]


@pytest.mark.parametrize("broken", ["turn", "update", "seconds", "observe", "started"])
def test_the_engine_thread_survives_an_exception_in_what_it_asks(
    bench: Make, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench()
    pipeline = made.pipeline
    owner: Any = {
        "turn": pipeline._batcher, "update": pipeline._tiers, "seconds": pipeline._speed, "observe": pipeline._speed,
        "started": pipeline._admission,
    }[broken]  # fmt: skip
    assert right(made.together(1))
    monkeypatch.setattr(owner, broken, once(ValueError(broken), getattr(owner, broken)))
    images = made.together(2, 3)
    assert all(image.outcome in (Outcome.OK, Outcome.FAILED) for image in images)
    assert right(made.together(4, 5))


def test_the_postprocessing_thread_survives_what_it_cannot_handle(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench()
    finisher = made.pipeline._runner.finisher
    monkeypatch.setattr(finisher, "finish", once(ValueError("finish"), finisher.finish))
    lost = made.send(1, 2, 3)
    made.start()
    made.wait(lost)
    assert right(made.together(4, 5, 6))
    assert {image.outcome for image in lost} == {Outcome.FAILED}


def test_an_engine_faster_than_postprocessing_waits_for_it(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else outputs would pile up in memory, behind every bound."""
    made = bench()
    finisher, go_on = made.pipeline._runner.finisher, threading.Event()
    original = finisher.finish

    def finish(*values: Any) -> None:
        assert go_on.wait(WAIT_S)
        original(*values)

    monkeypatch.setattr(finisher, "finish", finish)
    images = made.send(*range(64))
    made.start()
    until(lambda: finisher._finished.full() and len(made.engine.sizes) == 4)
    assert made.pipeline.load().queue_images == 32, "the rest waits where admission sees it"
    made.clock.now_s += 11
    assert stalled(made.pipeline.progress(), 0, made.clock()) is not None
    go_on.set()
    made.wait(images)
    assert right(images)


def test_a_thread_that_only_stumbles_ends_and_everybody_is_answered(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench()

    def broken(*_: Any) -> Any:
        raise ValueError("for good")

    monkeypatch.setattr(made.pipeline._batcher, "turn", broken)
    images = made.send(1, 2)
    made.start()
    made.wait(images)
    assert made.thread is not None
    made.thread.join(WAIT_S)
    assert isinstance(made.raised, ValueError)
    assert {image.outcome for image in images} == {Outcome.FAILED}
    assert {image.outcome for image in made.together(3)} == {Outcome.FAILED}, "nobody waits at a dead engine"
