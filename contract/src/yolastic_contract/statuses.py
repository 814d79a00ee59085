"""HTTP statuses a worker answers with, and when: what its clients may rely on."""

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Status:
    """One status of the data port, the control port, or both."""

    code: int
    when: str
    port: Literal["data", "control", "both"] = "data"
    retry_after: bool = False
    """The answer carries Retry-After: the same request may succeed later, or at another worker."""


STATUSES: Final = (
    Status(200, "the boxes of every image, in order", "both"),
    Status(400, "not an image, a broken one, or a form that is cut off"),
    Status(401, "the API key (data port) or the bearer token (control port) is missing or wrong", "both"),
    Status(403, "data port: no URL is fetched, or none from this host or its address; control port: there is no token", "both"),
    Status(404, "no such path", "both"),
    Status(405, "another method than the path takes", "both"),
    Status(408, "the body did not arrive in time", "both"),
    Status(413, "the body is over the limit, an image has too many pixels, or more images come than may wait", "both"),
    Status(415, "a format or content type that is not read"),
    Status(
        422,
        "a parameter is out of range or unknown, the form has no image, or the model fails on this very image (`quarantined`)",
        "both",
    ),
    Status(424, "an image named by URL did not come: not in time, not whole, or not from a server with a good certificate"),
    Status(
        429,
        "it could not make its deadline, the queue is full or a newer image took its place there, or the API key's rate or daily "
        "quota is used up",
        retry_after=True,
    ),
    Status(500, "an internal error; the worker's log has it", "both"),
    Status(503, "starting, draining, or the device failed", "both", retry_after=True),
    Status(504, "admitted, and its deadline passed before it ran; it is never run"),
    Status(507, "out of memory even alone"),
)
"""Every error has the body `{"error": {"code", "message", "id"}}`."""

EXIT_CODES: Final = {
    0: "drained",
    1: "internal error",
    2: "bad configuration or model; the last line of the termination message says which",
    3: "the device is lost",
}
"""How a worker ends."""
