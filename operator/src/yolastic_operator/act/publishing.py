"""The status of one inference as it is written, and the events about it: when a write is worth it, what is still untold."""

import math
from dataclasses import dataclass
from typing import Final

from yolastic_contract.inference_status import InferenceStatus
from yolastic_operator.act import events, news
from yolastic_operator.act import status as folding
from yolastic_operator.act.complaints import Complaints
from yolastic_operator.cluster.base import Cluster, ClusterError, Event
from yolastic_operator.model import Ref

MOST_UNTOLD: Final = 20
"""Events that wait to be posted; of more the oldest are let go."""
COUNTED_S: Final = 60.0
"""After a restart demand is counted anew for half a minute: that something is not known is told when it stays so for so long."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a status is written in which only numbers moved, seconds."""

    numbers_s: float
    """Where they are shown."""
    ages_s: float
    """Where they are ages, or noise in the explanation; infinite: that is never written."""


class Publishing:
    """Writes statuses and posts what happened from one to the next."""

    def __init__(self, cluster: Cluster, ref: Ref, complaints: Complaints, pace: Pace) -> None:
        self._cluster = cluster
        self._ref = ref
        self._complaints = complaints
        self._pace = pace
        self._written_s: float | None = None
        self._less_s: float | None = None
        """Since when less is known than what was written tells."""
        self._untold: tuple[Event, ...] = ()
        """Events that are still to be posted, oldest first."""
        self.last: InferenceStatus | None = None
        """As it was to be published last; None before the first turn."""
        self.written = InferenceStatus()
        """As written last: events are the way from here to the next."""

    def found(self, status: InferenceStatus) -> None:
        """This is what the object has, from an operator before."""
        self.last = self.written = status

    async def publish(self, status: InferenceStatus, now_s: float) -> None:
        """Write the status if it is worth it, and post the events that are to be told; `now_s` of a clock that is never set."""
        last, self.last = self.last, status
        if self._is_news(last, status, now_s):
            await self._write(status, now_s)
        await self._post()

    def _is_news(self, last: InferenceStatus | None, status: InferenceStatus, now_s: float) -> bool:
        since_s = math.inf if self._written_s is None else now_s - self._written_s
        if since_s <= self._pace.ages_s and news.same_but_for_explanation(status, self.written):
            # Other words that come to the same are told once they have held for a turn: a gust is gone by then.
            passing = last is not None and not news.same_explanation(status, last)
            if passing or (self._tells_the_same(status, now_s) and news.same_load(status, self.written)):
                return False
        return since_s >= self._pace.numbers_s or not news.same_but_for_numbers(status, self.written)

    def _tells_the_same(self, status: InferenceStatus, now_s: float) -> bool:
        same = news.same_explanation(status, self.written)
        if same or not news.knows_less(status, self.written):
            self._less_s = None
            return same
        self._less_s = now_s if self._less_s is None else self._less_s
        return now_s - self._less_s < COUNTED_S

    async def _write(self, status: InferenceStatus, now_s: float) -> None:
        try:
            await self._cluster.write_status(self._ref, folding.render(status))
        except ClusterError as error:
            self._complaints.add("status", error)
            return
        self._complaints.clear("status")
        self._untold = (*self._untold, *events.between(self.written, status))[-MOST_UNTOLD:]
        self.written, self._written_s = status, now_s

    async def _post(self) -> None:
        """Oldest first; from one that fails on they wait for the next turn, and one that is refused is let go."""
        while self._untold:
            try:
                await self._cluster.post_event(self._ref, self._untold[0])
                self._complaints.clear("event")
            except ClusterError as error:
                self._complaints.add("event", error)
                if not error.in_vain:
                    return
            self._untold = self._untold[1:]
