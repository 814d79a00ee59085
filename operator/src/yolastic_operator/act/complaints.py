"""Logs what fails once, not once a turn: an outage of an hour is two lines."""

import logging

from yolastic_operator.model import Ref

_LOG = logging.getLogger(__name__)


class Complaints:
    """Steps that fail at present, each with its last complaint."""

    def __init__(self, ref: Ref) -> None:
        self._ref = ref
        self._open: dict[str, str] = {}

    def add(self, step: str, why: object) -> None:
        """The step failed; told in the log when it did not before, or failed otherwise."""
        if self._open.get(step) != str(why):
            self._open[step] = str(why)
            _LOG.warning("%s: %s: %s", self._ref, step, why)

    def clear(self, step: str) -> None:
        """The step worked; told in the log when it failed before."""
        if self._open.pop(step, None) is not None:
            _LOG.info("%s: %s works again", self._ref, step)
