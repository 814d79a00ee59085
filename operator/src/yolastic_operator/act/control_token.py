"""The control tokens of an inference: made, and replaced without a moment at which a worker refuses the operator. Pure.

A token is replaced in two steps. First the Secret holds the old one and a new one, a line each, and the old one is presented:
workers accept both once the node has brought them the new file, and the old one before. When that has surely happened, the
old line goes.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from yolastic_contract import names

OVERLAP_S: Final = 300.0
"""How long old and new are both accepted. A node's kubelet brings a changed Secret into its pods within 2 minutes."""
_KEPT: Final = 4
"""Tokens an operator remembers of an inference: for a worker whose node was cut off while they changed."""


@dataclass(frozen=True, slots=True)
class ControlTokens:
    """What the control Secret says."""

    tokens: tuple[str, ...] = ()
    """Each opens the control ports; the first is the one to present, the last the one that stays."""
    since_s: float | None = None
    """When they became what they are, Unix time; None: it does not say."""
    asked: bool = False
    """Somebody asked for a new token by an annotation, and has none yet."""


def read(secret: Mapping[str, Any] | None) -> ControlTokens:
    """What a live Secret says; one that is not there or not readable says nothing."""
    metadata = (secret or {}).get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    encoded = ((secret or {}).get("data") or {}).get(names.CONTROL_TOKEN_KEY) or ""
    try:
        lines = base64.b64decode(encoded, validate=True).decode("ascii").splitlines()
    except (binascii.Error, UnicodeDecodeError):
        lines = []
    tokens = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    return ControlTokens(tokens, _parsed(annotations.get(names.TOKEN_SINCE)), names.ROTATE in annotations)


def following(
    held: ControlTokens, known: tuple[str, ...], now_s: float, max_age_s: float | None, make: Callable[[], str]
) -> ControlTokens:
    """What the Secret must say now.

    `known` are the tokens this operator has seen, the likeliest first: where somebody deleted the Secret, workers still have
    that one. `max_age_s` None: no token is too old. `make` makes a new token.
    """
    current = held.tokens or known[:1]
    # A time to come is of a clock that was wrong: it counts from now.
    since_s = now_s if held.since_s is None or held.since_s > now_s else held.since_s
    if not current:
        return ControlTokens((make(),), now_s)
    if len(current) > 1:
        if now_s - since_s < OVERLAP_S:
            # Who asks now means both, for all he knows: the wish stays until they are followed by a third.
            return ControlTokens(current, since_s, held.asked)
        current, since_s = current[-1:], now_s
    too_old = max_age_s is not None and now_s - since_s >= max_age_s
    if not held.tokens or held.asked or too_old:
        return ControlTokens((*current, make()), now_s)
    return ControlTokens(current, since_s)


def remembered(tokens: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """The tokens to try with a worker, in this order: those of the Secret, then those it held before."""
    return tuple(dict.fromkeys((*tokens, *known)))[:_KEPT]


def timestamp(time_s: float) -> str:
    """Unix time as the annotation has it."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parsed(text: object) -> float | None:
    try:
        return datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
