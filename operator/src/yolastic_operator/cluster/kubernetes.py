"""The cluster verbs on Kubernetes: server-side apply, the scale subresource, the control ports of pods."""

import hashlib
import json
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from yolastic_contract import names
from yolastic_contract.runtime import RuntimeSpec
from yolastic_contract.state import CeilingGrant, WorkerState
from yolastic_operator.act import control_token, manifests
from yolastic_operator.act.control_token import ControlTokens
from yolastic_operator.act.manifests import Manifest, Surroundings
from yolastic_operator.cluster.api import ApiError, KubernetesApi
from yolastic_operator.cluster.base import NAME_TAKEN, ClusterError, Event, RefusedError, WorkerError
from yolastic_operator.cluster.cache import FleetCache, version_of
from yolastic_operator.cluster.control import ControlClient
from yolastic_operator.cluster.doubt import Doubts
from yolastic_operator.cluster.drift import Drift
from yolastic_operator.cluster.runtimes import Runtimes
from yolastic_operator.model import Fleet, Ref, Worker, Workload

SCALE_MANAGER: Final = f"{names.OPERATOR_NAME}-scale"
"""Field manager that holds `spec.replicas` of a new Deployment while the other one lets go of it."""
TOKEN_BYTES: Final = 32
_PLURALS: Final = {
    "Deployment": "apis/apps/v1/namespaces/{}/deployments",
    "Service": "api/v1/namespaces/{}/services",
    "Secret": "api/v1/namespaces/{}/secrets",
    "NetworkPolicy": "apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "PodDisruptionBudget": "apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "Pod": "api/v1/namespaces/{}/pods",
    "Event": "apis/events.k8s.io/v1/namespaces/{}/events",
    "YoloInference": f"apis/{names.API_VERSION}/namespaces/{{}}/{names.INFERENCE_PLURAL}",
}


@dataclass(frozen=True, slots=True)
class _Applied:
    """A child as it was applied, and what tells that it is still like that."""

    digest: str
    """Of the manifest, which is ten times as long."""
    marks: tuple[Any, ...]


class KubernetesCluster:
    """Speaks `Cluster`. Reads pods, Deployments and runtimes from what the watches showed and lists what they did not."""

    def __init__(
        self,
        api: KubernetesApi,
        control: ControlClient,
        surroundings: Surroundings,
        cache: FleetCache,
        runtimes: MutableMapping[str, Mapping[str, Any]],
        *,
        drift: Drift | None = None,
        instance: str = names.OPERATOR_NAME,
        token_age_s: float | None = None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Control tokens older than `token_age_s` seconds are replaced; None: only when somebody asks."""
        self._api = api
        self._control = control
        self._surroundings = surroundings
        self._cache = cache
        self._runtimes = Runtimes(api, runtimes, monotonic)
        self._instance = instance
        self._token_age_s = token_age_s
        self._wall = wall
        self._doubts = Doubts(monotonic)
        self._drift = drift or Drift(monotonic)
        self._tokens: dict[Ref, tuple[str, ...]] = {}
        """Control tokens in the order to try them."""
        self._applied: dict[tuple[Ref, str], _Applied] = {}
        """Children as they were applied last, by kind."""

    async def runtime(self, name: str) -> RuntimeSpec | None:
        """The runtime of that name, or None. Raises RefusedError for one that this version cannot read."""
        return await self._runtimes.get(name)

    async def ensure(self, workload: Workload, replicas: int) -> None:
        """Apply the children; a new Deployment starts with `replicas`, the size of an old one is left alone."""
        try:
            children = manifests.render(workload, self._surroundings)
        except ValueError as error:
            raise RefusedError("UriNotAllowed", str(error)) from error
        self._drift.repairing((workload.ref.namespace, workload.ref.name))
        # The Secret comes first, because no pod starts without it.
        await self._ensure_secret(workload)
        for child in children:
            if child["kind"] == "Deployment":
                await self._apply_deployment(workload.ref, child, replicas)
                continue
            live = await self._owned(child)
            if live is None or not self._stands(workload.ref, child, live):
                live = await self._put(child, live)
                self._applied[workload.ref, child["kind"]] = _applied(child, live)
            self._drift.applied(child["kind"], live)

    async def fleet(self, ref: Ref) -> Fleet:
        """The size ordered and the workers there are, from the watches where they have shown them.

        Where they contradict themselves, or were not checked for long, a list is due. One that the server refuses does not end
        the turn: what the watches have shown since the last list counts on, and the next turn tries again. But it counts as
        unconfirmed, and then nothing shrinks: a worker of which no watch told serves, too. Its load would be missing in the sum,
        and a smaller size would take it for one that was never made, and away without a drain. What is told to workers goes on,
        and one worker too many harms nobody.

        Raises:
            ApiError: nothing was ever listed, and the server refuses that.
        """
        known = self._cache.fleet(ref)
        if known is not None and not self._doubts.due(ref, known):
            return self._told(ref, known)
        last, why = self._cache.last(ref), self._doubts.refusal(ref)
        if last is None or not why:
            try:
                return self._told(ref, await self._list(ref, known))
            except ApiError as error:
                last, why = self._cache.last(ref), str(error)
                if last is None:
                    raise
                self._doubts.refused(ref, why)
        return replace(self._told(ref, last), unconfirmed=why)

    async def scale(self, ref: Ref, replicas: int, victims: Sequence[str]) -> None:
        """Order a size through the scale subresource; the victims' pods are marked as the cheapest to delete before."""
        for rank, name in enumerate(victims):
            await self._mark(ref, name, cost=rank - 1000)
        scale = await self._api.merge(f"{_path_of('Deployment', ref)}/scale", {"spec": {"replicas": replicas}})
        self._cache.scaled(ref, replicas, version_of(scale))

    async def url(self, ref: Ref) -> str:
        """Where clients in the cluster send images."""
        return f"http://{ref.name}.{ref.namespace}.svc"

    async def state(self, ref: Ref, worker: Worker) -> WorkerState:
        """`GET /state` of the pod."""
        self._doubts.asked(ref, worker)
        state = await self._control.state(_base_url(worker))
        self._doubts.answered(ref, worker, state)
        return state

    async def grant(self, ref: Ref, worker: Worker, grant: CeilingGrant) -> None:
        """`PUT /ceiling` of the pod."""
        await self._authorized(ref, lambda token: self._control.grant(_base_url(worker), token, grant))

    async def drain(self, ref: Ref, worker: Worker) -> None:
        """`POST /drain` of the pod."""
        await self._authorized(ref, lambda token: self._control.drain(_base_url(worker), token))

    async def rebalance(self, ref: Ref, worker: Worker) -> None:
        """`POST /rebalance` of the pod."""
        await self._authorized(ref, lambda token: self._control.rebalance(_base_url(worker), token))

    async def write_status(self, ref: Ref, status: dict[str, Any]) -> None:
        """Apply the status: what was in it before and is not any more goes.

        An object made anew under the name is not met: the loop of the old one ends before its own begins.
        """
        metadata = {"name": ref.name, "namespace": ref.namespace}
        body = {"apiVersion": names.API_VERSION, "kind": names.INFERENCE_KIND, "metadata": metadata, "status": status}
        await self._api.apply(f"{_path_of(names.INFERENCE_KIND, ref)}/status", body)

    async def post_event(self, ref: Ref, event: Event) -> None:
        """Create an event about the inference."""
        regarding = {"apiVersion": names.API_VERSION, "kind": names.INFERENCE_KIND, "name": ref.name, "namespace": ref.namespace}
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{ref.name}.{uuid.uuid4().hex[:16]}", "namespace": ref.namespace},
            "regarding": regarding | ({"uid": ref.uid} if ref.uid else {}),
            "eventTime": datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": names.OPERATOR_NAME,
            "reportingInstance": self._instance,
            "action": "Reconcile",
            "type": event.type,
            "reason": event.reason,
            "note": event.message.encode()[:1024].decode(errors="ignore"),
        }
        await self._api.create(_path_of("Event", ref, ""), body)

    def forget(self, ref: Ref) -> None:
        """The inference is gone: drop what was kept about it."""
        self._tokens.pop(ref, None)
        self._applied = {key: applied for key, applied in self._applied.items() if key[0] != ref}
        self._doubts.forget(ref)
        self._drift.forget((ref.namespace, ref.name))
        self._cache.forget(ref)

    async def _list(self, ref: Ref, known: Fleet | None) -> Fleet:
        changes = self._cache.changes(ref)
        selector = ",".join(f"{key}={value}" for key, value in names.worker_labels(ref.name).items())
        deployment = await self._api.get(_path_of("Deployment", ref))
        pods = await self._api.list(_path_of("Pod", ref, ""), selector)
        listed = self._cache.fill(ref, deployment, pods, changes)
        self._doubts.listed(ref, news=listed != known)
        return listed

    def _told(self, ref: Ref, fleet: Fleet) -> Fleet:
        return replace(fleet, edited=self._drift.due((ref.namespace, ref.name)))

    def _stands(self, ref: Ref, manifest: Manifest, live: Manifest) -> bool:
        """This very manifest was applied before and nobody has touched the child since: applying it again would write nothing."""
        return self._applied.get((ref, manifest["kind"])) == _applied(manifest, live)

    async def _put(self, child: Manifest, live: Manifest | None) -> Manifest:
        """Apply a child. What somebody wrote beside ours stays, unless the two cannot be together: then it goes."""
        try:
            return await self._api.apply(_path(child), child)
        except ApiError as error:
            if live is None or error.code != 422:
                raise
        # A volume of a second kind, a port of the same name: the server would refuse every apply from now on.
        await self._api.merge(_path(child), manifests.exactly(child, live))
        return await self._api.apply(_path(child), child)

    async def _apply_deployment(self, ref: Ref, manifest: Manifest, replicas: int) -> None:
        path, live = _path(manifest), await self._owned(manifest)
        if live is not None and self._stands(ref, manifest, live):
            self._cache.put("deployment", live)
            self._drift.applied("Deployment", live)
            return
        if live is None:
            # Applied without a size it would start one worker, whatever is wanted.
            live = await self._api.apply(path, manifests.with_replicas(manifest, replicas))
        if _holds_size(live):
            # Just made, or by one that ended right then: it would be reset to 1 when the size is left out now. So a second
            # manager takes the size over, as it is, and keeps it when the first lets go.
            size = manifests.only_replicas(manifest, int(live["spec"]["replicas"]))
            await self._api.apply(path, size, manager=SCALE_MANAGER)
        live = await self._put(manifest, live)
        self._applied[ref, "Deployment"] = _applied(manifest, live)
        self._cache.put("deployment", live)
        self._drift.applied("Deployment", live)

    async def _ensure_secret(self, workload: Workload) -> None:
        """Make or replace the control token where that is due."""
        ref = workload.ref
        live = await self._owned(manifests.control_secret(workload, ControlTokens()))
        held, known = control_token.read(live), self._tokens.get(ref, ())
        due = control_token.following(held, known, self._wall(), self._token_age_s, lambda: secrets.token_urlsafe(TOKEN_BYTES))
        wanted = manifests.control_secret(workload, due)
        if live is None or held.since_s != due.since_s or not _same_secret(live, wanted):
            await self._api.apply(_path(wanted), wanted)
        if held.asked and not due.asked:
            # After the new token: who fails between the two makes one more after the overlap, and never one too few.
            await self._api.merge(_path(wanted), {"metadata": {"annotations": {names.ROTATE: None}}})
        self._tokens[ref] = control_token.remembered(due.tokens, known)

    async def _owned(self, manifest: Manifest) -> Manifest | None:
        """The child as it is; None when there is none.

        Raises:
            RefusedError: something of that name is there that was not made for this inference: it is never taken over.
        """
        live = await self._api.get(_path(manifest))
        if live is None:
            return None
        wanted, labels = manifest["metadata"]["labels"], live["metadata"].get("labels") or {}
        if _belongs(live, manifest):
            return live  # also when somebody edited its labels: they are put right
        if any(labels.get(key) != wanted[key] for key in wanted):
            message = f"{manifest['kind']} {manifest['metadata']['name']} exists already and is not of this inference"
            raise RefusedError(NAME_TAKEN, message)
        return live

    async def _mark(self, ref: Ref, pod: str, cost: int) -> None:
        patch = {"metadata": {"annotations": {names.POD_DELETION_COST: str(cost)}}}
        try:
            await self._api.merge(_path_of("Pod", ref, pod), patch)
        except ApiError as error:
            if error.code != 404:  # a pod that is gone needs no mark
                raise

    async def _authorized(self, ref: Ref, call: Callable[[str], Awaitable[None]]) -> None:
        """A call to a control port; when all known tokens are refused the Secret is read again, once."""
        known = self._tokens.get(ref, ())
        refusal = await _refused(call, known)
        if known and refusal is None:
            return
        held = control_token.read(await self._api.get(_path_of("Secret", ref, names.control_secret_name(ref.name))))
        new = tuple(token for token in held.tokens if token not in known)
        if new:
            self._tokens[ref] = control_token.remembered(held.tokens, known)
            refusal = await _refused(call, new)
        elif refusal is None:
            raise ClusterError(f"Secret {names.control_secret_name(ref.name)} holds no control token yet")
        if refusal is not None:
            raise refusal


async def _refused(call: Callable[[str], Awaitable[None]], tokens: Sequence[str]) -> WorkerError | None:
    """The refusal when each of the tokens is; None as soon as one is accepted, or without any."""
    refusal = None
    for token in tokens:
        try:
            await call(token)
        except WorkerError as error:
            if error.status != 401:
                raise
            refusal = error
        else:
            return None
    return refusal


def _same_secret(live: Manifest, wanted: Manifest) -> bool:
    labels = live["metadata"].get("labels") or {}
    is_labelled = all(labels.get(key) == value for key, value in wanted["metadata"]["labels"].items())
    return is_labelled and all(live.get(key) == wanted[key] for key in ("type", "data")) and _same_owner(live, wanted)


def _same_owner(live: Manifest, wanted: Manifest) -> bool:
    owners = [owner.get("uid") for owner in live["metadata"].get("ownerReferences") or []]
    return owners == [owner["uid"] for owner in wanted["metadata"]["ownerReferences"]]


def _holds_size(live: Manifest) -> bool:
    """An apply of ours said the size, and the next one that does not would drop it."""
    return any(
        (entry.get("manager"), entry.get("operation")) == (names.OPERATOR_NAME, "Apply")
        and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in live["metadata"].get("managedFields") or []
    )


def _applied(manifest: Manifest, live: Manifest) -> _Applied:
    """What changes when anybody but the cluster's own controllers changes the object.

    The status of a Deployment moves its resourceVersion, so its generation counts, which the spec moves; and what the generation
    does not see.
    """
    digest, metadata = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest(), live["metadata"]
    if manifest["kind"] != "Deployment":
        return _Applied(digest, (metadata["uid"], metadata["resourceVersion"]))
    notes = {name: value for name, value in (metadata.get("annotations") or {}).items() if name.startswith(names.GROUP)}
    seen = (metadata["uid"], metadata["generation"], metadata.get("labels"), notes, metadata.get("ownerReferences"))
    return _Applied(digest, seen)


def _belongs(live: Manifest, manifest: Manifest) -> bool:
    """Whether it is controlled by the very inference that the manifest is for."""
    (owner,) = manifest["metadata"]["ownerReferences"]
    owners = live["metadata"].get("ownerReferences") or []
    return any(one.get("controller") and one.get("uid") == owner["uid"] for one in owners)


def _path(manifest: Manifest) -> str:
    metadata = manifest["metadata"]
    return f"/{_PLURALS[manifest['kind']].format(metadata['namespace'])}/{metadata['name']}"


def _path_of(kind: str, ref: Ref, name: str | None = None) -> str:
    """Path of an object; by default that of the inference's name, with an empty name that of all of the kind."""
    folder = f"/{_PLURALS[kind].format(ref.namespace)}"
    name = ref.name if name is None else name
    return f"{folder}/{name}" if name else folder


def _base_url(worker: Worker) -> str:
    if worker.address is None:
        raise WorkerError(f"{worker.name} has no address yet")
    host = f"[{worker.address}]" if ":" in worker.address else worker.address
    return f"http://{host}:{worker.control_port}"
