"""BentoML: `bentoml serve serve_bentoml:Service --port PORT`, settings as JSON in PEER_SETTINGS.

Its batched endpoints take JSON, so the image comes as base64; nothing decodes it.
"""
# mypy: disable-error-code="import-not-found,misc,untyped-decorator"

import json
import os

import accelerator
import bentoml

_SETTINGS = json.loads(os.environ["PEER_SETTINGS"])


@bentoml.service(workers=1, traffic=_SETTINGS.get("traffic", {}))
class Service:
    """Answers the size of the batch."""

    @bentoml.api(batchable=True, max_batch_size=accelerator.LIMIT, max_latency_ms=_SETTINGS.get("max_latency_ms", 60_000))
    def predict(self, images: list[str]) -> list[int]:
        """One batch."""
        return [accelerator.run(len(images))] * len(images)
