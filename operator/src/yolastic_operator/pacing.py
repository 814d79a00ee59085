"""When the next turn of a loop is due. Pure."""

import hashlib
from typing import Final

from yolastic_operator.model import Ref

SHORTEST: Final = 0.4
"""The shortest pause between two regular turns, as a share of the longest."""


def phase_s(ref: Ref, turn_s: float) -> float:
    """Where in the turn's length an inference has its place: 0 to `turn_s`, the same for the object's life."""
    digest = hashlib.blake2b(str(ref.uid or ref).encode(), digest_size=4).digest()
    return int.from_bytes(digest) / 2**32 * turn_s


def pause_s(now_s: float, phase_s: float, turn_s: float) -> float:
    """From the end of a regular turn to the next one, seconds: `SHORTEST` of `turn_s` at least, `turn_s` at most.

    A loop that only waits `turn_s` after each turn keeps what happened to it: whatever holds all loops up for a moment (a
    collection of garbage, a slow answer) lets them turn together from then on, and with hundreds of objects each waits for
    all the others. Towards a place of its own they part again.
    """
    left_s = (phase_s - now_s) % turn_s
    # Too soon for a turn: on the way to the place after it in two steps instead of one that is longer than a turn.
    return left_s if left_s >= SHORTEST * turn_s else (left_s + turn_s) / 2
