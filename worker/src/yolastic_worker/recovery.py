"""What becomes of a batch that failed, and of the batch size after an out-of-memory. Pure: no engine, no clock, no thread."""

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from enum import Enum, auto
from math import inf
from typing import Final

FIRST_PROBE_S: Final = 60.0
"""So long after an out-of-memory the next larger batch is tried; each failure doubles it."""
SLOWEST_PROBE_S: Final = 3600.0
_CALM_S: Final = 2 * SLOWEST_PROBE_S
"""An out-of-memory after so long a peace is a new story: the waiting begins anew."""
_CULPRITS: Final = 4
"""One image in so many may be what a batch failed of; before more are blamed, the device has to prove itself."""
_VAIN_RUNS: Final = 7
"""The batch, its halves and its quarters: when all of them fail it is in no image."""


class Mishap(Enum):
    """How a run ended that gave no answers while the device lives."""

    OUT_OF_MEMORY = auto()
    TRANSIENT = auto()
    OTHER = auto()


class Verdict(Enum):
    """What becomes of an image of a failed batch."""

    ANSWERED = auto()
    OUT_OF_MEMORY = auto()
    """Alone and still out of memory."""
    CULPRIT = auto()
    """It fails alone, and others do not: it is the image."""
    LEFT = auto()
    """Nobody waits for it any more; it was not run again."""
    FAILED = auto()
    """Everything fails, or what should have passed did not: nobody's fault here."""


class MemoryCap:
    """The largest batch that is let run. An out-of-memory lowers it, a trial run proves the next size before it is used again.

    Trials are due by time alone, ever more rarely while they fail: never in a loop.
    """

    def __init__(self, buckets: Sequence[int]) -> None:
        """`buckets`: warm batch sizes, ascending."""
        self._buckets = tuple(buckets)
        self._limit = self._buckets[-1]
        self._trial_at_s = inf
        self._wait_s = FIRST_PROBE_S
        self._regained = False
        self._last_s = -inf

    @property
    def limit(self) -> int:
        """Images; the largest warm size unless memory ran out."""
        return self._limit

    @property
    def lowered(self) -> bool:
        """Memory ran out, and not all of it is regained."""
        return self._limit < self._buckets[-1]

    @property
    def trial_at_s(self) -> float:
        """When the next trial is due; infinite while none is."""
        return self._trial_at_s

    def out_of_memory(self, now_s: float, images: int) -> int:
        """A batch of so many, padding included, did not fit; the new limit.

        Several in a row, halving, are one story. One after a size was regained, or in a trial, doubles the waiting.
        """
        if now_s - self._last_s > _CALM_S:
            self._wait_s = FIRST_PROBE_S
        elif self._regained or images > self._limit:
            self._wait_s = min(2 * self._wait_s, SLOWEST_PROBE_S)
        self._regained, self._last_s = False, now_s
        if images <= self._limit:
            self._limit = max((bucket for bucket in self._buckets if bucket < images), default=self._buckets[0])
        self._trial_at_s = now_s + self._wait_s if self.lowered else inf
        return self._limit

    def trial(self, now_s: float) -> int | None:
        """The batch size to try now; None while none is due."""
        if now_s < self._trial_at_s:
            return None
        return next((bucket for bucket in self._buckets if bucket > self._limit), None)

    def postpone(self, now_s: float) -> None:
        """The trial that is due may not be run, its memory being granted to somebody else: ask again later."""
        self._trial_at_s = now_s + self._wait_s

    def fitted(self, now_s: float, images: int) -> None:
        """A trial of so many images fitted: they may be used, and the next size is tried after the same waiting."""
        if images > self._limit:
            self._limit, self._regained = images, True
            self._trial_at_s = now_s + self._wait_s if self.lowered else inf


def _itself(index: int) -> Hashable:
    return index


def _halves(part: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    middle = (len(part) + 1) // 2
    return part[:middle], part[middle:]


class Rescue:
    """Which images of a failed batch run again, in which company, until each has its verdict.

    Out of memory: halves, and never more than the limit has become. A failure that passes: the same once more, once a batch. Any
    other: halves, until the image that fails alone is found; when everything fails, it is no image's fault and the search ends.
    Nobody is blamed for one failure: an image that was alone from the start runs once more. Never more than twice as many runs as
    images.
    """

    def __init__(self, images: int, content: Callable[[int], Hashable] = _itself) -> None:
        """`content(index)`: equal for images of the same content; they are one suspect."""
        self._images, self._content = images, content
        self._parts: deque[tuple[int, ...]] = deque([tuple(range(images))])
        """In breadth: what still works shows early, so that two culprits in one half are not taken for everything."""
        self._verdicts: dict[int, Verdict] = {}
        self._suspects: list[int] = []
        self._vain = 0
        self._gave_up = False
        self._retried = False

    def next(self, limit: int) -> tuple[int, ...] | None:
        """Indices to run together now, at most `limit` and at least one; None when all is decided."""
        if not self._parts:
            return None
        part = self._parts.popleft()
        while len(part) > max(1, limit):
            first, second = _halves(part)
            self._parts.appendleft(second)
            part = first
        return part

    def answered(self, part: Sequence[int]) -> None:
        """These ran."""
        self._decide(part, Verdict.ANSWERED)

    def left(self, part: Sequence[int]) -> None:
        """These wait for no answer any more and were not run: nothing is learned from them."""
        self._decide(part, Verdict.LEFT)

    def failed(self, part: tuple[int, ...], mishap: Mishap) -> None:
        """These ran together, without answers."""
        if mishap is Mishap.TRANSIENT and not self._retried:
            self._retried = True
            self._parts.appendleft(part)
        elif mishap is Mishap.TRANSIENT:
            self._decide(part, Verdict.FAILED)
        elif mishap is Mishap.OUT_OF_MEMORY and len(part) == 1:
            self._decide(part, Verdict.OUT_OF_MEMORY)
        else:
            if len(part) > 1:
                self._parts.extend(_halves(part))
            elif self._images == 1 and not self._retried:
                self._retried = True
                self._parts.append(part)
            else:
                self._suspects.extend(part)
            if mishap is Mishap.OTHER:
                self._failed_in_itself()

    @property
    def needs_proof(self) -> bool:
        """Only an image known to be good can tell whose fault it is: nothing of the batch ran, or too many failed alone."""
        return self._vain > 0 and not (self._anything_ran and self._culprits <= max(1, self._images // _CULPRITS))

    def verdicts(self, *, proven: bool) -> dict[int, Verdict]:
        """Of every image, once `next` gives None. `proven`: an image known to be good was answered rightly since.

        Different images that fail while none runs are never culprits, whatever was proven.
        """
        everything = not self._anything_ran and (self._gave_up or self._culprits > 1)
        guilty = not everything and (proven or not self.needs_proof)
        return {**self._verdicts, **dict.fromkeys(self._suspects, Verdict.CULPRIT if guilty else Verdict.FAILED)}

    @property
    def _anything_ran(self) -> bool:
        return Verdict.ANSWERED in self._verdicts.values()

    @property
    def _culprits(self) -> int:
        """Images of different content that failed alone."""
        return len({self._content(index) for index in self._suspects})

    def _decide(self, part: Sequence[int], verdict: Verdict) -> None:
        self._verdicts.update(dict.fromkeys(part, verdict))

    def _failed_in_itself(self) -> None:
        """Give up when enough has failed and nothing has run."""
        self._vain += 1
        if self._vain >= _VAIN_RUNS and not self._anything_ran:
            self._gave_up = True
            for part in self._parts:
                self._decide(part, Verdict.FAILED)
            self._parts.clear()
