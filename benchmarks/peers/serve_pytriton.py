"""PyTriton (the core of NVIDIA Triton with a Python callable): `python serve_pytriton.py PORT SETTINGS`, settings as JSON.

It takes the raw bytes of the image as a binary tensor; nothing decodes them.
"""
# mypy: disable-error-code="import-not-found,misc,untyped-decorator"

import json
import sys
from typing import Any

import accelerator
import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.model_config.common import QueuePolicy
from pytriton.triton import Triton, TritonConfig


@batch
def infer(image: Any) -> dict[str, Any]:
    """One batch: answers its size."""
    count = image.shape[0]
    return {"batch": np.full((count, 1), accelerator.run(count), np.int32)}


def main() -> None:
    """Serve until told to end."""
    port, settings = int(sys.argv[1]), json.loads(sys.argv[2])
    queue = QueuePolicy(**settings["queue"]) if "queue" in settings else None
    batcher = DynamicBatcher(
        max_queue_delay_microseconds=settings.get("delay_us", 0),
        preferred_batch_size=settings.get("preferred"),
        default_queue_policy=queue,
    )
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=port,
        allow_grpc=False,
        allow_metrics=False,
        http_thread_count=settings.get("http_thread_count"),
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="yolo",
            infer_func=infer,
            inputs=[Tensor(name="image", dtype=np.bytes_, shape=(1,))],
            outputs=[Tensor(name="batch", dtype=np.int32, shape=(1,))],
            config=ModelConfig(max_batch_size=accelerator.LIMIT, batcher=batcher),
        )
        triton.serve()


if __name__ == "__main__":
    main()
