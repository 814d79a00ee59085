"""When each loop last ended a turn, for the liveness probe. Pure but for the clock it is given."""

from collections.abc import Callable


class Heartbeat:
    """Times by the name of a loop; `clock` in seconds, monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._beats: dict[str, float] = {}

    def beat(self, name: str) -> None:
        """The loop lives."""
        self._beats[name] = self._clock()

    def end(self, name: str) -> None:
        """The loop ended as it should."""
        self._beats.pop(name, None)

    def late(self, after_s: float) -> list[str]:
        """Loops whose last beat is longer ago."""
        now_s = self._clock()
        return sorted(name for name, beat_s in self._beats.items() if now_s - beat_s > after_s)
