"""Why a worker could not start, or had to end: the one line that travels from its exit to a condition."""

import re
from typing import Final

REASONS: Final = (
    "DownloadFailed", "ModelNotFound", "ModelUnreadable", "ChecksumMismatch", "UnsupportedModel", "FixedBatch", "DoesNotFit",
    "DeviceUnavailable", "ApiKeysMissing", "CredentialsMissing", "BadConfiguration", "DeviceLost",
)  # fmt: skip
"""Exit code 2 reasons, and the one of exit code 3; each becomes the reason of a condition."""

_LINE = re.compile(rf"^({'|'.join(REASONS)}): (.+)$", re.MULTILINE)


def render_failure(reason: str, message: str) -> str:
    """The line a worker writes to stderr and to its termination log.

    Raises:
        ValueError: the reason is not one of `REASONS`.
    """
    if reason not in REASONS:
        raise ValueError(f"{reason} is not one of {', '.join(REASONS)}")
    return f"{reason}: {' '.join(message.split())}"


def parse_failure(text: str) -> tuple[str, str] | None:
    """(reason, message) from a termination message, or None when it holds no such line."""
    found = _LINE.findall(text)
    return found[-1] if found else None
