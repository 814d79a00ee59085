"""Where a worker is in its life: Starting -> Ready -> Draining, or Failed. Read by every thread, written under one lock."""

import threading
import time
import uuid
from dataclasses import dataclass, field
from enum import IntEnum

from yolastic_contract.state import Phase


class ExitCode(IntEnum):
    """What the end of a worker means."""

    DRAINED = 0
    INTERNAL = 1
    CONFIGURATION = 2
    DEVICE_LOST = 3


@dataclass(slots=True)
class Lifecycle:
    """The phase, and since when."""

    worker_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started_unix_s: float = field(default_factory=time.time)
    phase: Phase = "Starting"
    message: str = "loading the model"
    ready_after_s: float | None = None
    draining_since_s: float | None = None
    """Monotonic."""
    heartbeat_s: float = field(default_factory=time.monotonic)
    """Monotonic: when the event loop of the data port last ran."""
    _started_s: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def waiting(self) -> None:
        """Nothing is loaded yet; still Starting."""
        with self._lock:
            if self.phase == "Starting":
                self.message = "waiting for memory of the shared device"

    def loading(self) -> None:
        """Its memory was granted; still Starting."""
        with self._lock:
            if self.phase == "Starting":
                self.message = "loading the model"

    def warming_up(self) -> None:
        """The model is loaded; still Starting."""
        with self._lock:
            if self.phase == "Starting":
                self.message = "warming up"

    def ready(self) -> bool:
        """Starting -> Ready; False when it is draining or failed already."""
        with self._lock:
            if self.phase != "Starting":
                return False
            self.phase, self.message = "Ready", ""
            self.ready_after_s = time.monotonic() - self._started_s
            return True

    def drain(self) -> bool:
        """-> Draining; False when it already is, or has failed."""
        with self._lock:
            if self.phase in ("Draining", "Failed"):
                return False
            self.phase, self.message = "Draining", "finishing what was accepted"
            self.draining_since_s = time.monotonic()
            return True

    def fail(self, message: str) -> None:
        """-> Failed, for good."""
        with self._lock:
            self.phase, self.message = "Failed", message
