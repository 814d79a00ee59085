"""Where each buffer lies in one block: best fit, in the order of taking and giving back.

As in onnxruntime/core/framework/mem_pattern_planner.h: the smallest gap that is large enough, the lowest of equal ones, else the
end. Sizes are rounded up to 64 bytes first.
"""

from collections.abc import Callable, Iterable
from typing import Final

from yolastic_worker.memory.planner.reuse import Buffer

ALIGNMENT_BYTES: Final = 64


def pack(buffers: Iterable[Buffer], size_of: Callable[[str], int]) -> int:
    """Bytes of the block that holds them all; `size_of(name)`: bytes of a buffer."""
    events: list[tuple[int, int, Buffer]] = []
    for buffer in buffers:
        events.append((buffer.born, 0, buffer))
        if buffer.dies is not None:
            events.append((buffer.dies, 1, buffer))
    events.sort(key=lambda event: event[:2])
    block = _Block()
    for _, kind, buffer in events:
        if kind:
            block.free(buffer.name)
        else:
            block.take(buffer.name, -(-size_of(buffer.name) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES)
    return block.size_bytes


class _Block:
    """The block while it is filled; taken pieces are kept by ascending offset."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._taken: list[tuple[int, int, str]] = []

    def take(self, name: str, size: int) -> None:
        if not size:
            return
        end = 0
        best: tuple[int, int, int] | None = None
        for place, (offset, length, _) in enumerate(self._taken):
            waste = offset - end - size
            if waste >= 0 and (best is None or waste < best[0]):
                best = waste, end, place
            end = max(end, offset + length)
        _, offset, place = best or (0, end, len(self._taken))
        self._taken.insert(place, (offset, size, name))
        self.size_bytes = max(self.size_bytes, offset + size)

    def free(self, name: str) -> None:
        self._taken = [piece for piece in self._taken if piece[2] != name]
