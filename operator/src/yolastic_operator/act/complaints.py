"""Logs what fails once, not once a turn: an outage of an hour is two lines."""

import logging
from collections.abc import Container

from yolastic_operator.model import Ref

_LOG = logging.getLogger(__name__)


class Complaints:
    """Steps that fail at present, each with its last complaint; those of a worker end with it."""

    def __init__(self, ref: Ref) -> None:
        self._ref = ref
        self._open: dict[tuple[str, str | None], str] = {}

    def add(self, step: str, why: object, worker: str | None = None) -> None:
        """The step failed; told in the log when it did not before, or failed otherwise."""
        if self._open.get((step, worker)) != str(why):
            self._open[step, worker] = str(why)
            _LOG.warning("%s: %s: %s", self._ref, _name(step, worker), why)

    def clear(self, step: str, worker: str | None = None) -> None:
        """The step worked; told in the log when it failed before."""
        if self._open.pop((step, worker), None) is not None:
            _LOG.info("%s: %s works again", self._ref, _name(step, worker))

    def keep(self, workers: Container[str]) -> None:
        """These are the workers there are: nothing works again with one that is gone, and nothing is said of it any more."""
        self._open = {key: why for key, why in self._open.items() if key[1] is None or key[1] in workers}


def _name(step: str, worker: str | None) -> str:
    return step if worker is None else f"{step} of {worker}"
