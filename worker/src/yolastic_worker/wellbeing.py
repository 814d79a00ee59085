"""A worker's own state of health: the batch it has memory for, its canary, its quarantine. Pure; the clock is passed in."""

from collections.abc import Sequence

from yolastic_contract.state import Fit, HealthState
from yolastic_worker.quarantine import Quarantine
from yolastic_worker.recovery import MemoryCap
from yolastic_worker.upkeep import Chore, Upkeep


class Wellbeing:
    """Cap, chores, quarantine and memory in use, in one place; not thread-safe but for the quarantine's questions."""

    def __init__(self, buckets: Sequence[int], now_s: float, *, canary: bool, fit: Fit | None, peak_bytes: int | None) -> None:
        """`buckets`: warm batch sizes; `fit`: bytes a batch takes; `peak_bytes`: the most that warm-up took."""
        self.cap = MemoryCap(buckets)
        self.upkeep = Upkeep(now_s, canary=canary)
        self.quarantine = Quarantine()
        self.used_bytes: int | None = None
        """At the last look."""
        self.peak_bytes = peak_bytes
        self._fit = fit
        self._budget_bytes: int | None = None

    def next_chore(self, now_s: float, *, idle: bool) -> Chore | None:
        """The chore to do before the next batch."""
        return self.upkeep.next(now_s, idle=idle, trial_at_s=self.cap.trial_at_s)

    def wake_s(self) -> float:
        """When an idle engine has a chore again; infinite when it has none."""
        return self.upkeep.wake_s(self.cap.trial_at_s)

    def trial(self, now_s: float) -> int | None:
        """The batch size to try; not beyond the budget, which is somebody else's memory by now. Either way the next one waits."""
        images = self.cap.trial(now_s)
        self.cap.postpone(now_s)
        budget_bytes, fit = self._budget_bytes, self._fit
        beyond = images is not None and budget_bytes is not None and fit is not None and fit.at(images) > budget_bytes
        return None if beyond else images

    def budget(self, budget_bytes: int | None) -> None:
        """What was granted: a budget smaller than the last one, at first than what is in use, has memory given back."""
        before = self.used_bytes if self._budget_bytes is None else self._budget_bytes
        if budget_bytes is not None and before is not None and budget_bytes < before:
            self.upkeep.want_shrink()
        self._budget_bytes = budget_bytes

    def looked(self, used_bytes: int | None) -> None:
        """Memory in use."""
        self.used_bytes = used_bytes
        self.peak_bytes = max(filter(None, (self.peak_bytes, used_bytes)), default=None)

    def state(self, now_s: float) -> HealthState:
        """For `/state`."""
        lowered, sang_s = self.cap.lowered, self.upkeep.canary_s
        return HealthState(
            out_of_memory_cap=self.cap.limit if lowered else None,
            next_trial_s=max(0.0, self.cap.trial_at_s - now_s) if lowered else None,
            quarantined_images=self.quarantine.held(now_s),
            canary_age_s=None if sang_s is None else max(0.0, now_s - sang_s),
        )
