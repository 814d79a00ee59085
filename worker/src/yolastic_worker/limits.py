"""Every limit at the door, in one place: what a stranger may send, how slowly, and how much of it at once.

Each has its flag, its unit and its reason here, and nowhere else; the command line is made from this list.
"""

import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final

_MIB: Final = 2**20
_OTHER_DESCRIPTORS: Final = 736
"""What a worker opens besides its clients: 128 clients of the control port, 32 of the metrics port, 128 on each of three ports
that are being turned away, 64 fetches of URLs; and 128 for model, libraries, devices, event loops."""


class ImageFormat(StrEnum):
    """Formats that can be served; recognised by content, never by name or content type."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    BMP = "bmp"


@dataclass(frozen=True, slots=True)
class Rule:
    """How a limit is told: `kind` is bytes, count, seconds or formats; `low` and `high` bound what may be told."""

    flag: str
    kind: str
    reason: str
    low: int = 1
    high: int = 2**40


def _limit(default: Any, flag: str, kind: str, reason: str, *between: int) -> Any:
    return field(default=default, metadata={"rule": Rule(flag, kind, reason, *between)})


@dataclass(frozen=True, slots=True)
class Limits:
    """What may come in at most. All of it is for one worker process."""

    # --- a request's head
    header_bytes: int = _limit(
        65536, "--header-limit", "bytes", "path, query and headers of a request; proxies allow 8 to 64 KiB", 1024, 2**20
    )
    header_count: int = _limit(
        100, "--header-count", "count", "headers of a request; browsers and proxies send about 30", 8, 1000
    )
    header_timeout_s: float = _limit(
        20.0,
        "--header-timeout-s",
        "seconds",
        "from a request's first byte, or the opening of a connection, to the end of its headers",
    )
    # --- its body
    body_bytes: int = _limit(
        32 * _MIB, "--body-limit", "bytes", "largest request body; an image of 50 megapixels as a good JPEG", 1024, 2**31
    )
    body_timeout_s: float = _limit(60.0, "--body-timeout-s", "seconds", "a whole body; the largest one then needs 4.5 Mbit/s")
    body_grace_s: float = _limit(
        10.0, "--body-grace-s", "seconds", "so long a body may be slower than --body-rate: radio links stall for seconds"
    )
    body_bytes_per_s: int = _limit(
        4096,
        "--body-rate",
        "bytes",
        "a second, the mean a body must reach after its grace; a camera on a poor link does",
        1,
        2**30,
    )
    held_bytes: int = _limit(
        256 * _MIB, "--body-memory", "bytes", "encoded bodies held at once over all requests: many clients cannot fill the memory"
    )
    # --- a form
    files: int = _limit(64, "--max-files", "count", "images in one form: twice the default batch", 1, 4096)
    fields: int = _limit(
        32, "--max-fields", "count", "other parts of a form, and parameters in a query; six have a meaning", 8, 1024
    )
    # --- an image
    formats: tuple[ImageFormat, ...] = _limit(
        tuple(ImageFormat), "--formats", "formats", "formats that are decoded; each decoder less is one less to attack"
    )
    pixels: int = _limit(
        50_000_000, "--max-pixels", "count", "pixels of an image, read from its header before it is decoded", 1, 2**30
    )
    side: int = _limit(16384, "--max-side", "count", "pixels of the longer side; WebP allows no more", 1, 65535)
    aspect: int = _limit(
        200,
        "--max-aspect",
        "count",
        "longer over shorter side: beyond it, nothing is left of the shorter one in the letterbox",
        1,
        65535,
    )
    decode_bytes: int = _limit(
        1024 * _MIB, "--decode-memory", "bytes", "pixels being decoded at once; images wait for it, small ones never", 64 * _MIB
    )
    # --- connections
    connections: int = _limit(
        2048, "--max-connections", "count", "open at once on the data port; one more is answered 503 and closed", 1, 1_000_000
    )
    idle_timeout_s: float = _limit(
        120.0,
        "--idle-timeout-s",
        "seconds",
        "a connection between two requests: longer than proxies keep one, so that they close it",
    )
    send_timeout_s: float = _limit(
        30.0, "--send-timeout-s", "seconds", "a client that has not read its whole answer after so long is disconnected"
    )


DEFAULT_LIMITS: Final = Limits()


def rules() -> dict[str, Rule]:
    """Field name of `Limits` -> how it is told."""
    return {item.name: item.metadata["rule"] for item in fields(Limits)}


def parse_formats(text: str) -> tuple[ImageFormat, ...]:
    """Formats from `jpeg,png`.

    Raises:
        ValueError: one is not known, or there is none.
    """
    return tuple(dict.fromkeys(ImageFormat(name.strip().lower()) for name in text.split(",")))


def from_told(told: Mapping[str, Any]) -> Limits:
    """Limits from a command line's values, named `limit_` and the field."""
    return Limits(**{name: told["limit_" + name] for name in rules()})


def fit_descriptors(
    wanted: int,
    get: Callable[[], tuple[int, int]] = lambda: resource.getrlimit(resource.RLIMIT_NOFILE),
    put: Callable[[tuple[int, int]], None] = lambda limits: resource.setrlimit(resource.RLIMIT_NOFILE, limits),
) -> int:
    """Connections that may be open without starving the control port of descriptors; raises the soft limit as far as it must.

    The control port shares the process's descriptors: without this, a flood of connections would make liveness fail.
    """
    soft, hard = get()
    need = wanted + _OTHER_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= need:
        return wanted
    raised = need if hard == resource.RLIM_INFINITY else min(need, hard)
    try:
        put((raised, hard))
    except (OSError, ValueError):
        raised = soft
    return max(1, min(wanted, raised - _OTHER_DESCRIPTORS))
