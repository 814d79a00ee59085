"""When what the watches showed cannot be the whole truth, a list is due at once instead of at the next resync. No I/O.

A watch that stands still, or that began anew after the server had forgotten its place, may have missed pods that came or went.
Three things give it away: another number of workers than was ordered, a ready worker that does not answer, and a worker that
says it is ready while its pod is not shown so. All three are usual for a moment, and some last (a quota, a hung worker): a list
that told nothing new is repeated ever more rarely, and one that was refused a turn later.
"""

from collections.abc import Callable
from typing import Final

from yolastic_contract.state import WorkerState
from yolastic_operator.model import Fleet, Ref, Worker

FIRST_S: Final = 4.0
"""From the first doubt to a list, seconds: a little less than a turn, so that the second turn knows."""
RETRY_S: Final = 4.0
"""From a list that was refused to the next, seconds: a little less than a turn, whatever quicker turns there are meanwhile."""
LONGEST_S: Final = 600.0
"""Between two lists that told nothing new, at the most, seconds."""


class Doubts:
    """What contradicts the watches, by inference; `clock` in seconds, monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._unheard: dict[Ref, set[str]] = {}
        """Workers of which the last word contradicts what is shown, or that gave none."""
        self._waits: dict[Ref, tuple[float, float]] = {}
        """(since when, how long) the doubt has to last."""
        self._refused: dict[Ref, tuple[float, str]] = {}
        """(when, why) the last list was refused."""

    def asked(self, ref: Ref, worker: Worker) -> None:
        """A worker was asked; unless it answers, being ready is in doubt."""
        if worker.ready:
            self._unheard.setdefault(ref, set()).add(worker.name)

    def answered(self, ref: Ref, worker: Worker, state: WorkerState) -> None:
        """It answered."""
        unheard = self._unheard.setdefault(ref, set())
        if not worker.ready and state.phase == "Ready":
            unheard.add(worker.name)
        else:
            unheard.discard(worker.name)

    def due(self, ref: Ref, known: Fleet) -> bool:
        """Whether to list now instead of believing what is known."""
        if ref in self._unheard:
            self._unheard[ref] &= {worker.name for worker in known.workers}
        if not self._contradicted(ref, known):
            self._waits.pop(ref, None)
            return False
        since_s, wait_s = self._waits.setdefault(ref, (self._clock(), FIRST_S))
        return self._clock() - since_s >= wait_s

    def listed(self, ref: Ref, *, news: bool) -> None:
        """A list was made; whether it told anything new."""
        self._refused.pop(ref, None)
        if ref in self._waits:
            wait_s = FIRST_S if news else min(2 * self._waits[ref][1], LONGEST_S)
            self._waits[ref] = (self._clock(), wait_s)

    def refused(self, ref: Ref, why: str) -> None:
        """A list could not be made."""
        self._refused[ref] = self._clock(), why

    def refusal(self, ref: Ref) -> str:
        """Why the last list could not be made, as long as it is too soon for another; else empty."""
        refused_s, why = self._refused.get(ref, (-RETRY_S, ""))
        return why if self._clock() - refused_s < RETRY_S else ""

    def forget(self, ref: Ref) -> None:
        """The inference is gone."""
        self._refused.pop(ref, None)
        self._unheard.pop(ref, None)
        self._waits.pop(ref, None)

    def _contradicted(self, ref: Ref, known: Fleet) -> bool:
        there = [worker for worker in known.workers if worker.phase != "Terminating"]
        if known.replicas is not None and len(there) != known.replicas:
            return True
        return any(worker.name in self._unheard.get(ref, ()) for worker in there)
