"""A worker to whom 127.0.0.1 is the public internet, and every name is there; everything else is the real one."""

import functools
import sys
from collections.abc import Sequence

from yolastic_worker import serve
from yolastic_worker.__main__ import run
from yolastic_worker.api.remote import Remote


async def resolve(host: str, port: int) -> Sequence[str]:
    return ["10.0.0.1"] if host.startswith("inside.") else ["127.0.0.1"]


serve.Remote = functools.partial(Remote, resolve=resolve, is_allowed_address=lambda address: address == "127.0.0.1")  # type: ignore
sys.exit(run(sys.argv[1:]))
