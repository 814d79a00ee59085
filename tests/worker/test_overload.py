"""Admission, queue, tiers and learned speed together, on a fake clock, with clients that behave as clients do."""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolastic_contract.state import Fit
from yolastic_worker.admission import Accepted, Admission
from yolastic_worker.batcher import Batcher, BatchRules, Window
from yolastic_worker.speed import SpeedModel
from yolastic_worker.tiers import TierController
from yolastic_worker.types import Geometry, Image, Outcome, ShapeKey, Thresholds

FIT = Fit(fixed=0.020, per_image=0.001)
KEY = ShapeKey(1, 1)
CAPACITY_PER_S = 32 / FIT.at(32)
PIXELS = np.zeros((1, 1, 3), np.uint8)


@dataclass
class Clock:
    """Events in order of time."""

    now_s: float = 0.0
    events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    numbers: Any = field(default_factory=count)

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now_s + max(0.0, seconds), next(self.numbers), act))

    def run(self, until_s: float) -> None:
        while self.events and self.events[0][0] <= until_s:
            self.now_s, _, act = heapq.heappop(self.events)
            act()
        self.now_s = until_s


@dataclass(slots=True, eq=False)
class Sent(Image):
    predicted_s: float | None = None
    told: Callable[[int], None] = lambda code: None
    ends: int = 0


@dataclass
class Worker:
    """The order of calls is the pipeline's; the engine takes `true` seconds, decoding `decode_s`, the way back `back_s`."""

    clock: Clock
    rules: BatchRules = field(default_factory=BatchRules)
    queue_length: int = 256
    drop_oldest: bool = False
    base: int = 32
    ceiling: int = 32
    true: Callable[[int], float] = FIT.at
    decode_s: Callable[[], float] = lambda: 0.002
    back_s: Callable[[], float] = lambda: 0.002
    seed: tuple[int, ...] = (1, 8, 32)

    def __post_init__(self) -> None:
        self.admission = Admission(self.queue_length, drop_oldest=self.drop_oldest)
        self.batcher = Batcher(self.rules)
        self.tiers = TierController(self.base, self.ceiling)
        self.speed = SpeedModel((size, FIT.at(size)) for size in self.seed)
        self.running: tuple[Image, ...] = ()
        self.running_until_s: float | None = None
        self.verdicts: Counter[str] = Counter()
        self.outcomes: Counter[Outcome] = Counter()
        self.answers: Counter[int] = Counter()
        self.accepted: list[Sent] = []
        self.sizes: list[int] = []
        self.idle_waits_s: list[float] = []

    def arrive(
        self, patience_s: float, told: Callable[[int], None], *, source: str = "", silent: bool = False,
        key: ShapeKey = KEY, images: int = 1,
    ) -> list[Sent]:  # fmt: skip
        now_s = self.clock.now_s
        verdict = self.admission.decide(
            now_s, images=images, deadline_s=now_s + patience_s, queue_images=self.batcher.held,
            running_until_s=self.running_until_s, limit=self.tiers.ceiling, fit=self.speed.fit, source=source, line=self.batcher,
        )  # fmt: skip
        self.verdicts["accepted" if isinstance(verdict, Accepted) else str(verdict.status)] += images
        if not isinstance(verdict, Accepted):
            told(verdict.status)
            return []
        if verdict.displaces:
            out = self.batcher.displace(source, verdict.displaces, drop_oldest=self.drop_oldest)
            assert len(out) == verdict.displaces
            self.finish(out)
        self.batcher.expect(source, images)
        assert self.batcher.held <= self.queue_length
        sent = [
            Sent(
                key, PIXELS, Geometry(1, 1, 1.0, 0, 0), Thresholds(), now_s, now_s + patience_s, lambda _: None, source, silent,
                predicted_s=verdict.predicted_s, told=told,
            )
            for _ in range(images)
        ]  # fmt: skip
        self.accepted += sent
        for image in sent:
            self.clock.after(self.decode_s(), lambda image=image: self.offer(image))  # type: ignore[misc]
        return sent

    def offer(self, image: Sent) -> None:
        if image.cancelled:
            image.outcome = Outcome.CANCELLED
            self.batcher.give_up(image.source)
            self.finish((image,))
            return
        self.batcher.offer(image, self.clock.now_s)
        self.take()

    def leave(self, image: Sent) -> None:
        if self.batcher.leave(image, self.clock.now_s):
            self.finish((image,))

    def take(self) -> None:
        now_s = self.clock.now_s
        while not self.running:
            limit = self.tiers.update(now_s, self.batcher.waiting)
            turn = self.batcher.turn(now_s, limit, self.speed.seconds)
            self.finish(turn.dropped)
            if turn.batch:
                assert len(turn.batch) <= limit <= self.ceiling
                self.sizes.append(len(turn.batch))
                self.start(turn.batch)
            elif turn.wait_until_s is not None:
                assert turn.wait_until_s > now_s
                self.clock.after(turn.wait_until_s - now_s, self.take)
                return
            elif not turn.dropped:
                assert not self.batcher.waiting
                return

    def start(self, batch: tuple[Image, ...]) -> None:
        now_s, seconds = self.clock.now_s, self.true(len(batch))
        self.idle_waits_s += [now_s - max(image.queued_s, self.ended_s) for image in batch]
        self.admission.started()
        for image in batch:
            image.started_s = now_s
        expected_s = self.speed.seconds(len(batch))
        self.running, self.running_until_s = batch, None if expected_s is None else now_s + expected_s
        self.clock.after(seconds, lambda: self.end(batch, seconds))

    ended_s = 0.0

    def end(self, batch: tuple[Image, ...], seconds: float) -> None:
        self.running, self.running_until_s, self.ended_s = (), None, self.clock.now_s
        self.speed.observe(len(batch), seconds)
        for image in batch:
            image.outcome = Outcome.OK
        self.finish(batch)
        self.take()

    def finish(self, images: tuple[Image, ...]) -> None:
        for image in images:
            assert isinstance(image, Sent)
            assert image.outcome is not None
            image.ends += 1
            self.outcomes[image.outcome] += 1
            code = {Outcome.OK: 200, Outcome.EXPIRED: 504, Outcome.CANCELLED: 0}.get(image.outcome, 429)
            self.clock.after(self.back_s(), lambda image=image, code=code: self.answer(image, code))  # type: ignore[misc]

    def answer(self, image: Sent, code: int) -> None:
        if image.predicted_s is not None and not image.cancelled:
            self.admission.observe_late(image.predicted_s, self.clock.now_s - image.arrived_s)
        if not image.cancelled:
            self.answers[code] += 1
            image.told(code)


@dataclass
class Crowd:
    """Clients in a closed loop, each hanging up after its patience and coming again at once; a refused one pauses."""

    clock: Clock
    worker: Worker
    patience_s: float
    tell: bool
    default_s: float = 10.0
    pause_s: float = 0.050
    source: str = ""
    until_s: float = 10.0
    useful_s: list[float] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)

    def join(self, clients: int) -> None:
        for number in range(clients):
            self.clock.after(number * 0.0005, self.send)

    def send(self) -> None:
        if self.clock.now_s >= self.until_s:
            return
        over = False

        def told(code: int) -> None:
            nonlocal over
            if over:
                return
            over = True
            self.codes[str(code)] += 1
            if code == 200:
                self.useful_s.append(self.clock.now_s)
            self.clock.after(0.0 if code == 200 else self.pause_s, self.send)

        def hang_up() -> None:
            nonlocal over
            if over:
                return
            over = True
            self.codes["gone"] += 1
            for image in images:
                self.worker.leave(image)
            self.clock.after(0.001, self.send)

        images: list[Sent] = []
        images += self.worker.arrive(
            self.patience_s if self.tell else self.default_s, told, silent=not self.tell, source=self.source
        )
        if not over:
            self.clock.after(self.patience_s, hang_up)

    def share(self, from_s: float, to_s: float) -> float:
        return sum(from_s <= at_s < to_s for at_s in self.useful_s) / (to_s - from_s) / CAPACITY_PER_S


def crowded(clients: int, *, tell: bool, slow_s: float, patience_s: float = 0.5, **options: Any) -> tuple[Crowd, Worker]:
    generator, clock = random.Random(7), Clock()
    worker = Worker(
        clock, true=lambda images: FIT.at(images) * generator.uniform(0.98, 1.05),
        decode_s=lambda: generator.gammavariate(2, slow_s / 4), back_s=lambda: generator.gammavariate(2, slow_s / 4), **options,
    )  # fmt: skip
    crowd = Crowd(clock, worker, patience_s, tell)
    crowd.join(clients)
    clock.run(8.0)
    return crowd, worker


# --- crowds


@pytest.mark.parametrize("slow_s", [0.002, 0.050, 0.100])
@pytest.mark.parametrize("tell", [True, False])
def test_a_crowd_gets_nearly_all_the_engine_can_do(slow_s: float, *, tell: bool) -> None:
    """512 clients with 500 ms, at five times the capacity; `slow_s`: on the way in and out of the engine, in all."""
    crowd, worker = crowded(512, tell=tell, slow_s=slow_s)
    assert crowd.share(2.0, 8.0) >= 0.95, crowd.codes
    assert worker.batcher.newest_first == (not tell and slow_s > 0.01), "only when silent clients are seen to hang up"
    if tell:
        assert crowd.codes["gone"] <= 0.02 * crowd.codes["200"], "who tells is refused at once, not kept waiting in vain"


def test_in_order_of_arrival_the_silent_crowd_would_get_a_third(monkeypatch: pytest.MonkeyPatch) -> None:
    """What newest-first is for."""
    monkeypatch.setattr("yolastic_worker.batcher.impatience.Impatience.overloaded", lambda self, now_s: False)
    assert crowded(512, tell=False, slow_s=0.100)[0].share(2.0, 8.0) < 0.5


def test_those_who_tell_and_those_who_do_not_both_get_through() -> None:
    clock = Clock()
    worker = Worker(clock, decode_s=lambda: 0.040, back_s=lambda: 0.040)
    crowds = [Crowd(clock, worker, 0.5, tell) for tell in (True, False)]
    for crowd in crowds:
        crowd.join(256)
    clock.run(8.0)
    told, silent = (crowd.share(2.0, 8.0) for crowd in crowds)
    assert told + silent >= 0.9
    assert min(told, silent) >= 0.2


def test_patient_silent_clients_are_served_in_order() -> None:
    clock = Clock()
    worker = Worker(clock)
    crowd = Crowd(clock, worker, 9.0, tell=False)
    crowd.join(512)
    clock.run(8.0)
    assert crowd.codes["gone"] == 0
    assert not worker.batcher.newest_first
    waits_s = [image.started_s - image.queued_s for image in worker.accepted if image.outcome is Outcome.OK]
    assert max(waits_s) <= 256 / CAPACITY_PER_S + 0.11


@pytest.mark.parametrize("tell", [True, False])
def test_when_a_crowd_leaves_the_next_client_waits_for_one_batch_at_most(*, tell: bool) -> None:
    clock = Clock()
    worker = Worker(clock)
    Crowd(clock, worker, 0.5, tell, until_s=5.0).join(512)
    clock.run(5.0)
    for image in worker.accepted:
        if not image.ends:
            worker.leave(image)
    seen_s: list[float] = []
    worker.arrive(10.0, lambda code: seen_s.append(clock.now_s), silent=True)
    clock.run(6.0)
    assert len(seen_s) == 1
    assert seen_s[0] - 5.0 <= FIT.at(32) + FIT.at(1) + 0.010


@pytest.mark.parametrize(("slow_s", "answered"), [(0.001, 0.65), (0.010, 0.55), (0.020, 0.3)])
def test_bursts_on_a_short_objective(slow_s: float, answered: float) -> None:
    """200/s, and 2,000/s for 2 s of every 5 s; patience 100 ms with batches that take 52 ms when they are full."""
    generator, clock = random.Random(3), Clock()
    way = lambda: generator.gammavariate(2, slow_s / 4)  # noqa: E731
    worker = Worker(clock, true=lambda images: FIT.at(images) * generator.uniform(0.98, 1.05), decode_s=way, back_s=way)
    latencies_s: list[float] = []

    def arrive() -> None:
        sent_s, burst = clock.now_s, clock.now_s % 5 >= 3

        def told(code: int) -> None:
            if burst and code == 200:
                latencies_s.append(clock.now_s - sent_s)

        worker.arrive(0.100, told)
        clock.after(generator.expovariate(2000 if burst else 200), arrive)

    arrive()
    clock.run(20.0)
    in_time = sum(seconds <= 0.100 for seconds in latencies_s)
    assert in_time >= 0.99 * len(latencies_s)
    assert len(latencies_s) >= answered * 8 * CAPACITY_PER_S


# --- a device that changes its pace


@pytest.mark.parametrize("factor", [3, 10, 30, 100])
@pytest.mark.parametrize("clients", [1, 64])
def test_it_heals_when_the_device_is_fast_again(factor: int, clients: int) -> None:
    """Slow for 6 s, at 100 times so slow that nothing can be answered in time; 7 s later all is as it was."""
    clock, pace = Clock(), [1.0]
    worker = Worker(clock, true=lambda images: FIT.at(images) * pace[0])
    crowd = Crowd(clock, worker, 0.5, tell=True, until_s=20.0)
    crowd.join(clients)
    clock.run(2.0)
    pace[0] = factor
    clock.run(8.0)
    pace[0] = 1.0
    clock.run(20.0)
    assert crowd.share(15.0, 20.0) >= 0.95 * min(1.0, clients / (FIT.at(clients) + 0.005) / CAPACITY_PER_S)


# --- sources


@pytest.mark.parametrize("drop_oldest", [False, True])
@pytest.mark.parametrize("patience_s", [0.3, 10.0])
def test_a_camera_that_floods_does_not_keep_the_others_out(patience_s: float, *, drop_oldest: bool) -> None:
    """The flood alone would fill the queue for 416 ms; the quiet ones wait 300 ms."""
    generator, clock = random.Random(5), Clock()
    worker = Worker(clock, drop_oldest=drop_oldest)
    codes: dict[str, Counter[int]] = {"flood": Counter(), "a": Counter(), "b": Counter()}

    def camera(source: str, rate_per_s: float, patience_s: float) -> None:
        sent_s = clock.now_s
        worker.arrive(
            patience_s, lambda code: codes[source].update([code if clock.now_s <= sent_s + patience_s else -1]), source=source
        )
        clock.after(generator.expovariate(rate_per_s), lambda: camera(source, rate_per_s, patience_s))

    camera("flood", 3 * CAPACITY_PER_S, patience_s)
    for quiet in "ab":
        camera(quiet, 25, 0.3)
    clock.run(8.0)
    for quiet in "ab":
        assert codes[quiet][200] >= 0.97 * codes[quiet].total(), codes
    assert sum(code[200] for code in codes.values()) >= 0.9 * 8 * CAPACITY_PER_S, codes


def test_drop_oldest_answers_the_newest_frames() -> None:
    clock = Clock()
    worker = Worker(clock, queue_length=64, drop_oldest=True)
    crowd_s: list[float] = []

    def frame() -> None:
        sent_s = clock.now_s
        worker.arrive(10.0, lambda code: crowd_s.append(clock.now_s - sent_s) if code == 200 else None)
        clock.after(0.5 / CAPACITY_PER_S, frame)

    frame()
    clock.run(5.0)
    assert worker.verdicts["429"] <= 0.01 * len(worker.accepted), "the newcomer always gets in"
    assert worker.outcomes[Outcome.OK] >= 0.95 * 5 * CAPACITY_PER_S
    assert worker.outcomes[Outcome.REJECTED] >= 0.9 * 5 * CAPACITY_PER_S
    assert max(crowd_s) <= 64 / CAPACITY_PER_S + 2 * FIT.at(32), "no answer is older than the queue is long"


# --- always

ARRIVE = st.tuples(
    st.just("arrive"), st.floats(0, 2), st.sampled_from(["", "a", "b"]), st.booleans(), st.integers(1, 2), st.integers(1, 12)
)
STEPS = st.lists(
    st.one_of(
        ARRIVE,
        ARRIVE,
        st.tuples(st.just("wait"), st.floats(0.0, 0.2)),
        st.tuples(st.just("leave"), st.integers(0, 99)),
        st.tuples(st.just("grant"), st.integers(1, 16), st.integers(1, 16)),
        st.tuples(st.just("pace"), st.floats(0.1, 10)),
    ),
    max_size=80,
)
RULES = st.builds(
    BatchRules, window=st.sampled_from(Window), max_delay_s=st.floats(0, 0.1), eager_size=st.integers(1, 8), shared=st.booleans(),
    objective_s=st.none() | st.floats(0.01, 1), pad_to_buckets=st.booleans(), buckets=st.just((1, 2, 4, 8, 16)),
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(rules=RULES, steps=STEPS, queue_length=st.integers(1, 24), drop_oldest=st.booleans(), decode_s=st.floats(0, 0.05))
def test_every_accepted_image_ends_once_and_nothing_is_ever_above_its_bound(
    *, rules: BatchRules, steps: list[Any], queue_length: int, drop_oldest: bool, decode_s: float
) -> None:
    clock, pace, answers = Clock(), [1.0], Counter[int]()
    worker = Worker(
        clock, rules, queue_length, drop_oldest, 8, 16, true=lambda images: FIT.at(images) * pace[0], decode_s=lambda: decode_s
    )
    asked = 0
    for step, *values in steps:
        match step:
            case "arrive":
                patience_s, source, silent, side, images = values
                asked += images
                before = len(worker.accepted)
                sent = worker.arrive(
                    patience_s,
                    lambda code: answers.update([code]),
                    source=source,
                    silent=silent,
                    key=ShapeKey(side, 1),
                    images=images,
                )
                assert len(worker.accepted) - before == len(sent) in (0, images), "a request comes in whole or not at all"
            case "wait":
                clock.run(clock.now_s + values[0])
            case "leave" if worker.accepted:
                image = worker.accepted[values[0] % len(worker.accepted)]
                if not image.ends:
                    worker.leave(image)
            case "grant":
                worker.tiers.grant(*values)
                worker.ceiling = max(16, *values)
            case "pace":
                pace[0] = values[0]
    clock.run(clock.now_s + 100)
    assert [image.ends for image in worker.accepted] == [1] * len(worker.accepted)
    assert worker.outcomes.total() == len(worker.accepted) == worker.verdicts["accepted"]
    assert worker.verdicts.total() == asked
    assert worker.answers.total() == sum(not image.cancelled for image in worker.accepted)
    assert (worker.batcher.held, worker.batcher.waiting, worker.batcher.drain()) == (0, 0, ())
    ran = [image for image in worker.accepted if image.started_s]
    assert all(image.started_s < image.deadline_s for image in ran), "nothing runs after its deadline"
    waits = rules.window is Window.FIXED or rules.shared
    assert max(worker.idle_waits_s, default=0.0) <= (rules.max_delay_s if waits else 0.0) + 1e-9
