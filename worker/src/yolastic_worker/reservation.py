"""The start on a shared device: what this worker will need, and the grant that it waits for before it takes any of its memory.

A worker that warmed up unasked could take what was lent to another. Only the operator knows what is free.
"""

import logging
import threading
from dataclasses import dataclass

from yolastic_contract.state import CeilingGrant, CeilingState, Fit
from yolastic_worker.memory.planner import NotPlannable, plan_in_child
from yolastic_worker.memory.probe import device_memory
from yolastic_worker.settings import ServeSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Needs:
    """What is known before anything runs."""

    device: str
    device_id: str
    """UUID of the physical device."""
    device_bytes: int | None
    """All of its memory."""
    plan: Fit | None
    """Bytes at the peak of a batch; None when they are not known."""


class Reservation:
    """Between a worker that starts and the operator; any thread."""

    def __init__(self, needs: Needs) -> None:
        self.needs = needs
        self._granted = threading.Condition()
        self._grant: CeilingGrant | None = None

    def grant(self, grant: CeilingGrant) -> bool:
        """The first grant opens; False for another one: what warms up cannot change its mind."""
        with self._granted:
            if self._grant is not None:
                return self._grant == grant
            self._grant = grant
            self._granted.notify_all()
            return True

    def wait(self) -> CeilingGrant:
        """Until it is granted, however long that takes: a worker that goes on without a grant takes what is somebody else's."""
        with self._granted:
            while self._grant is None:
                self._granted.wait()
            return self._grant

    @property
    def waits(self) -> bool:
        """Nothing was granted yet."""
        return self._grant is None

    def ceiling(self, max_batch: int) -> CeilingState:
        """For `/state`, before there is a pipeline; `max_batch`: the worker's own start value, images."""
        grant = self._grant
        if grant is None:
            return CeilingState(base=max_batch, ceiling=max_batch, effective=max_batch, burst=False, granted=False)
        return CeilingState(
            base=grant.base, ceiling=grant.ceiling, effective=grant.ceiling, burst=False, granted=True,
            budget_bytes=grant.budget_bytes, reachable=grant.reachable, wanted=grant.wanted, serial=grant.serial,
        )  # fmt: skip


def needs_of(settings: ServeSettings) -> Needs | None:
    """What a worker on a shared device needs; None where there is no device to share, or nobody who could grant."""
    if not settings.shared or settings.control_token_file is None:
        return None
    if settings.backend == "simulated":
        simulation = settings.simulation
        plan = Fit(fixed=simulation.memory_bytes(0), per_image=simulation.memory_bytes(1) - simulation.memory_bytes(0))
        return Needs("simulated", simulation.device, simulation.limit_bytes(), plan)
    if settings.device == "cpu":
        return None  # its memory is the host's, and the container's limit keeps it
    memory, unread = device_memory()
    if memory is None:
        logger.warning("the device cannot be told from others: %s; its memory is not shared out", unread)
        return None
    return Needs(settings.device, memory.device_id, memory.read().limit_bytes, _planned(settings))


def _planned(settings: ServeSettings) -> Fit | None:
    if settings.model is None:
        return None
    try:
        return plan_in_child(
            settings.model, device=settings.device, input_size=settings.input_size, max_batch=settings.max_batch
        ).fit
    except (NotPlannable, OSError) as reason:
        logger.info("memory is not planned: %s", reason)
        return None
