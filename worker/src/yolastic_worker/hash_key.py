"""`yolastic-worker hash-key`: makes an API key, or takes one from standard input, and prints the line that lets it in."""

import secrets
import sys
from typing import BinaryIO, Final, TextIO

from yolastic_worker.api.keys import MAX_KEY_LENGTH, MIN_KEY_LENGTH, KeyFileError, digest_of, is_key, parse_line, render_line
from yolastic_worker.settings import HashKeySettings
from yolastic_worker.types import WorkerFailure

_PREFIX: Final = "yk_"
"""So that a scanner for leaked secrets, and a person, know one when they see it."""
_RANDOM_BYTES: Final = 32


def hash_key(
    settings: HashKeySettings, source: BinaryIO | None = None, line_to: TextIO | None = None, key_to: TextIO | None = None
) -> None:
    """The line goes to standard output, to be added to a file; a key that was made goes to standard error, this once.

    Raises:
        WorkerFailure: BadConfiguration.
    """
    line_to, key_to = line_to or sys.stdout, key_to or sys.stderr
    if ":" in settings.name:
        raise WorkerFailure(
            "BadConfiguration", f"--name {settings.name}: a name has no colon, which parts the fields of the line"
        )
    key = _read(source or sys.stdin.buffer) if settings.from_stdin else _make()
    parts = (settings.name, digest_of(key).hex(), settings.rate_per_s, settings.daily_quota)
    try:
        line = render_line(parse_line(":".join(parts)))
    except KeyFileError as error:
        raise WorkerFailure("BadConfiguration", str(error)) from error
    if not settings.from_stdin:
        key_to.write(f"The key, which nothing keeps and nobody can show again:\n{key.decode()}\nThe line for the file:\n")
        key_to.flush()
    line_to.write(line + "\n")


def _make() -> bytes:
    return (_PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)).encode()


def _read(source: BinaryIO) -> bytes:
    key = source.readline(MAX_KEY_LENGTH + 3).rstrip(b"\r\n")
    if not is_key(key):
        raise WorkerFailure(
            "BadConfiguration",
            f"a key is {MIN_KEY_LENGTH} to {MAX_KEY_LENGTH} random characters, of letters, digits and -._~+/",
        )
    return key
