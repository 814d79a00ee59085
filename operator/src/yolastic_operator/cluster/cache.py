"""What the watches showed last, so that a turn at rest asks the API server nothing. No I/O."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from yolastic_contract import names
from yolastic_operator.cluster.pods import is_over, shorten, worker_from_pod
from yolastic_operator.model import Fleet, Manner, Ref, Worker

Body = Mapping[str, Any]
Key = tuple[str, str]
Kind = Literal["pod", "deployment"]

USED_UP: Final = "exceeded quota"
"""With these words a ResourceQuota refuses a pod, and nobody else does."""

RESYNC_S: Final = 600.0
"""A watch that was cut off may miss a deletion; after this long an object's children are listed again, seconds."""


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """What the loop needs of a Deployment."""

    version: int
    replicas: int
    revision: str
    manner: Manner
    record: str
    unplaced: int = 0
    refusal: str = ""
    """Why its ReplicaSet can make no pod, or there can be no ReplicaSet, as the Deployment controller passes it on."""
    is_full: bool = False
    """A quota has no room for one more pod: one that makes room would help."""


@dataclass(slots=True)
class _Children:
    deployment: DeploymentView | None = None
    pods: dict[str, tuple[int, Worker, bool]] = field(default_factory=dict)
    changes: int = 0
    listed_s: float | None = None


class FleetCache:
    """Pods and Deployments by inference, kept by the watches and filled by a list where they have shown nothing yet."""

    def __init__(self, clock: Callable[[], float], resync_s: float = RESYNC_S) -> None:
        self._clock = clock
        self._resync_s = resync_s
        self._children: dict[Key, _Children] = {}
        self._with_workers: frozenset[Key] | None = None
        """None: something changed."""

    def put(self, kind: Kind, body: Body) -> Key | None:
        """Keep a pod or a Deployment unless something newer is known; the inference it is of, None when it is of none."""
        key = _key_of(kind, body)
        if key is None:
            return None
        children = self._children.setdefault(key, _Children())
        children.changes += 1
        self._with_workers = None
        if kind == "deployment":
            _keep_deployment(children, body)
        else:
            _keep_pod(children, body)
        return key

    def drop(self, kind: Kind, body: Body) -> Key | None:
        """Forget a pod or a Deployment that is gone; the inference it was of."""
        key = _key_of(kind, body)
        children = self._children.get(key) if key is not None else None
        if children is None:
            return key
        children.changes += 1
        self._with_workers = None
        if kind == "deployment":
            children.deployment = None
        else:
            children.pods.pop(body["metadata"]["name"], None)
        if children.listed_s is None and children.deployment is None and not children.pods and key is not None:
            del self._children[key]  # the last trace of an inference that was forgotten
        return key

    def scaled(self, ref: Ref, replicas: int, version: int) -> None:
        """Keep the size that was just ordered, before the watch tells it."""
        children = self._children.get(_key(ref))
        if children is not None and children.deployment is not None and children.deployment.version <= version:
            children.deployment = replace(children.deployment, replicas=replicas, version=version)

    def changes(self, ref: Ref) -> int:
        """Counts what was put and dropped; taken before a list, it tells `fill` whether the list is out of date."""
        return self._children.setdefault(_key(ref), _Children()).changes

    def fill(self, ref: Ref, deployment: Body | None, pods: Sequence[Body], changes: int) -> Fleet:
        """The fleet of a list; kept unless a watch told something while it was made."""
        listed = _Children(changes=changes, listed_s=self._clock())
        if deployment is not None:
            _keep_deployment(listed, deployment)
        for pod in pods:
            if _is_of(ref.name, pod):
                _keep_pod(listed, pod)
        if self.changes(ref) == changes:
            self._children[_key(ref)] = listed
            self._with_workers = None
        return _fleet(listed)

    def fleet(self, ref: Ref) -> Fleet | None:
        """The fleet as it is known; None when a list is due."""
        children = self._children.get(_key(ref))
        if children is None or children.listed_s is None or self._clock() - children.listed_s > self._resync_s:
            return None
        return _fleet(children)

    def last(self, ref: Ref) -> Fleet | None:
        """The same, however long ago it was listed; None when it never was."""
        children = self._children.get(_key(ref))
        return None if children is None or children.listed_s is None else _fleet(children)

    def with_workers(self) -> frozenset[Key]:
        """Inferences that have pods. Asked in every turn of every inference, so it is counted after a change alone."""
        if self._with_workers is None:
            known = self._children.items()
            self._with_workers = frozenset(key for key, one in known if any(not over for _, _, over in one.pods.values()))
        return self._with_workers

    def forget(self, ref: Ref) -> None:
        """The inference is gone; its children, which go a little later, are listed again should it come back."""
        self._children.pop(_key(ref), None)
        self._with_workers = None


def owner_key(body: Body) -> Key | None:
    """(namespace, inference) of a child by its labels."""
    metadata = body.get("metadata", {})
    name = (metadata.get("labels") or {}).get(names.LABEL_INFERENCE)
    return None if name is None else (metadata.get("namespace", ""), name)


def child_key(body: Body) -> Key | None:
    """The same of a child that is no pod: it bears the inference's name, and what bears another is a copy with all its labels."""
    key = owner_key(body)
    return key if key is not None and body["metadata"].get("name") == key[1] else None


def version_of(body: Body) -> int:
    """The resourceVersion as a number: later is larger for objects of one type."""
    text = str(body.get("metadata", {}).get("resourceVersion", ""))
    return int(text) if text.isdecimal() else 0


def view_deployment(body: Body) -> DeploymentView:
    """The part of a Deployment that is kept."""
    spec = body.get("spec", {})
    labels = spec.get("template", {}).get("metadata", {}).get("labels", {})
    update = spec.get("strategy", {}).get("rollingUpdate", {})
    manner: Manner = "OneByOne" if update.get("maxSurge", 1) == 0 else "Surge"
    away = update.get("maxUnavailable", 1)
    unplaced = max(away - 1, 0) if manner == "OneByOne" and isinstance(away, int) else 0
    record = (body.get("metadata", {}).get("annotations") or {}).get(names.ROLLOUT, "")
    revision = labels.get(names.LABEL_REVISION, "")
    no_pod, no_set = _refusals(body)
    is_full = USED_UP in no_pod
    refusal = shorten(no_pod or no_set)
    size = int(spec.get("replicas", 1))
    return DeploymentView(version_of(body), size, revision, manner, record, unplaced, refusal, is_full)


def _refusals(body: Body) -> tuple[str, str]:
    """Why there can be no pod, and why no ReplicaSet; empty where nothing is refused."""
    conditions: Sequence[Body] = body.get("status", {}).get("conditions") or []
    told = {(one.get("type"), one.get("status"), one.get("reason")): str(one.get("message", "")) for one in conditions}
    no_pod = next((text for (kind, status, _), text in told.items() if (kind, status) == ("ReplicaFailure", "True")), "")
    return no_pod, told.get(("Progressing", "False", "ReplicaSetCreateError"), "")


def _key_of(kind: Kind, body: Body) -> Key | None:
    if kind != "pod":
        return child_key(body)
    key = owner_key(body)
    return key if key is None or _is_of(key[1], body) else None


def _is_of(inference: str, pod: Body) -> bool:
    """It is of the Deployment of that name, or of nobody: a pod of a copy of the Deployment has all the labels, too."""
    metadata = pod.get("metadata", {})
    makers = [owner for owner in metadata.get("ownerReferences") or [] if owner.get("controller")]
    own = f"{inference}-{(metadata.get('labels') or {}).get('pod-template-hash', '')}"
    return all((maker.get("kind"), maker.get("name")) == ("ReplicaSet", own) for maker in makers)


def _keep_deployment(children: _Children, body: Body) -> None:
    seen = view_deployment(body)
    if children.deployment is None or seen.version >= children.deployment.version:
        children.deployment = seen


def _keep_pod(children: _Children, body: Body) -> None:
    name, version = body["metadata"]["name"], version_of(body)
    known = children.pods.get(name)
    if known is None or version >= known[0]:
        children.pods[name] = (version, worker_from_pod(body), is_over(body))


def _fleet(children: _Children) -> Fleet:
    over = [worker for _, worker, ended in children.pods.values() if ended]
    workers = [worker for _, worker, ended in children.pods.values() if not ended]
    # Pods that are over stay listed until they are collected; the newest one tells why there is no other.
    if not workers and over:
        workers = [max(over, key=lambda worker: worker.created_s)]
    deployment = children.deployment
    seen = tuple(sorted(workers, key=lambda worker: (worker.created_s, worker.name)))
    if deployment is None:
        return Fleet(replicas=None, workers=seen)
    told = deployment
    return Fleet(
        told.replicas,
        seen,
        told.revision,
        told.manner,
        told.record,
        unplaced=told.unplaced,
        refusal=told.refusal,
        is_full=told.is_full,
    )


def _key(ref: Ref) -> Key:
    return ref.namespace, ref.name
