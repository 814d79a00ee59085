"""What the loop needs of a cluster: a handful of verbs. Kubernetes, this host, and a fake speak it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from yolastic_contract.runtime import RuntimeSpec
from yolastic_contract.state import CeilingGrant, WorkerState
from yolastic_operator.model import Fleet, Ref, Worker, Workload

NAME_TAKEN: Final = "NameTaken"
"""Reason of a refusal: a child's name is somebody else's."""


class ClusterError(Exception):
    """The cluster could not do it now; the turn goes on and tries again at the next one."""

    in_vain = False
    """It understood and refused: the same again would be refused again."""


class RefusedError(Exception):
    """The specification cannot run here as it is written; trying again does not help.

    `reason` is CamelCase and, with the message, becomes that of the Ready condition: UriNotAllowed, SecretNotFound...
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class WorkerError(Exception):
    """A worker's control port did not answer, or not with what the contract says.

    `status` is the HTTP status of an answer that was not 200.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Event:
    """An event on an inference."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


class Cluster(Protocol):
    """Verbs of a cluster. Each may raise ClusterError; those on a worker WorkerError."""

    async def runtime(self, name: str) -> RuntimeSpec | None:
        """The runtime of that name, or None."""
        ...

    async def ensure(self, workload: Workload, replicas: int) -> None:
        """Make the children as described; applying twice changes nothing.

        `replicas` counts only while there is no Deployment yet. Raises RefusedError for what cannot run here.
        """
        ...

    async def fleet(self, ref: Ref) -> Fleet:
        """The size ordered and the workers there are."""
        ...

    async def scale(self, ref: Ref, replicas: int, victims: Sequence[str]) -> None:
        """Order a size; `victims` are the workers that should go first when it is smaller."""
        ...

    async def url(self, ref: Ref) -> str:
        """Where clients send images."""
        ...

    async def state(self, ref: Ref, worker: Worker) -> WorkerState:
        """`GET /state`."""
        ...

    async def grant(self, ref: Ref, worker: Worker, grant: CeilingGrant) -> None:
        """`PUT /ceiling`."""
        ...

    async def drain(self, ref: Ref, worker: Worker) -> None:
        """`POST /drain`: take no more, finish what is there."""
        ...

    async def rebalance(self, ref: Ref, worker: Worker) -> None:
        """`POST /rebalance`: let go of keep-alive connections."""
        ...

    async def write_status(self, ref: Ref, status: dict[str, Any]) -> None:
        """Replace the status of the inference."""
        ...

    async def post_event(self, ref: Ref, event: Event) -> None:
        """Tell it to whoever watches the inference."""
        ...
