"""MLServer: `python serve_mlserver.py PORT SETTINGS`, settings as JSON.

It takes the v2 protocol in JSON, so the image comes as base64; nothing decodes it. The batch runs beside its event loop.
"""
# mypy: disable-error-code="import-not-found,misc"

import asyncio
import json
import sys
from typing import Any

import accelerator
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.types import InferenceResponse, ResponseOutput
from mlserver.utils import install_uvloop_event_loop


class Model(MLModel):
    """Answers the size of the batch."""

    async def load(self) -> bool:
        """There is nothing to load."""
        return True

    async def predict(self, payload: Any) -> Any:
        """One batch."""
        count = payload.inputs[0].shape[0]
        await asyncio.get_running_loop().run_in_executor(None, accelerator.run, count)
        output = ResponseOutput(name="batch", shape=[count, 1], datatype="INT32", data=[count] * count)
        return InferenceResponse(model_name=self.name, outputs=[output])


async def main() -> None:
    """Serve until told to end."""
    port, settings = int(sys.argv[1]), json.loads(sys.argv[2])
    ports = settings["ports"]
    server = MLServer(
        Settings(
            host="127.0.0.1",
            http_port=port,
            grpc_port=ports[0],
            metrics_port=ports[1],
            parallel_workers=settings.get("parallel_workers", 1),
            debug=False,
        )
    )
    model = ModelSettings(
        name="yolo",
        implementation="serve_mlserver.Model",
        max_batch_size=accelerator.LIMIT,
        max_batch_time=settings.get("max_batch_time", 0.005),
    )
    await server.start([model])


if __name__ == "__main__":
    install_uvloop_event_loop()  # as its own command does
    asyncio.run(main())
