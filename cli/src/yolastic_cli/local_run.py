"""An inference on this host, running: the cluster of processes and the loop that turns beside it."""

import asyncio
import errno
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Final, Self

from yolastic_cli.documents import LocalInference
from yolastic_cli.errors import CliError
from yolastic_operator.cluster.local import Listener, LocalCluster
from yolastic_operator.loop import Loop, LoopSettings
from yolastic_operator.policy.accounts import Accounts

_MIN_PAUSE_S: Final = 0.1
"""Between two turns at least, seconds."""


class LocalRun:
    """Use as an async context manager: inside the loop turns, at its end every worker has drained and ended.

    `listener` hears events, statuses and the workers' lines. Raises CliError on entry when the port cannot be had.
    """

    def __init__(
        self,
        inference: LocalInference,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        turn_s: float = 1.0,
        listener: Listener | None = None,
        accounts: Accounts | None = None,
    ) -> None:
        """`accounts`: the shared devices of this host, one object for all that run in this process."""
        self.inference = inference
        self.cluster = LocalCluster(
            host=host, port=port, runtimes=inference.runtimes, api_keys=inference.api_keys, listener=listener
        )
        self._where = f"{host}:{port}"
        # Whoever looks on sits beside it: the status is as good as its last turn.
        settings = LoopSettings(turn_s=turn_s, busy_turn_s=min(turn_s, 0.5), status_every_s=turn_s, ages_every_s=turn_s / 2)
        accounts = accounts or Accounts()
        self._loop = Loop(self.cluster, inference.ref, settings, accounts=accounts)
        self._bell = asyncio.Event()
        accounts.listen(inference.ref, self._bell.set)
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        """Where clients send images."""
        host, port = self.cluster.address
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def __aenter__(self) -> Self:
        try:
            await self._stack.enter_async_context(self.cluster)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "is in use, choose another with --port" if taken else f"cannot be used: {error.strerror or error}"
            raise CliError(f"{self._where} {why}") from error
        self._turning = asyncio.create_task(self._turns(), name="turns")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._turning.cancel()
        await asyncio.gather(self._turning, return_exceptions=True)
        await self._stack.aclose()

    async def failed(self) -> None:
        """Wait until the loop breaks; raises what broke it."""
        await asyncio.shield(self._turning)

    async def _turns(self) -> None:
        while True:
            self._bell.clear()
            pause_s = await self._loop.turn(self.inference.spec, 1, {})
            await asyncio.sleep(min(pause_s, _MIN_PAUSE_S))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s - min(pause_s, _MIN_PAUSE_S)):
                    await self._bell.wait()
