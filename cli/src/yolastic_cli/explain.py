"""`yolastic explain`: why an inference has the size and the batch ceiling it has, in the words of the decision itself."""

import argparse
import asyncio
import json
import logging
import re
import shutil
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from yolastic_cli import running
from yolastic_cli.errors import CliError
from yolastic_contract import names
from yolastic_contract.inference_status import DecisionStatus, InferenceStatus
from yolastic_operator.act import status as folding
from yolastic_operator.cluster.base import ClusterError

HELP = "say why an inference has its size and its batch ceiling: what was seen, each step of the sum, what was done"
_TOLD: Final = ("MetricsAvailable", "ScalingActive", "ScalingLimited", "FallbackActive")
"""Conditions that speak of the decision."""
_WIDEST: Final = 130
_LABEL: Final = 11


@dataclass(frozen=True, slots=True)
class Found:
    """An inference with its status, and where it was found."""

    namespace: str
    name: str
    where: str
    status: InferenceStatus


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="name of the YoloInference")
    parser.add_argument("-n", "--namespace", help="its namespace (default: in a cluster that of the kubeconfig, here any)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--local", action="store_true", help="look for a running `yolastic up` alone")
    where.add_argument("--kubeconfig", type=Path, metavar="FILE", help="ask the cluster of this file alone")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the explanation; the exit code."""
    found = _find(arguments)
    age_s = _age_s(found)
    if arguments.json:
        print(json.dumps(_report(found, age_s), indent=2))
    else:
        # What others say of themselves stands in it: it is to be read, not to be obeyed by a terminal.
        print("\n".join("".join(one if one.isprintable() else "?" for one in line) for line in _lines(found, age_s)))
    return 0


def _find(arguments: argparse.Namespace) -> Found:
    """A `yolastic up` of this host first, then the cluster."""
    name, namespace = arguments.name, arguments.namespace
    if not re.fullmatch(names.INFERENCE_NAME_PATTERN, name):
        raise CliError(f"{name!a} is no name that a {names.INFERENCE_KIND} can have")
    if namespace is not None and not re.fullmatch("[a-z0-9]([-a-z0-9]*[a-z0-9])?", namespace):
        raise CliError(f"{namespace!a} is no name that a namespace can have")
    here = running.find(name, namespace) if arguments.kubeconfig is None else []
    if here:
        one = here[0]
        where = f"by `yolastic up` on this host, process {one.pid}, {one.url}"
        if len(here) > 1:
            where += f" (the newest of {len(here)})"
        return Found(one.namespace, one.name, where, folding.read(one.status))
    if arguments.kubeconfig is not None and not arguments.kubeconfig.exists():
        raise CliError(f"{arguments.kubeconfig}: there is no such file")  # the client would only miss what stands in it
    asked = name if namespace is None else f"{namespace}/{name}"
    if arguments.local:
        raise CliError(f"no `yolastic up` on this host runs {asked}")
    try:
        return asyncio.run(_from_cluster(name, namespace, arguments.kubeconfig))
    except ClusterError as error:
        also = "" if arguments.kubeconfig is not None else f"no `yolastic up` on this host runs {asked}, and "
        raise CliError(f"{also}the cluster cannot be asked: {error}") from error


async def _from_cluster(name: str, namespace: str | None, kubeconfig: Path | None) -> Found:
    # Importing a Kubernetes client takes a second that the other commands should not pay.
    from yolastic_operator.cluster.api import connect  # noqa: PLC0415

    # What the client would say of a missing file comes as one sentence from `connect`.
    logging.getLogger().addHandler(logging.NullHandler())
    file = None if kubeconfig is None else str(kubeconfig)
    namespace = namespace or _namespace(file)
    async with connect(lambda verb, code: None, file) as api:
        path = f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.INFERENCE_PLURAL}/{name}"
        body: dict[str, Any] | None = await api.get(path)
    if body is None:
        raise CliError(f"there is no {names.INFERENCE_KIND} {name} in namespace {namespace} of the cluster, and none runs here")
    return Found(namespace, name, "in the cluster", folding.read(body.get("status") or {}))


def _namespace(kubeconfig: str | None) -> str:
    """That of the kubeconfig's context, as kubectl takes it."""
    from kubernetes.aio import config  # noqa: PLC0415

    try:
        _, active = config.list_kube_config_contexts(kubeconfig)  # type: ignore[no-untyped-call]
        return str(active["context"].get("namespace") or "default")
    except Exception:  # whatever the library meets in a file that is none
        return "default"  # `connect` says what is wrong with it


def _age_s(found: Found) -> float:
    """How long ago the explanation was written. Raises CliError when there is none."""
    autoscaling = found.status.autoscaling
    written_s = folding.seconds(autoscaling.explained_time or "")
    if written_s is not None and autoscaling.explanation:
        return max(time.time() - written_s, 0.0)
    ready = next((condition for condition in found.status.conditions if condition.type == "Ready"), None)
    why = "no operator has looked at it" if ready is None else f"{ready.reason}: {ready.message}"
    raise CliError(f"nothing is decided for {found.namespace}/{found.name}, so there is nothing to explain: {why}")


def _report(found: Found, age_s: float) -> dict[str, Any]:
    """What `--json` prints: the status's own fields, and nothing that is not in it."""
    status = folding.render(found.status)
    autoscaling = status["autoscaling"]
    return {
        "namespace": found.namespace, "name": found.name, "where": found.where,
        "explainedTime": autoscaling["explainedTime"], "ageSeconds": round(age_s), "explanation": autoscaling["explanation"],
        "decisions": autoscaling.get("decisions", []), "conditions": status.get("conditions", []),
        "batch": status.get("batch", {}), "readyReplicas": found.status.ready_replicas,
        "desiredReplicas": found.status.desired_replicas, "recommendedReplicas": autoscaling.get("recommendedReplicas"),
        "advisedReplicas": autoscaling.get("advisedReplicas"),
    }  # fmt: skip


def _lines(found: Found, age_s: float) -> list[str]:
    status, autoscaling = found.status, found.status.autoscaling
    ceiling = "no batch ceiling yet" if status.batch.ceiling is None else f"batches of up to {status.batch.ceiling} images"
    lines = [
        f"{found.namespace}/{found.name}, {found.where}",
        f"{status.ready_replicas} of {status.desired_replicas} wanted workers ready, {ceiling}",
        *_why_not_ready(status),
        f"as of {autoscaling.explained_time}, {_ago(age_s)}; it is told anew when more than ages and noise changes",
        "",
    ]
    for step in autoscaling.explanation:
        lines += _wrapped(f"{step.about:<{_LABEL}}", step.text)
    known = {condition.type: condition for condition in status.conditions}
    lines += ["", *(f"{kind}={known[kind].status} ({known[kind].reason})" for kind in _TOLD if kind in known)]
    lines += ["", "the last decisions, newest first:" if autoscaling.decisions else "no size or ceiling was changed yet"]
    for decision in autoscaling.decisions:
        lines += _wrapped(f"{decision.time}  ", _decision(decision))
    return lines


def _why_not_ready(status: InferenceStatus) -> list[str]:
    """What the cluster says of workers that are missing: no sum tells that."""
    ready = next((condition for condition in status.conditions if condition.type == "Ready"), None)
    if ready is None or (ready.status == "True" and status.ready_replicas >= status.desired_replicas):
        return []
    return _wrapped("", f"Ready={ready.status} ({ready.reason}): {ready.message}")


def _decision(decision: DecisionStatus) -> str:
    told = [f"{decision.from_} -> {decision.to} workers"] if decision.from_ != decision.to else []
    if decision.batch_from != decision.batch_to:
        told.append(f"ceiling {'none' if decision.batch_from is None else decision.batch_from} -> {decision.batch_to} images")
    advice = "advice: " if decision.advice else ""
    return f"{advice}{', '.join(told)}: {decision.reason}: {decision.message}"


def _wrapped(label: str, text: str) -> list[str]:
    """On a terminal a paragraph beside its label; in a pipe one line, so that it can be searched."""
    if not sys.stdout.isatty():
        return [label + text]
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    return textwrap.wrap(text, max(width, 60), initial_indent=label, subsequent_indent=" " * len(label))


def _ago(age_s: float) -> str:
    if age_s < 120:
        return f"{age_s:.0f} s ago"
    return f"{age_s / 60:.0f} minutes ago" if age_s < 7200 else f"{age_s / 3600:.0f} hours ago"
