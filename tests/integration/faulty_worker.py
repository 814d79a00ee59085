"""A worker whose simulated device fails as told: `faulty_worker.py lost|memory serve …`; everything else is the real one."""

import sys
from collections.abc import Sequence
from typing import Any

from yolastic_worker import serve
from yolastic_worker.__main__ import run
from yolastic_worker.engine.simulated import SimulatedEngine
from yolastic_worker.settings import ServeSettings
from yolastic_worker.types import DeviceLost, OutOfDeviceMemory

FAULT = sys.argv[1]


class FaultyEngine(SimulatedEngine):
    """After the warm-up: `lost` fails for good at the third batch; `memory` has none for three and more, nor for white images."""

    batches = 0

    def run(self, images: Sequence[Any], padded: int = 0) -> Any:
        output = super().run(images, padded)
        if not (images[0] == 114).all():
            self.batches += 1
            if FAULT == "lost" and self.batches >= 3:
                raise DeviceLost("CUDA failure 700: an illegal memory access was encountered")
            if FAULT == "memory" and (len(images) >= 3 or (images[0] == 255).all()):
                raise OutOfDeviceMemory("no memory")
        return output


def load_engine(settings: ServeSettings) -> FaultyEngine:
    return FaultyEngine(settings.simulation, None, settings.input_size)


serve.load_engine = load_engine
sys.exit(run(sys.argv[2:]))
