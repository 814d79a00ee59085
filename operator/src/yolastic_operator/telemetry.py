"""What a loop reports about itself: a hook for metrics, so that the loop knows no metrics library."""

from collections.abc import Mapping
from typing import Protocol

from yolastic_operator.model import Ref, Source


class Telemetry(Protocol):
    """Receives the figures of one turn; each call must return at once and must not raise."""

    def turn(self, ref: Ref, seconds: float) -> None:
        """Length of a turn."""

    def sizes(self, ref: Ref, desired: int, ready: int) -> None:
        """Workers wanted and ready."""

    def recommended(self, ref: Ref, replicas: int) -> None:
        """Workers the decision comes to, whether or not the mode lets it be carried out."""

    def ceiling(self, ref: Ref, bounds: Mapping[str, int]) -> None:
        """Granted ceiling (`effective`) and the bounds that are known: `spec` `memory` `latency` `efficiency` `lease`, images."""

    def decision(self, ref: Ref, reason: str) -> None:
        """A change of size or ceiling was made."""

    def observation_age(self, ref: Ref, source: Source, age_s: float | None) -> None:
        """Age of the newest sample there is: infinite when a source that should tell does not, None when nobody serves."""


class NoTelemetry:
    """Forgets everything."""

    def turn(self, ref: Ref, seconds: float) -> None:
        """Forget it."""

    def sizes(self, ref: Ref, desired: int, ready: int) -> None:
        """Forget it."""

    def recommended(self, ref: Ref, replicas: int) -> None:
        """Forget it."""

    def ceiling(self, ref: Ref, bounds: Mapping[str, int]) -> None:
        """Forget it."""

    def decision(self, ref: Ref, reason: str) -> None:
        """Forget it."""

    def observation_age(self, ref: Ref, source: Source, age_s: float | None) -> None:
        """Forget it."""
