"""Who may ask, and how much: API keys as hashes in a file, each with a rate and a daily quota.

A key is 256 random bits, so nobody can guess one from its hash: a plain SHA-256 is right. A slow hash would only let anyone burn
this worker's time with wrong keys, and a salt only helps where two people may choose the same password.
"""

import hashlib
import hmac
import logging
import math
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from yolastic_worker.api.http import Refusal, Request
from yolastic_worker.types import WorkerFailure

logger = logging.getLogger(__name__)

MIN_KEY_LENGTH: Final = 32
MAX_KEY_LENGTH: Final = 256
_KEY: Final = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750 §2.1: what a bearer token may be written with."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_DIGEST: Final = re.compile(r"[0-9A-Fa-f]{64}")
_RATE: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?")
_QUOTA: Final = re.compile(r"[1-9][0-9]{0,11}")
_MAX_FILE_BYTES: Final = 1 << 20
_MAX_KEYS: Final = 4096
_LOOK_EVERY_S: Final = 1.0
_DAY_S: Final = 86400


class KeyFileError(Exception):
    """The file cannot be used; the message names the line, never what is in it."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One line of the file."""

    name: str
    digest: bytes
    """SHA-256 of the key."""
    rate_per_s: float | None = None
    """Requests a second; None: no limit of its own."""
    daily_quota: int | None = None
    """Requests a day, UTC; None: no limit."""


def is_key(presented: bytes) -> bool:
    """It is long enough to be random, and written with the characters of a bearer token."""
    return MIN_KEY_LENGTH <= len(presented) <= MAX_KEY_LENGTH and _KEY.fullmatch(presented) is not None


def digest_of(key: bytes) -> bytes:
    """What the file keeps of a key: its SHA-256."""
    return hashlib.sha256(key).digest()


def render_line(key: ApiKey) -> str:
    """The line of the file: `name:sha256[:rate per second[:daily quota]]`."""
    rate = "" if key.rate_per_s is None else f"{key.rate_per_s:.3f}".rstrip("0").rstrip(".")
    quota = "" if key.daily_quota is None else str(key.daily_quota)
    return f"{key.name}:{key.digest.hex()}:{rate}:{quota}".rstrip(":")


def parse_line(line: str) -> ApiKey:
    """One line.

    Raises:
        KeyFileError: it is none; without the number of the line.
    """
    parts = [part.strip() for part in line.split(":")]
    if not 2 <= len(parts) <= 4:
        raise KeyFileError("is not name:sha256[:rate per second[:daily quota]]")
    name, digest, rate, quota = (*parts, "", "")[:4]
    if not _NAME.fullmatch(name):
        raise KeyFileError("the name has at most 63 letters, digits, '.', '_' and '-', a letter or digit first")
    if not _DIGEST.fullmatch(digest):
        raise KeyFileError("after the name comes the key's sha256 as 64 hexadecimal digits, never the key itself")
    if rate and not (_RATE.fullmatch(rate) and float(rate) > 0):
        raise KeyFileError("the rate is a number of requests a second from 0.001 to 999999")
    if quota and not _QUOTA.fullmatch(quota):
        raise KeyFileError("the daily quota is a whole number of requests, 1 or more")
    return ApiKey(name, bytes.fromhex(digest), float(rate) if rate else None, int(quota) if quota else None)


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """The keys of a file; blank lines and lines that begin with # are comments.

    Two lines may have one name, so that a client can change its key without a gap; they share the limits of the name.

    Raises:
        KeyFileError: a line is none, or contradicts another, or there is no key at all.
    """
    keys: dict[bytes, ApiKey] = {}
    limits: dict[str, tuple[float | None, int | None]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            key = parse_line(line)
        except KeyFileError as error:
            raise KeyFileError(f"line {number}: {error}") from None
        if key.digest in keys:
            raise KeyFileError(f"line {number}: this key is there already")
        if limits.setdefault(key.name, (key.rate_per_s, key.daily_quota)) != (key.rate_per_s, key.daily_quota):
            raise KeyFileError(f"line {number}: this name is there already with another rate or quota")
        keys[key.digest] = key
        if len(keys) > _MAX_KEYS:
            raise KeyFileError(f"line {number}: a file has at most {_MAX_KEYS} keys")
    if not keys:
        raise KeyFileError("it has no key")
    return tuple(keys.values())


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """The keys of a file.

    Raises:
        KeyFileError, OSError: it cannot be used, or read.
    """
    with path.open("rb") as file:
        content = file.read(_MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES:
        raise KeyFileError(f"it is larger than {_MAX_FILE_BYTES} bytes")
    try:
        return parse_keys(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise KeyFileError("it is not UTF-8 text") from None


class KeyRing:
    """The keys in a file that is looked at once a second; when it has become unusable, the keys known before stay."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the file.

        Raises:
            KeyFileError, OSError: it cannot be used, or read.
        """
        self._path, self._clock = path, clock
        # Looked up by a digest that only this process can compute: how long a look-up takes tells nothing about the file.
        self._blind = secrets.token_bytes(32)
        self._keys: dict[bytes, ApiKey] = {}
        self._seen = self._mark()
        self._set(read_keys(path))
        self._look_s = clock() + _LOOK_EVERY_S
        self._complaint = ""

    @property
    def names(self) -> frozenset[str]:
        """Of the keys there are."""
        return frozenset(key.name for key in self._keys.values())

    def check(self, authorization: bytes) -> ApiKey:
        """The key of an Authorization header.

        Raises:
            Refusal: 401 there is none, or nobody has it.
        """
        scheme, _, told = authorization.partition(b" ")
        presented = told.strip()
        if scheme.lower() != b"bearer" or not presented:
            raise _unauthorized("send an API key: Authorization: Bearer KEY", b"")
        self._look_again()
        if is_key(presented):
            digest = digest_of(presented)
            key = self._keys.get(self._blinded(digest))
            if key is not None and hmac.compare_digest(key.digest, digest):
                return key
        raise _unauthorized("this API key is not known here", b', error="invalid_token"')

    def _blinded(self, digest: bytes) -> bytes:
        return hmac.digest(self._blind, digest, "sha256")

    def _set(self, keys: tuple[ApiKey, ...]) -> None:
        self._keys = {self._blinded(key.digest): key for key in keys}

    def _mark(self) -> tuple[int, ...]:
        """Changes with the file; follows the links that a mounted Secret swaps."""
        stat = self._path.stat()
        return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns

    def _look_again(self) -> None:
        now_s = self._clock()
        if now_s < self._look_s:
            return
        self._look_s = now_s + _LOOK_EVERY_S
        try:
            mark = self._mark()
            if mark == self._seen:
                return
            self._seen = mark  # also when it is broken: it is not read again until it changes
            keys = read_keys(self._path)
        except OSError as error:
            self._seen = ()
            self._complain(error.strerror or "cannot be read")
        except KeyFileError as error:
            self._complain(str(error))
        else:
            self._set(keys)
            self._complaint = ""
            logger.info("the API keys were read again: %d of them", len(keys))

    def _complain(self, why: str) -> None:
        if why != self._complaint:
            self._complaint = why
            logger.error("the API keys file cannot be used, those known before stay in force: %s", why)


class Allowance:
    """What one name may still ask: a token bucket of one second, and a count of the day."""

    def __init__(self, now_s: float) -> None:
        """`now_s`: monotonic."""
        self._filled_s = now_s
        self._tokens = math.inf
        self._day = 0
        self._used = 0

    def take(self, key: ApiKey, now_s: float, unix_s: float) -> None:
        """One request.

        Raises:
            Refusal: 429 with the time until it would be taken; it is not counted then.
        """
        day = int(unix_s // _DAY_S)
        if day > self._day:  # a clock that is set back gives nothing back
            self._day, self._used = day, 0
        if key.daily_quota is not None and self._used >= key.daily_quota:
            left_s = max(1, math.ceil((self._day + 1) * _DAY_S - unix_s))
            raise Refusal(429, "quota_exceeded", "this API key has used its requests of the day (UTC)", left_s)
        if key.rate_per_s is not None:
            self._take_token(key.rate_per_s, now_s)
        self._used += 1

    def _take_token(self, rate_per_s: float, now_s: float) -> None:
        gained = max(0.0, now_s - self._filled_s) * rate_per_s
        self._filled_s = now_s
        self._tokens = min(max(1.0, rate_per_s), self._tokens + gained)
        if self._tokens < 1.0:
            wait_s = max(1, math.ceil((1.0 - self._tokens) / rate_per_s))
            raise Refusal(429, "rate_limited", "this API key asks too often", wait_s)
        self._tokens -= 1.0


class Gate:
    """The data port's door: who comes with no key of the ring, or asks too much, is refused before anything else is read."""

    def __init__(
        self,
        ring: KeyRing | None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Without a ring everybody may enter. `clock`: monotonic seconds; `wall`: Unix seconds, for the day."""
        self._ring, self._clock, self._wall = ring, clock, wall
        self._allowances: dict[str, Allowance] = {}

    def enter(self, request: Request) -> None:
        """Let a request in, and note whose it is in `request.client`.

        Raises:
            Refusal: 401 without a good key; 429 the key's rate or quota is used up.
        """
        if self._ring is None:
            return
        key = self._ring.check(request.headers.get(b"authorization", b""))
        now_s = self._clock()
        allowance = self._allowances.get(key.name)
        if allowance is None:
            if len(self._allowances) >= _MAX_KEYS:  # names that came and went with the file
                known = self._ring.names
                self._allowances = {name: kept for name, kept in self._allowances.items() if name in known}
            allowance = self._allowances[key.name] = Allowance(now_s)
        allowance.take(key, now_s, self._wall())
        request.client = key.name


def _unauthorized(message: str, detail: bytes) -> Refusal:
    return Refusal(401, "unauthorized", message, headers=((b"www-authenticate", b'Bearer realm="yolastic"' + detail),))


def open_gate(path: Path | None) -> Gate:
    """The door with the keys of this file; without a file it stands open.

    Raises:
        WorkerFailure: ApiKeysMissing there is no such file; BadConfiguration it cannot be used.
    """
    if path is None:
        return Gate(None)
    try:
        return Gate(KeyRing(path))
    except FileNotFoundError as error:
        raise WorkerFailure("ApiKeysMissing", f"there is no API keys file {path}") from error
    except OSError as error:
        raise WorkerFailure("BadConfiguration", f"the API keys file {path} cannot be read: {error.strerror}") from error
    except KeyFileError as error:
        raise WorkerFailure("BadConfiguration", f"the API keys file {path} cannot be used: {error}") from error
