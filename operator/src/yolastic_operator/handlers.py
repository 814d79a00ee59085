"""Where Kubernetes calls in: one daemon an inference runs its loop, events wake it. The only module that imports kopf."""

import asyncio
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import aiohttp
import kopf
from pydantic import ValidationError

from yolastic_contract import names
from yolastic_contract.inference import InferenceSpec
from yolastic_operator import pacing
from yolastic_operator.cluster.anew import anew
from yolastic_operator.cluster.cache import FleetCache, Key, Kind
from yolastic_operator.cluster.drift import Drift
from yolastic_operator.heartbeat import Heartbeat
from yolastic_operator.loop import Loop
from yolastic_operator.model import Ref
from yolastic_operator.refusal import describe

_LOG = logging.getLogger(__name__)

INFERENCES: Final = (names.GROUP, names.VERSION, names.INFERENCE_PLURAL)
RUNTIMES: Final = (names.GROUP, names.VERSION, names.RUNTIME_PLURAL)
DEPLOYMENTS: Final = ("apps", "v1", "deployments")
OTHERS: Final = {
    "Service": ("", "v1", "services"),
    "NetworkPolicy": ("networking.k8s.io", "v1", "networkpolicies"),
    "PodDisruptionBudget": ("policy", "v1", "poddisruptionbudgets"),
}
"""Children of which only an edit is news."""
PODS: Final = ("", "v1", "pods")

MIN_PAUSE_S: Final = 0.5
"""Between two turns at least: a burst of events makes one turn, seconds."""
LONGEST_PAUSE_S: Final = 4.0
"""Between two attempts at a watch or a list that failed, seconds: less than a turn."""
CONNECTIONS: Final = 16
"""kopf's requests to the API server at once, beside the watches: by itself it opens a connection, a quarter of a megabyte, for
every object that is there at the start."""
_WATCHES: Final = 7
STALLED_AFTER_S: Final = 300.0
"""A loop that has not ended a turn for this long is stuck, and the process is restarted, seconds."""


class Pauses:
    """Between attempts at a request of kopf's own, seconds: without an end, and never longer than a turn."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.5, 1.0, 2.0)
        while True:
            yield LONGEST_PAUSE_S


@dataclass(slots=True)
class Bell:
    """Wakes one loop."""

    rung: asyncio.Event = field(default_factory=asyncio.Event)
    generation: int = 0
    """Of the spec that the last turn read."""
    life: asyncio.Timeout = field(default_factory=lambda: asyncio.Timeout(None))
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def end(self) -> None:
        """End the loop, in the middle of a turn, too; it has ended when this returns."""
        if self.life.when() is None:
            self.life.reschedule(0.0)
        await self.over.wait()


@dataclass(slots=True)
class Deps:
    """What the handlers work with."""

    make_loop: Callable[[Ref], Loop]
    cache: FleetCache
    runtimes: MutableMapping[str, Mapping[str, Any]]
    """Runtimes by name, kept by the watch."""
    heartbeat: Heartbeat
    forget: Callable[[Ref], None]
    """Called when an inference is gone."""
    turn_s: float = 5.0
    """From one turn to the next at rest, seconds."""
    namespaces: int = 1
    """Namespaces that are watched each by itself; 1 also for all of them together."""
    may_act: Callable[[], bool] = lambda: True
    """Asked before each turn: false while another operator may be at work."""
    bells: dict[Key, Bell] = field(default_factory=dict)
    drift: Drift = field(default_factory=lambda: Drift(time.monotonic))
    """Told of every child but pods and the Secret."""
    pod_gone: Callable[[Key, str], None] = lambda key, pod: None
    """Called when a pod of an inference is no more."""

    def wake(self, key: Key | None) -> None:
        """Let the loop of an inference turn now."""
        bell = self.bells.get(key) if key is not None else None
        if bell is not None:
            bell.rung.set()


def register(registry: kopf.OperatorRegistry, deps: Deps) -> None:
    """Declare all handlers in `registry`."""
    _register_connection(registry, deps)
    _register_watches(registry, deps)

    @kopf.daemon(*INFERENCES, registry=registry, id="loop", cancellation_timeout=5.0, backoff=5.0)
    async def tend(body: kopf.Body, stopped: kopf.DaemonStopped, **_: Any) -> None:
        ref = Ref(body.meta.namespace or "", body.meta.name or "", body.meta.uid or "")
        try:
            await _tend(ref, body, deps)
        except asyncio.CancelledError:
            if not stopped:
                raise  # else this is how a loop ends, at once and without a word


def configure(settings: kopf.OperatorSettings) -> None:
    """Settings of kopf: why each differs from its default is said beside it."""
    # Events are the loop's to post, on changes only.
    settings.posting.enabled = False
    settings.peering.standalone = True
    # CustomResourceDefinitions and namespaces need not be watched: neither comes or goes while the operator runs.
    settings.scanning.disabled = True
    # A watch that died silently is noticed by its bookmarks; these are the belt.
    settings.watching.server_timeout = 600
    settings.watching.client_timeout = 660
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 500
    # Filters in decorators are applied here, after every pod of the cluster was received; these by the server.
    selector = f"{names.LABEL_NAME}={names.WORKER_APP_NAME},{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
    for kind in (PODS, DEPLOYMENTS, *OTHERS.values()):
        settings.watching.label_selectors[kind] = selector
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    # By default the pauses grow to 21 s, and after a minute of errors the process ends.
    settings.networking.error_backoffs = Pauses()
    # Otherwise an object may look dead for ten minutes after an outage of the API server.
    settings.queueing.error_delays = [1, 2, 5, 10, 30, 60]
    settings.execution.default_backoff = 5
    settings.persistence.finalizer = names.FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=names.GROUP)
    settings.persistence.diffbase_storage = _NoDiffBase()


class _NoDiffBase(kopf.DiffBaseStorage):
    """Nothing is kept, and an annotation of that name is read by nobody: no handler asks what changed since the last time."""

    def fetch(self, *, body: kopf.Body) -> Any:
        """Nothing."""
        return

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: Any) -> None:
        """Nowhere."""


def _register_connection(registry: kopf.OperatorRegistry, deps: Deps) -> None:
    @kopf.on.login(registry=registry, id="login", backoff=5.0)
    async def login(**kwargs: Any) -> kopf.AiohttpSession | None:
        info = kopf.login_with_service_account(**kwargs)
        # By address: a cluster whose DNS is down still scales.
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if info is not None and host:
            info = dataclasses.replace(info, server=f"https://{f'[{host}]' if ':' in host else host}:{port}")
        info = info or kopf.login_with_kubeconfig(**kwargs)
        return None if info is None else _session(info, CONNECTIONS + _WATCHES * deps.namespaces)

    # Any other error mode repeats a failing probe for minutes instead of answering it.
    @kopf.on.probe(registry=registry, id="heartbeat", errors=kopf.ErrorsMode.PERMANENT)
    async def heartbeat(**_: Any) -> str:
        late = deps.heartbeat.late(STALLED_AFTER_S)
        if late:
            raise kopf.PermanentError(f"no turn for {STALLED_AFTER_S:g} s: {', '.join(late)}")
        return "ok"


def _session(info: kopf.ConnectionInfo, connections: int) -> kopf.AiohttpSession:
    """The credentials with a session of so many connections; kopf closes it when they are replaced."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ssl=info.as_ssl_context()),
        headers=info.as_http_headers(),
        proxy=info.proxy_url,
        trust_env=bool(info.trust_env),
        middlewares=(anew,),
    )
    return kopf.AiohttpSession(
        server=info.server, default_namespace=info.default_namespace, priority=info.priority, aiohttp_session=session
    )


def _register_watches(registry: kopf.OperatorRegistry, deps: Deps) -> None:
    def child(kind: Kind, event: kopf.RawEvent) -> None:
        is_gone = event["type"] == "DELETED"
        key = (deps.cache.drop if is_gone else deps.cache.put)(kind, event["object"])
        if is_gone and kind == "pod" and key is not None:
            deps.pod_gone(key, event["object"]["metadata"]["name"])
        deps.wake(key)

    @kopf.on.event(*PODS, registry=registry, id="pod")
    async def pod(event: kopf.RawEvent, **_: Any) -> None:
        child("pod", event)

    @kopf.on.event(*DEPLOYMENTS, registry=registry, id="deployment")
    async def deployment(event: kopf.RawEvent, **_: Any) -> None:
        deps.drift.seen("Deployment", event["object"], gone=event["type"] == "DELETED")
        child("deployment", event)

    for name, kind in OTHERS.items():
        _register_other(registry, deps, name, kind)

    @kopf.on.event(*RUNTIMES, registry=registry, id="runtime")
    async def runtime(event: kopf.RawEvent, **_: Any) -> None:
        body = event["object"]
        name, spec = body["metadata"]["name"], body.get("spec", {})
        if event["type"] == "DELETED":
            deps.runtimes.pop(name, None)
        elif deps.runtimes.get(name, {}).get("spec") == spec:
            return
        else:
            deps.runtimes[name] = {"spec": spec}
        for key in deps.bells:
            deps.wake(key)

    @kopf.on.event(*INFERENCES, registry=registry, id="inference")
    async def inference(event: kopf.RawEvent, **_: Any) -> None:
        metadata = event["object"]["metadata"]
        # kopf keeps the object as it came; who owns which field is a third of it, and nobody here asks.
        cast(dict[str, Any], metadata).pop("managedFields", None)
        if event["type"] == "DELETED":
            # One that went before anything held it was never marked, and kopf ends a daemon, or begins none, by the mark alone.
            cast(dict[str, Any], metadata).setdefault("deletionTimestamp", metadata.get("creationTimestamp"))
        key = (metadata.get("namespace", ""), metadata["name"])
        bell = deps.bells.get(key)
        if bell is None:
            return
        if bell.generation:  # the status is read before the first turn, and after it the loop knows it better
            cast(dict[str, Any], event["object"]).pop("status", None)
        # Writes of the status come back as events, too; only another spec is news.
        if metadata.get("generation") != bell.generation:
            bell.rung.set()


def _register_other(registry: kopf.OperatorRegistry, deps: Deps, name: str, kind: tuple[str, str, str]) -> None:
    @kopf.on.event(*kind, registry=registry, id=name.lower())
    async def other(event: kopf.RawEvent, **_: Any) -> None:
        deps.wake(deps.drift.seen(name, event["object"], gone=event["type"] == "DELETED"))


async def _tend(ref: Ref, body: kopf.Body, deps: Deps) -> None:
    """Turn after turn until the object goes or the operator ends; then this task is cancelled."""
    key = ref.namespace, ref.name
    before = deps.bells.get(key)
    if before is not None:  # of an object of that name that went, and no watch told
        await before.end()
    deps.bells[key] = bell = Bell()
    deps.heartbeat.beat(str(ref))
    try:
        async with bell.life:
            await _turns(ref, body, bell, deps)
    except TimeoutError:
        _LOG.info("%s was made anew", ref)
    finally:
        del deps.bells[key]
        deps.heartbeat.end(str(ref))
        deps.forget(ref)
        bell.over.set()


async def _turns(ref: Ref, body: kopf.Body, bell: Bell, deps: Deps) -> None:
    loop, place_s = deps.make_loop(ref), pacing.phase_s(ref, deps.turn_s)
    while True:
        bell.rung.clear()
        pause_s = await _turn(loop, ref, body, bell, deps.turn_s) if deps.may_act() else deps.turn_s
        deps.heartbeat.beat(str(ref))
        if pause_s == deps.turn_s:
            pause_s = pacing.pause_s(time.monotonic(), place_s, pause_s)
        await asyncio.sleep(min(MIN_PAUSE_S, pause_s))
        try:
            async with asyncio.timeout(max(pause_s - MIN_PAUSE_S, 0)):
                await bell.rung.wait()
        except TimeoutError:
            pass


async def _turn(loop: Loop, ref: Ref, body: kopf.Body, bell: Bell, turn_s: float) -> float:
    # The body is a live view: what the watch showed last.
    generation, status = int(body.meta.get("generation") or 0), dict(body.status)
    bell.generation = generation
    try:
        try:
            spec = InferenceSpec.model_validate(dict(body.spec))
        except ValidationError as error:
            return await loop.refuse(generation, status, "InvalidSpec", describe(error))
        return await loop.turn(spec, generation, status)
    except Exception:
        # A daemon that raises is retried by kopf, too, but without its loop's memory.
        _LOG.exception("%s: the turn failed", ref)
        return turn_s
