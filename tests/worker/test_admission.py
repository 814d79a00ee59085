"""May this image still make its deadline? And, with the batcher, what becomes of a worker at three times its capacity."""

import heapq
import random
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolastic_contract.state import Fit
from yolastic_worker.admission import Accepted, Admission, Line, Refused
from yolastic_worker.batcher import Batcher, BatchRules
from yolastic_worker.speed import SpeedModel
from yolastic_worker.types import Geometry, Image, ShapeKey, Thresholds

FIT = Fit(fixed=0.020, per_image=0.001)


def decide(
    admission: Admission,
    *,
    now_s: float = 0.0,
    patience_s: float = 10.0,
    images: int = 1,
    queue: int = 0,
    running_until_s: float | None = None,
    limit: int = 32,
    fit: Fit | None = FIT,
    line: Line | None = None,
) -> Accepted | Refused:
    return admission.decide(
        now_s,
        images=images,
        deadline_s=now_s + patience_s,
        queue_images=queue,
        running_until_s=running_until_s,
        limit=limit,
        fit=fit,
        source="quiet",
        line=line,
    )


@dataclass
class Waiting:
    """A queue as admission sees it."""

    ahead: int = 10**9
    may_go: int = 0
    oldest: int = 0
    """With `drop_oldest`."""

    def ahead_of(self, source: str, images: int) -> int:
        return self.ahead

    def yields(self, source: str, images: int, *, drop_oldest: bool) -> bool:
        return images <= max(self.may_go, self.oldest if drop_oldest else 0)


def busy() -> Admission:
    """It has just accepted something, so that no probe is due."""
    admission = Admission(256)
    assert isinstance(decide(admission), Accepted)
    return admission


@pytest.mark.parametrize(
    ("queue", "images", "running_until_s", "limit", "predicted_s"),
    [
        (0, 1, None, 32, 0.021),
        (0, 1, 0.030, 32, 0.030 + 0.021),
        (0, 1, -1.0, 32, 0.021),  # it should have ended already
        (31, 1, None, 32, 0.052),
        (32, 1, None, 32, 0.052 + 0.021),
        (100, 4, 0.010, 32, 0.010 + 3 * 0.052 + 0.028),
        (0, 40, None, 32, 0.052 + 0.028),  # a request larger than a batch is split
        (7, 1, None, 1, 8 * 0.021),
    ],
)
def test_work_ahead_and_the_own_batch_must_fit(
    *, queue: int, images: int, running_until_s: float | None, limit: int, predicted_s: float
) -> None:
    asked = {"queue": queue, "images": images, "running_until_s": running_until_s, "limit": limit}
    enough_s = predicted_s
    if queue or (running_until_s or -1) > 0:  # with work ahead some margin is kept from the first: a fifth, at most 50 ms
        enough_s = min(predicted_s / 0.8, predicted_s + 0.050)
    verdict = decide(busy(), patience_s=enough_s + 1e-6, **asked)  # type: ignore[arg-type]
    assert isinstance(verdict, Accepted)
    assert verdict.predicted_s == pytest.approx(predicted_s, rel=1e-3)
    assert not verdict.probe
    late = decide(busy(), patience_s=enough_s - 1e-6, **asked)  # type: ignore[arg-type]
    assert isinstance(late, Refused)
    assert late.status == 429


@pytest.mark.parametrize(
    ("queue", "running_until_s", "retry_after_s"),
    [(0, None, 1), (0, 3.2, 4), (256, None, 1), (6400, None, 11), (10**6, None, 60)],
)
def test_retry_after_is_the_drain_estimate_in_whole_seconds(
    queue: int, running_until_s: float | None, retry_after_s: int
) -> None:
    verdict = decide(busy(), patience_s=0.001, queue=queue, running_until_s=running_until_s)
    assert isinstance(verdict, Refused)
    assert verdict.retry_after_s == retry_after_s


def test_the_queue_is_bounded_whatever_the_patience() -> None:
    admission = Admission(8)
    assert isinstance(decide(admission, queue=5, images=3), Accepted)
    verdict = decide(admission, queue=6, images=3, now_s=100.0)
    assert isinstance(verdict, Refused)
    assert verdict.status == 429
    assert "6 images wait" in verdict.message


def test_a_deadline_that_has_passed_is_a_504() -> None:
    for patience_s in (0.0, -1.0):
        verdict = decide(Admission(8), patience_s=patience_s)
        assert isinstance(verdict, Refused)
        assert verdict.status == 504


def test_while_nothing_is_known_the_queue_length_decides() -> None:
    admission = Admission(8)
    assert decide(admission, queue=7, patience_s=0.001, fit=None) == Accepted(None)
    verdict = decide(admission, queue=8, fit=None)
    assert isinstance(verdict, Refused)
    assert (verdict.status, verdict.retry_after_s) == (429, 1)


def test_a_probe_goes_through_every_half_second_when_nothing_else_does() -> None:
    admission = busy()
    absurd = Fit(fixed=100.0, per_image=1.0)
    probes = [
        tick / 100
        for tick in range(1, 301)
        if isinstance(verdict := decide(admission, now_s=tick / 100, patience_s=0.5, fit=absurd), Accepted) and verdict.probe
    ]
    assert probes == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]


def test_no_probe_while_others_are_accepted() -> None:
    admission = Admission(256)
    for tick in range(200):
        assert isinstance(decide(admission, now_s=tick / 50, patience_s=1.0), Accepted)
        assert isinstance(decide(admission, now_s=tick / 50 + 0.01, patience_s=0.02), Refused)


def test_late_answers_teach_a_margin() -> None:
    admission = busy()
    for step in range(500):
        assert isinstance(decide(admission, now_s=step / 1000, patience_s=1.0), Accepted)
        admission.observe_late(0.021, 0.021 + (0.100 if step % 50 == 0 else 0.010))
    assert 0.050 <= admission.margin_s <= 0.100
    assert isinstance(decide(admission, now_s=0.5, queue=64, patience_s=0.125 + 0.045), Refused)
    assert isinstance(decide(admission, now_s=0.5, queue=64, patience_s=0.125 + 0.105), Accepted)


def test_the_margin_fades_when_answers_are_in_time_or_absent() -> None:
    admission = busy()
    for _ in range(50):
        admission.observe_late(0.021, 0.521)
    assert admission.margin_s == pytest.approx(0.5, rel=0.01)
    decide(admission, now_s=5.0)
    assert admission.margin_s == pytest.approx(0.25, rel=0.01)
    for _ in range(50):
        admission.observe_late(0.021, 0.010)
    decide(admission, now_s=30.0)
    assert admission.margin_s < 0.01


def test_an_idle_worker_never_refuses_for_lateness_alone() -> None:
    admission = busy()
    for _ in range(100):
        admission.observe_late(0.021, 60.0)
    assert isinstance(decide(admission, patience_s=0.050), Accepted)
    assert isinstance(decide(admission, patience_s=0.041), Refused), "but half of the patience is all it may take"


@given(
    queue=st.integers(0, 300),
    more=st.integers(0, 50),
    images=st.integers(1, 40),
    running_s=st.none() | st.floats(-1, 1),
    limit=st.integers(1, 64),
    patience_s=st.floats(-1, 5),
    less_s=st.floats(0, 5),
    lateness_s=st.floats(0, 2),
    fixed_s=st.floats(0, 0.1),
    per_image_s=st.floats(0, 0.1),
)
def test_more_work_or_less_patience_never_helps(
    *, queue: int, more: int, images: int, running_s: float | None, limit: int, patience_s: float, less_s: float,
    lateness_s: float, fixed_s: float, per_image_s: float,
) -> None:  # fmt: skip
    def accepted(queue: int, patience_s: float) -> bool:
        admission = busy()
        admission.observe_late(0.0, lateness_s)
        fit = Fit(fixed=fixed_s, per_image=per_image_s)
        verdict = decide(
            admission, queue=queue, images=images, running_until_s=running_s, limit=limit, patience_s=patience_s, fit=fit
        )
        if isinstance(verdict, Refused):
            assert verdict.status == (504 if patience_s <= 0 else 429)
            assert 1 <= verdict.retry_after_s <= 60
        else:
            assert queue + images <= 256
            assert verdict.predicted_s is not None
            assert verdict.predicted_s <= patience_s
        return isinstance(verdict, Accepted)

    before = accepted(queue, patience_s)
    assert before or not accepted(queue + more, patience_s)
    assert before or not accepted(queue, patience_s - less_s)


def test_more_images_than_may_ever_wait_are_told_so() -> None:
    verdict = decide(Admission(8), images=9)
    assert verdict == Refused(413, None, "9 images in one request; at most 8 may wait here", "too_many_images")


@pytest.mark.parametrize(
    ("queue", "patience_s", "line", "drop_oldest", "displaces"),
    [
        (256, 10.0, Waiting(), False, None),
        (256, 10.0, Waiting(may_go=2), False, 2),
        (255, 10.0, Waiting(may_go=2), False, 1),
        (256, 10.0, Waiting(may_go=1), False, None),
        (256, 10.0, Waiting(oldest=2), False, None),
        (256, 10.0, Waiting(oldest=2), True, 2),
        (200, 0.2, Waiting(), False, None),  # 380 ms of work are ahead
        (200, 0.2, Waiting(ahead=40), False, 0),  # of which it waits for 122 ms in its source's turn
        (256, 0.2, Waiting(ahead=40, may_go=2), False, 2),
        (256, 0.2, Waiting(ahead=40), False, None),
        (66, 0.159, Waiting(oldest=2), False, None),  # with 66 before it too late, with 64 in time
        (66, 0.159, Waiting(oldest=2), True, 2),
        (66, 0.159, Waiting(oldest=1), True, None),
        (200, 0.2, Waiting(oldest=200), True, None),  # two places would not help
    ],
)
def test_a_full_queue_keeps_no_source_from_its_share(
    *, queue: int, patience_s: float, line: Waiting, drop_oldest: bool, displaces: int | None
) -> None:
    admission = Admission(256, drop_oldest=drop_oldest)
    assert isinstance(decide(admission), Accepted)
    verdict = decide(admission, queue=queue, images=2, patience_s=patience_s, line=line)
    if displaces is None:
        assert isinstance(verdict, Refused)
        assert verdict.status == 429
    else:
        assert isinstance(verdict, Accepted)
        assert verdict.displaces == displaces


def test_a_newcomer_does_not_make_a_batch_late_for_those_it_joins() -> None:
    admission = busy()
    running = {"running_until_s": 0.030}
    assert isinstance(decide(admission, patience_s=0.066, **running), Accepted)  # alone it ends after 51 ms
    assert isinstance(decide(admission, patience_s=0.200, queue=1, images=1, **running), Accepted)
    late = decide(admission, patience_s=10.0, queue=2, images=20, **running)
    assert isinstance(late, Refused), "73 ms would do for the newcomers, not for the first"
    admission.started()
    assert isinstance(decide(admission, patience_s=10.0, queue=2, images=20, **running), Accepted), "it runs by now"
    assert isinstance(decide(admission, patience_s=10.0, queue=32, images=20, **running), Accepted), "the next batch is another"


# --- with the batcher, at three times the capacity


@dataclass
class Worker:
    """Admission, batcher and learned speed around an engine of 20 ms + 1 ms an image, played in simulated time."""

    generator: random.Random
    patience_s: float
    slow_s: float
    """Mean of what an answer takes beyond its batch: decoding, threads, the way back."""
    queue_length: int = 256

    def play(self, rate_per_s: float, until_s: float, count_from_s: float) -> Counter[str]:
        """Poisson arrivals; how each that came after `count_from_s` ended, as its client sees it."""
        admission, batcher = Admission(self.queue_length), Batcher(BatchRules())
        speed = SpeedModel((size, FIT.at(size)) for size in (1, 8, 32))
        ends: Counter[str] = Counter()
        promised: dict[int, float | None] = {}
        answers: list[tuple[float, float, float | None]] = []
        free_s, now_s = 0.0, 0.0
        while now_s < until_s:
            now_s += self.generator.expovariate(rate_per_s)
            while answers and answers[0][0] <= now_s:
                answered_s, arrived_s, predicted_s = heapq.heappop(answers)
                if predicted_s is not None:
                    admission.observe_late(predicted_s, answered_s - arrived_s)
            while free_s <= now_s and batcher.waiting:
                turn = batcher.turn(free_s, 32, speed.seconds)
                ends["expired"] += sum(one.arrived_s >= count_from_s for one in turn.dropped)
                if turn.batch:
                    seconds = FIT.at(len(turn.batch)) * self.generator.uniform(0.97, 1.06)
                    free_s += seconds
                    speed.observe(len(turn.batch), seconds)
                for one in turn.batch:
                    answered_s = free_s + self.generator.gammavariate(2, self.slow_s / 2)
                    heapq.heappush(answers, (answered_s, one.arrived_s, promised.pop(id(one))))
                    if one.arrived_s >= count_from_s:
                        ends["in time" if answered_s <= one.deadline_s else "late"] += 1
            verdict = admission.decide(
                now_s, images=1, deadline_s=now_s + self.patience_s, queue_images=batcher.waiting,
                running_until_s=free_s if free_s > now_s else None, limit=32, fit=speed.fit,
            )  # fmt: skip
            if isinstance(verdict, Refused):
                ends["refused"] += now_s >= count_from_s
                continue
            free_s = max(free_s, now_s) if not batcher.waiting else free_s
            one = Image(
                ShapeKey(1, 1), np.zeros((1, 1, 3), np.uint8), Geometry(1, 1, 1.0, 0, 0), Thresholds(), now_s,
                now_s + self.patience_s, lambda _: None,
            )  # fmt: skip
            promised[id(one)] = verdict.predicted_s
            batcher.offer(one, now_s)
        return ends


CAPACITY_PER_S = 32 / FIT.at(32)


@pytest.mark.parametrize(
    ("patience_s", "slow_s"), [(0.250, 0.001), (0.250, 0.040), (0.500, 0.001), (0.500, 0.040), (0.500, 0.100), (2.0, 0.100)]
)
def test_useful_throughput_at_three_times_the_capacity(slow_s: float, patience_s: float) -> None:
    worker = Worker(random.Random(7), patience_s=patience_s, slow_s=slow_s)
    ends = worker.play(3 * CAPACITY_PER_S, until_s=12.0, count_from_s=2.0)
    useful = ends["in time"] / 10.0 / CAPACITY_PER_S
    assert useful >= 0.87, ends
    assert ends["late"] + ends["expired"] <= 0.1 * ends["in time"], ends


def test_below_capacity_nothing_is_refused() -> None:
    ends = Worker(random.Random(7), patience_s=0.5, slow_s=0.010).play(0.7 * CAPACITY_PER_S, until_s=10.0, count_from_s=0.0)
    assert ends["in time"] >= 0.99 * ends.total(), ends
    assert ends["refused"] <= 0.005 * ends.total(), ends


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31), st.floats(0.2, 1.0), st.floats(0.5, 6.0))
def test_it_never_collapses(seed: int, patience_s: float, load: float) -> None:
    ends = Worker(random.Random(seed), patience_s=patience_s, slow_s=0.020).play(
        load * CAPACITY_PER_S, until_s=4.0, count_from_s=1.0
    )
    assert ends["in time"] / 3.0 >= 0.8 * min(load, 1.0) * CAPACITY_PER_S, ends
