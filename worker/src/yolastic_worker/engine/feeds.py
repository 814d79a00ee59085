"""Images into the batch a session takes, and the batch through the session."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from yolastic_worker.engine.base import Outputs
from yolastic_worker.types import Pixels

Batch = npt.NDArray[Any]
_MOST_BOUND: Final = 12
"""Batch sizes that keep their places at once: there are fewer buckets; others come from batches that were split."""


class Feed(Protocol):
    """Where a batch is put together. It keeps what its largest batch took until it is made anew."""

    def fill(self, images: Sequence[Pixels], count: int) -> Batch:
        """The first `count` places, the images in the first of them and zeros in the rest; valid until the next call."""
        ...


class PlanesFeed:
    """Float planes [batch, 3, height, width], 0 to 1, as exports take them; the division is numpy's, as Ultralytics does it."""

    def __init__(self, max_batch: int, height: int, width: int, float_type: type[np.floating]) -> None:
        self._type = float_type
        self._planes = np.empty((3, height, width), np.uint8)
        self._batch = np.empty((max_batch, 3, height, width), float_type)

    def fill(self, images: Sequence[Pixels], count: int) -> Batch:
        """As `Feed.fill`."""
        batch = self._batch[:count]
        for index, pixels in enumerate(images):
            cv2.split(pixels, list(self._planes))
            np.divide(self._planes, self._type(255), out=batch[index], casting="unsafe")
        batch[len(images) :] = 0
        return batch


class PixelsFeed:
    """uint8 [batch, height, width, 3]: the pixels as they are."""

    def __init__(self, max_batch: int, height: int, width: int) -> None:
        self._batch = np.empty((max_batch, height, width, 3), np.uint8)

    def fill(self, images: Sequence[Pixels], count: int) -> Batch:
        """As `Feed.fill`."""
        batch = self._batch[:count]
        for index, pixels in enumerate(images):
            batch[index] = pixels
        batch[len(images) :] = 0
        return batch


class PlainRunner:
    """`session.run`: the runtime makes room for the batch and the answer in each run."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self.session = session
        self._input, self._output = session.get_inputs()[0].name, session.get_outputs()[0].name

    def run(self, batch: Batch) -> Outputs:
        """The first output."""
        output: Outputs = self.session.run([self._output], {self._input: batch})[0]
        return output

    def shrink(self, batch: Batch, device: str) -> None:
        """Run a small batch, after which the arena gives back every region that nothing lives in."""
        options = ort.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0" if device == "cpu" else "gpu:0")
        self.session.run([self._output], {self._input: batch}, options)


class BoundRunner(PlainRunner):
    """Input and output of each batch size stay on the device where they are: no allocation in a run, as CUDA graphs need it."""

    def __init__(self, session: ort.InferenceSession, device: str, answer: Outputs, graph_id: int | None = None) -> None:
        """`answer`: to some batch; its type and shape but for the first axis are those of all. `graph_id`: of the CUDA graph."""
        super().__init__(session)
        self._device, self._tail, self._type = device, answer.shape[1:], answer.dtype.type
        self._bound: dict[int, tuple[Any, Any, Any]] = {}
        self._options = ort.RunOptions()
        if graph_id is not None:
            self._options.add_run_config_entry("gpu_graph_id", str(graph_id))

    def run(self, batch: Batch) -> Outputs:
        """As `PlainRunner.run`; the answer is a copy."""
        if len(batch) not in self._bound:
            if len(self._bound) >= _MOST_BOUND:
                self._bound.pop(next(iter(self._bound)))
            self._bound[len(batch)] = self._bind(batch)
        binding, source, target = self._bound[len(batch)]
        source.update_inplace(batch)
        self.session.run_with_iobinding(binding, self._options)
        output: Outputs = target.numpy()
        return output if self._device != "cpu" else output.copy()  # of the host's own memory it is a view

    def shrink(self, batch: Batch, device: str) -> None:
        """As `PlainRunner.shrink`."""
        self._bound.clear()
        super().shrink(batch, device)

    def _bind(self, batch: Batch) -> tuple[Any, Any, Any]:
        source = ort.OrtValue.ortvalue_from_shape_and_type(batch.shape, batch.dtype.type, self._device, 0)
        target = ort.OrtValue.ortvalue_from_shape_and_type((len(batch), *self._tail), self._type, self._device, 0)
        binding = self.session.io_binding()
        binding.bind_ortvalue_input(self._input, source)
        binding.bind_ortvalue_output(self._output, target)
        return binding, source, target
