"""Log lines as text or JSON, with fields; and a hand on the tap, so that abuse cannot fill a disk with them.

What is secret never gets here: no header, body, query string or key is ever a field, and what a client chose is only its
request id, of harmless characters.
"""

import json
import logging
import time
from collections.abc import Hashable, Mapping
from typing import Any, Final

_LINES_PER_S: Final = 1.0
_BURST: Final = 5.0
_QUIET_LIBRARIES: Final = ("python_multipart", "uvicorn", "asyncio")
"""They log what clients send, line by line; what matters of it is answered and logged here."""


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, logger, message, the fields."""
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage(), **_fields(record),
        }  # fmt: skip
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class TextFormatter(logging.Formatter):
    """One line for people, the fields behind it as key=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """The line, then its fields."""
        return " ".join([super().formatMessage(record), *(f"{key}={value}" for key, value in _fields(record).items())])


def set_up(kind: str) -> None:
    """Log to stderr; `kind` is text or json."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if kind == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in _QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)


class Tap:
    """Lets so many lines of one kind through, and counts the rest: a burst of 5, then one a second."""

    def __init__(self, per_s: float = _LINES_PER_S, burst: float = _BURST) -> None:
        self._per_s, self._burst = per_s, burst
        self._kinds: dict[Hashable, tuple[float, float, int]] = {}

    def open(self, kind: Hashable, now_s: float) -> int | None:
        """None: say nothing. Else how many lines of this kind were held back since the last; kinds must be few."""
        tokens, last_s, held_back = self._kinds.get(kind, (self._burst, now_s, 0))
        tokens = min(self._burst, tokens + (now_s - last_s) * self._per_s)
        if tokens < 1:
            self._kinds[kind] = (tokens, now_s, held_back + 1)
            return None
        self._kinds[kind] = (tokens - 1, now_s, 0)
        return held_back
