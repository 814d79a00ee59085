"""Mosec: `python serve_mosec.py PORT SETTINGS`, settings as JSON. It takes the raw bytes of the image; nothing decodes them."""
# mypy: disable-error-code="import-not-found,misc"

import json
import os
import sys
from typing import Any

import accelerator
from mosec import Server, Worker


class Batch(Worker):
    """Answers the size of the batch."""

    def deserialize(self, data: bytes) -> bytes:
        """Take the image as it came."""
        return data

    def forward(self, data: list[bytes]) -> list[Any]:
        """One batch."""
        return [{"batch": accelerator.run(len(data))}] * len(data)


def main() -> None:
    """Serve until told to end."""
    settings = json.loads(os.environ["PEER_SETTINGS"])
    server = Server()
    server.append_worker(Batch, num=1, max_batch_size=accelerator.LIMIT, max_wait_time=settings.get("max_wait_time", 0))
    server.run()


if __name__ == "__main__":
    if len(sys.argv) == 3:  # mosec reads the command line itself, in its workers, too
        port, told = sys.argv[1:]
        os.environ["PEER_SETTINGS"] = told
        flags = [
            part
            for name in ("capacity", "timeout")
            if name in json.loads(told)
            for part in (f"--{name}", str(json.loads(told)[name]))
        ]
        sys.argv[1:] = ["--address", "127.0.0.1", "--port", port, "--log-level", "warning", *flags]
    main()
