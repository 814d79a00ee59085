"""`yolastic-operator`: keeps the workers of every YoloInference of the cluster. Settings come from the environment."""

import argparse
import asyncio
import json
import logging
import os
import secrets
import sys
import time
from dataclasses import fields
from typing import Any, cast

import aiohttp
import kopf
from prometheus_client import CollectorRegistry, disable_created_metrics, start_http_server
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from yolastic_contract import names
from yolastic_operator import handlers, settings, standby, trimming
from yolastic_operator.act.manifests import Surroundings
from yolastic_operator.cluster.api import ApiError, KubernetesApi, connect
from yolastic_operator.cluster.base import ClusterError
from yolastic_operator.cluster.cache import FleetCache
from yolastic_operator.cluster.control import ControlClient
from yolastic_operator.cluster.drift import Drift
from yolastic_operator.cluster.kubernetes import KubernetesCluster
from yolastic_operator.cluster.leadership import Leadership
from yolastic_operator.heartbeat import Heartbeat
from yolastic_operator.loop import Loop, LoopSettings
from yolastic_operator.metrics import Metrics
from yolastic_operator.model import Ref
from yolastic_operator.observe.prometheus import Prometheus
from yolastic_operator.policy.accounts import Accounts
from yolastic_operator.policy.places import Places
from yolastic_operator.settings import Settings, SettingsError

_LOG = logging.getLogger("yolastic_operator")

SETTLE_S = 10.0
"""So long after its start the operator lends nothing of a shared device: longer than a grant of the one before can be on its way,
and than the watches need to show who is there."""


def main() -> None:
    """Entry point of the command; exit 2 with one sentence for what a person must change."""
    parser = argparse.ArgumentParser(
        prog="yolastic-operator",
        description="Keeps the workers of every YoloInference of a cluster: batches, replicas, status.",
        epilog="Settings are read from the environment: " + ", ".join(_variables()) + ".",
    )
    parser.parse_args()
    try:
        own = settings.load(os.environ)
        _configure_log(own)
        asyncio.run(run(own))
    except (SettingsError, ClusterError, OSError) as error:
        print(f"yolastic-operator: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


async def run(own: Settings, stop: asyncio.Event | None = None) -> None:
    """Run until SIGTERM, or until `stop` is set.

    Raises:
        ClusterError: there is no cluster to talk to, or it lacks the resource definitions.
        LeadershipLostError: another operator holds the Lease now.
        OSError: a port is taken.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]
    collectors = CollectorRegistry()
    metrics = Metrics(collectors)
    async with connect(metrics.request) as api, aiohttp.ClientSession() as session:
        await _check_resources(api)
        # Threads of their own: kopf ends what else runs in its event loop before it ends itself.
        server, trims = _serve_metrics(own, collectors), trimming.start()
        try:
            stop = stop or asyncio.Event()
            if own.lease_name is None:
                await _operate(own, _assemble(own, api, session, metrics), stop)
                return
            leadership = _leadership(own, own.lease_name, api, metrics)

            async def operate() -> None:
                deps = _assemble(own, api, session, metrics)
                deps.may_act = leadership.holds
                await _operate(own, deps, stop)

            await standby.alone(leadership, own.health_port, stop, operate)
        finally:
            trims()
            server()


async def _operate(own: Settings, deps: handlers.Deps, stop: asyncio.Event) -> None:
    registry = kopf.OperatorRegistry()
    handlers.register(registry, deps)

    @kopf.on.cleanup(registry=registry, id="stop")
    async def end(**_: Any) -> None:
        stop.set()  # after a signal kopf would wait 5 s for its own task that waits for this

    kopf_settings = kopf.OperatorSettings()
    handlers.configure(kopf_settings)
    _LOG.info("serving %s", ", ".join(own.namespaces) or "all namespaces")
    await kopf.operator(
        registry=registry,
        settings=kopf_settings,
        # Found out by kopf it needs a user's name, which a container with a numeric user does not have.
        identity=cast(Any, own.instance),
        clusterwide=not own.namespaces,
        namespaces=own.namespaces,
        liveness_endpoint=f"http://0.0.0.0:{own.health_port}/healthz",
        stop_flag=stop,
    )


def _leadership(own: Settings, name: str, api: KubernetesApi, metrics: Metrics) -> Leadership:
    # The name of a pod is its own, and then a restarted container goes on at once with the lease of the one before.
    me = own.instance if own.instance != Settings().instance else f"{own.instance}-{secrets.token_hex(4)}"

    def tell(holder: str, mine: bool) -> None:
        metrics.leader(holder, mine)
        if mine:
            _LOG.info("holds the Lease %s/%s as %s", own.own_namespace, name, holder)
        elif holder:
            _LOG.warning("does nothing: another operator, %s, holds the Lease %s/%s", holder, own.own_namespace, name)
        else:
            _LOG.warning("does nothing: the API server does not tell who holds the Lease %s/%s", own.own_namespace, name)

    return Leadership(api, own.own_namespace, name, me, tell)


def _assemble(own: Settings, api: KubernetesApi, session: aiohttp.ClientSession, metrics: Metrics) -> handlers.Deps:
    cache = FleetCache(time.monotonic)
    runtimes: dict[str, Any] = {}
    loop_settings = LoopSettings(
        turn_s=own.turn_seconds,
        propagation_delay_s=own.propagation_delay_seconds,
        stale_after_s=own.stale_after_seconds,
    )
    surroundings = Surroundings(own.propagation_delay_seconds, own.own_namespace, own.monitoring_namespace_labels)
    control = ControlClient(session, loop_settings.control_timeout_s)
    token_age_s = own.control_token_days * 86400.0 or None
    drift = Drift(time.monotonic)
    cluster = KubernetesCluster(
        api, control, surroundings, cache, runtimes, drift=drift, instance=own.instance, token_age_s=token_age_s
    )
    prometheus = None if own.prometheus_url is None else Prometheus(session, own.prometheus_url, own.stale_after_seconds)

    # Clocks of an API server and this host differ a little: a worker made about now is taken for an old one.
    places = Places()
    accounts = Accounts(born_s=time.time() + SETTLE_S, settle_s=SETTLE_S, expected=cache.with_workers)

    def make_loop(ref: Ref) -> Loop:
        accounts.listen(ref, lambda: deps.wake((ref.namespace, ref.name)))
        return Loop(cluster, ref, loop_settings, telemetry=metrics, prometheus=prometheus, accounts=accounts, places=places)

    def forget(ref: Ref) -> None:
        cluster.forget(ref)
        metrics.forget(ref)
        accounts.forget(ref, time.monotonic())
        places.forget(ref)

    watched = max(len(own.namespaces), 1)
    deps = handlers.Deps(make_loop, cache, runtimes, Heartbeat(time.monotonic), forget, own.turn_seconds, watched)
    deps.pod_gone, deps.drift = accounts.gone, drift
    return deps


async def _check_resources(api: KubernetesApi) -> None:
    try:
        found = await api.get(f"/apis/{names.API_VERSION}")
    except ApiError as error:
        raise ClusterError(f"the API server does not answer: {error}") from error
    if found is None:
        raise ClusterError(f"the cluster does not know {names.API_VERSION}: kubectl apply --server-side -f crds/")


def _serve_metrics(own: Settings, collectors: CollectorRegistry) -> Any:
    if own.metrics_port == 0:
        return lambda: None
    ProcessCollector(registry=collectors)
    PlatformCollector(registry=collectors)
    server, thread = start_http_server(own.metrics_port, registry=collectors)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=2)

    return stop


def _configure_log(own: Settings) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(
        _JsonFormatter() if own.log_format == "json" else logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    )
    logging.basicConfig(level=own.log_level, handlers=[handler])
    # A line for every event of a watch and every probe tells nobody anything.
    for chatty in ("aiohttp.access", "asyncio", "kopf.activities", "kopf.objects"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        fields_ = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields_["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields_, ensure_ascii=False)


def _variables() -> list[str]:
    return [settings.PREFIX + item.name.upper() for item in fields(Settings)]


if __name__ == "__main__":
    main()
