"""LitServe: `python serve_litserve.py PORT SETTINGS`, settings as JSON.

Its handler reads JSON or forms only, so the image comes as base64 in JSON; nothing decodes it.
"""
# mypy: disable-error-code="import-not-found,misc"

import json
import sys
from typing import Any

import accelerator
import litserve


class Api(litserve.LitAPI):
    """Answers the size of the batch."""

    def setup(self, device: str) -> None:
        """There is no model."""

    def decode_request(self, request):  # type: ignore[no-untyped-def] # LitServe reads an annotation as a query parameter
        """Take the image as it came."""
        return str(request["image"])

    def batch(self, inputs: list[str]) -> list[str]:
        """Keep the list: nothing to stack."""
        return list(inputs)

    def predict(self, images: Any) -> Any:
        """One batch."""
        return [accelerator.run(len(images))] * len(images)

    def unbatch(self, output: Any) -> Any:
        """As they are."""
        return output

    def encode_response(self, output: int) -> dict[str, int]:
        """JSON."""
        return {"batch": output}


def main() -> None:
    """Serve until told to end."""
    port, settings = int(sys.argv[1]), json.loads(sys.argv[2])
    api = Api(max_batch_size=accelerator.LIMIT, batch_timeout=settings.get("batch_timeout", 0.0))
    server = litserve.LitServer(
        api, accelerator="cpu", devices=1, timeout=settings.get("timeout", 30), fast_queue=settings.get("fast_queue", False)
    )
    server.run(
        host="127.0.0.1",
        port=port,
        num_api_servers=settings.get("num_api_servers", 1),
        generate_client_file=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
