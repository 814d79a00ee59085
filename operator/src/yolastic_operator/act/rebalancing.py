"""Who lets go of keep-alive connections because workers joined, and for how long that is tried. Pure."""

from collections.abc import Collection
from typing import Final

from yolastic_contract.state import WorkerState
from yolastic_operator.model import Fresh, Observation, Reading, Worker
from yolastic_operator.policy.workers import is_serving

TRIED_FOR_S: Final = 60.0
"""A worker that could not be told is told again for so long, seconds; one that cannot be reached for longer has other worries."""
NEW_FOR_S: Final = 60.0
"""After a restart of the operator, workers that became ready less than this ago count as new, seconds: who was told of them, and
whether twice, nobody knows."""


class Rebalancing:
    """Remembers who serves, and who has not been told yet of those that joined.

    The others are told at once, and all of them again when every client has heard of the new ones: a connection made anew before
    that goes to an old worker. The second time the new ones are told too: if only the old gave up theirs, they would end up with
    too many.
    """

    def __init__(self, propagation_delay_s: float) -> None:
        """`propagation_delay_s`: until all clients have heard of a worker that became ready, seconds."""
        self._propagation_delay_s = propagation_delay_s
        self._serving: frozenset[str] | None = None
        self._untold: dict[str, float] = {}
        """Until when each is tried."""
        self._again_s: float | None = None

    @property
    def waits(self) -> bool:
        """The second time is still to come."""
        return self._again_s is not None

    def due(
        self, observation: Observation, leaving: Collection[str], *, counted: int, now_s: float, wall_s: float
    ) -> tuple[Worker, ...]:
        """Workers to tell in this turn, those that could not be told before among them.

        Args:
            observation: the turn's.
            leaving: workers that were asked to drain.
            counted: workers that served when the status was last folded; asked at the first turn alone.
            now_s: seconds of a clock that is never set.
            wall_s: Unix time.
        """
        views = {view.worker.name: view for view in observation.workers if is_serving(view)}
        before, self._serving = self._serving, frozenset(views)
        told: frozenset[str] = frozenset()
        if before is None:
            # Who of them came while nobody looked does not matter: all are told, unless there is but one.
            unseen = len(views) > counted or any(_is_new(view.state, wall_s) for view in views.values())
            told = self._serving if unseen and len(views) > 1 else told
            self._again_s = self._second_s(told, now_s)
        elif self._serving - before:
            told = self._serving & before
            self._again_s = self._second_s(told, now_s)
        elif self._again_s is not None and now_s >= self._again_s:
            told, self._again_s = self._serving, None
        untold = self._untold | dict.fromkeys(told, now_s + TRIED_FOR_S)
        staying = self._serving.difference(leaving)
        self._untold = {name: until_s for name, until_s in untold.items() if name in staying and now_s < until_s}
        return tuple(views[name].worker for name in sorted(self._untold))

    def told(self, worker: Worker) -> None:
        """It took it."""
        self._untold.pop(worker.name, None)

    def _second_s(self, told: Collection[str], now_s: float) -> float | None:
        return now_s + self._propagation_delay_s if told and self._propagation_delay_s else None


def _is_new(state: Reading[WorkerState], wall_s: float) -> bool:
    if not isinstance(state, Fresh) or state.value.ready_after_s is None:
        return False
    # Either way: the clocks of two nodes are not quite the same.
    return abs(wall_s - state.value.started_s - state.value.ready_after_s) < NEW_FOR_S
