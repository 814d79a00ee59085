"""The Kubernetes API in the few verbs the operator uses: dict bodies, one error type, every request counted."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException
from kubernetes.aio.dynamic import DynamicClient

from yolastic_contract import names
from yolastic_operator.cluster.base import ClusterError

Body = dict[str, Any]
Count = Callable[[str, str], None]

REQUEST_TIMEOUT_S: Final = 30.0
"""The longest a request may take: for a list much has to be read, and a write waits for webhooks, each of which the server gives
10 s by default. Waiting for one of the connections is in it."""
SILENCE_S: Final = 10.0
"""Who asks for a connection, or for a single object, and hears nothing for so long is not answered any more: it is ten times what
Kubernetes promises for 99 of 100 such requests. Waiting for one of the connections is not in it."""
CONNECTIONS: Final = 16
"""Requests at once; the others wait for a free connection, each of which takes a quarter of a megabyte."""
_MERGE: Final = "application/merge-patch+json"
_NO_ANSWER: Final = "none"
_PASSING: Final = frozenset({401, 408, 409, 429})
"""Refusals that may be over soon: a token that is about to be replaced, a race, too many requests."""


class ApiError(ClusterError):
    """The API server refused a request or did not answer; `code` is the HTTP status, 0 without an answer."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
        self.in_vain = 400 <= code < 500 and code not in _PASSING


class KubernetesApi:
    """Requests by path. Each raises ApiError and ends within `REQUEST_TIMEOUT_S`; none is repeated: the next turn does that.

    A read of one object also ends when the server says nothing for `SILENCE_S`.
    Paths are spelled out instead of discovered: no start-up requests, no cache file, nothing that may differ between servers.
    """

    def __init__(self, client: ApiClient, count: Count) -> None:
        self._client = DynamicClient(client)  # type: ignore[no-untyped-call]
        self._count = count

    async def get(self, path: str) -> Body | None:
        """The object at `path`; None when there is none."""
        try:
            return await self._request("get", path)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def list(self, path: str, label_selector: str) -> list[Body]:
        """All objects under `path` with these labels."""
        answer = await self._request("list", path, label_selector=label_selector)
        return cast(list[Body], answer.get("items") or [])

    async def create(self, path: str, body: Body) -> Body:
        """Make an object under `path`."""
        return await self._request("create", path, body, field_manager=names.OPERATOR_NAME)

    async def replace(self, path: str, body: Body) -> Body:
        """Replace the object at `path`; refused with 409 when it is not any more of the resourceVersion in `body`."""
        return await self._request("replace", path, body, field_manager=names.OPERATOR_NAME)

    async def apply(self, path: str, body: Body, manager: str = names.OPERATOR_NAME) -> Body:
        """Server-side apply: fields in `body` become so, those applied before and not in it any more go."""
        return await self._request("apply", path, body, field_manager=manager)

    async def merge(self, path: str, body: Body) -> Body:
        """Merge patch: fields in `body` become so, all others stay."""
        return await self._request("patch", path, body, field_manager=names.OPERATOR_NAME)

    async def _request(self, verb: str, path: str, body: Body | None = None, **query: str) -> Body:
        method, options = _METHODS[verb]
        limit = aiohttp.ClientTimeout(REQUEST_TIMEOUT_S, sock_connect=SILENCE_S, sock_read=SILENCE_S if verb == "get" else None)
        try:
            response = await self._client.request(
                method, path, body=body, serialize=False, _request_timeout=limit, **options, **query
            )
            answer = json.loads(await response.read())
        except ApiException as error:
            self._count(verb, str(error.status))
            raise ApiError(f"{verb} {path}: {_reason(error)}", int(error.status or 0)) from error
        except TimeoutError as error:
            self._count(verb, _NO_ANSWER)
            limit_s = SILENCE_S if isinstance(error, aiohttp.ServerTimeoutError) else REQUEST_TIMEOUT_S
            raise ApiError(f"{verb} {path}: no answer within {limit_s:g} s", 0) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._count(verb, _NO_ANSWER)
            why = "is no address of a server" if isinstance(error, aiohttp.InvalidURL) else ""
            said = " ".join(f"{error} {why}".split()) or type(error).__name__
            raise ApiError(f"{verb} {path}: {said}", 0) from error
        self._count(verb, str(response.status))
        return cast(Body, answer)


_METHODS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "get": ("get", {}),
    "list": ("get", {}),
    "create": ("post", {}),
    "replace": ("put", {}),
    "apply": ("patch", {"content_type": "application/apply-patch+yaml", "force_conflicts": True}),
    "patch": ("patch", {"content_type": _MERGE}),
}


@asynccontextmanager
async def connect(count: Count, kubeconfig: str | None = None) -> AsyncIterator[KubernetesApi]:
    """The API server of the pod's service account, else of the default kubeconfig; with `kubeconfig` that of this file.

    Raises:
        ClusterError: neither is there, or cannot be used.
    """
    configuration = Configuration()
    configuration.connection_pool_maxsize = CONNECTIONS
    try:
        await _configure(configuration, kubeconfig)
        client = ApiClient(configuration)
    except Exception as error:  # the library takes a kubeconfig for what it should be, and fails anywhere on one that is not
        what = "no service account and no usable kubeconfig" if kubeconfig is None else f"{kubeconfig}: is no usable kubeconfig"
        why = str(error) if isinstance(error, ConfigException | OSError | ValueError) else "it is not built as one"
        raise ClusterError(f"{what}: {' '.join(why.split())[:400]}") from error
    try:
        yield KubernetesApi(client, count)
    finally:
        await client.close()  # type: ignore[no-untyped-call]


async def _configure(configuration: Configuration, kubeconfig: str | None) -> None:
    if kubeconfig is None:
        try:
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        except ConfigException:
            pass  # not in a pod
        else:
            return
    await config.load_kube_config(kubeconfig, client_configuration=configuration, persist_config=False)  # type: ignore[no-untyped-call]


def _reason(error: ApiException) -> str:
    """What the server said, in one line; never the headers, and never a whole object."""
    try:
        said = json.loads(error.body or "").get("message")
    except (ValueError, AttributeError):
        said = None
    return f"{error.status} {' '.join(str(said or error.reason or '').split())[:400]}"
