"""Preallocated pixels: one slot an image, from its decoding to the end of its batch."""

import numpy as np

from yolastic_worker.types import Pixels


class SlotPool:
    """A fixed number of letterboxed images uint8 [H, W, 3] in one block.

    Last in, first out: only as many slots as were ever needed at once take real memory. Safe between threads, since a list's
    pop and append are.
    """

    def __init__(self, count: int, height: int, width: int) -> None:
        self._shape = (height, width, 3)
        block = np.empty((count, *self._shape), np.uint8)
        self._free = [block[index] for index in range(count - 1, -1, -1)]

    def take(self) -> Pixels:
        """A slot; its content is what the last image left. Admission bounds the images; if all are in use, one more is made."""
        try:
            slot: Pixels = self._free.pop()
        except IndexError:
            slot = np.empty(self._shape, np.uint8)
        return slot

    def give(self, pixels: Pixels) -> None:
        """Hand a slot back."""
        self._free.append(pixels)

    @property
    def free(self) -> int:
        """Slots that are not in use."""
        return len(self._free)
