"""A worker whose simulated device fails on white images: `faulty_worker.py poison|hang|wrong|broken|none serve …`.

poison: a batch with one fails; hang: it never ends; wrong, broken: from the first on every answer is another, or none. Everything
else is the real worker, with shorter waits.
"""

import sys
import time
from collections.abc import Sequence
from typing import Any

from yolastic_worker import health, recovery, serve, upkeep
from yolastic_worker.__main__ import main
from yolastic_worker.engine.simulated import SimulatedEngine
from yolastic_worker.settings import ServeSettings

FAULT = sys.argv.pop(1)


class FaultyEngine(SimulatedEngine):
    """Fails as told."""

    hit = False

    def run(self, images: Sequence[Any], padded: int = 0) -> Any:
        white = any((image == 255).all() for image in images)
        self.hit = self.hit or white
        if white and FAULT == "hang":
            time.sleep(3600)
        if (white and FAULT == "poison") or (self.hit and FAULT == "broken"):
            raise RuntimeError("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: images")
        output = super().run(images, padded)
        return output * 1.5 if self.hit and FAULT == "wrong" else output


def load_engine(settings: ServeSettings) -> FaultyEngine:
    return FaultyEngine(settings.simulation, None, settings.input_size)


serve.load_engine = load_engine
health._LEAST_S = 2.0  # type: ignore[misc]
recovery.FIRST_PROBE_S = 1.0  # type: ignore[misc]
upkeep.CANARY_EVERY_S = 1.0  # type: ignore[misc]
main()
