"""A Kubernetes cluster as the tests use it: kubectl, helm, waiting, and what went wrong."""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Object = dict[str, Any]
Value = TypeVar("Value")

POLL_S = 0.25


class CommandError(RuntimeError):
    """A kubectl or helm that ended with an error; its text is what the command said."""


def run(*argv: str | Path, stdin: str | bytes | None = None, timeout_s: float = 60, env: dict[str, str] | None = None) -> str:
    """Standard output of a command, decoded.

    Raises:
        CommandError: it ended with another status than 0.
    """
    given = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run([str(word) for word in argv], input=given, capture_output=True, timeout=timeout_s, env=env, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or done.stdout.decode(errors="replace").strip()
        raise CommandError(said or f"{argv[0]} ended with {done.returncode}")
    return done.stdout.decode(errors="replace")


def await_that(predicate: Callable[[], Value | None], timeout_s: float, what: str) -> Value:
    """What `predicate` returns as soon as that is true; it is asked again and again, also after a CommandError.

    Raises:
        AssertionError: it was not within `timeout_s`; the message tells `what` and its last answer.
    """
    end_s = time.monotonic() + timeout_s
    last: object = None
    while True:
        try:
            value = predicate()
            if value:
                return value
            last = value
        except CommandError as error:
            last = error
        if time.monotonic() > end_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what}; last: {last}")
        time.sleep(POLL_S)


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster and how it is reached."""

    kubeconfig: Path
    kubectl_path: str
    helm_path: str
    state: Path | None
    """The state folder of the node that was started for these tests; None: a cluster that was there."""
    host_address: str
    """Address at which pods reach this host; empty: they cannot."""

    def kubectl(self, *args: str | Path, stdin: str | bytes | None = None, timeout_s: float = 60) -> str:
        """Standard output of `kubectl ARGS`."""
        return run(self.kubectl_path, "--kubeconfig", self.kubeconfig, *args, stdin=stdin, timeout_s=timeout_s)

    def helm(self, *args: str | Path, timeout_s: float = 120) -> str:
        """Standard output of `helm ARGS`."""
        return run(self.helm_path, "--kubeconfig", self.kubeconfig, *args, timeout_s=timeout_s)

    def apply(self, *objects: Object) -> None:
        """Creates or changes the objects, as `kubectl apply` does."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def get(self, kind: str, name: str, namespace: str = "default") -> Object | None:
        """The object; None: there is none of that name."""
        text = self.kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        found: Object | None = json.loads(text) if text else None
        return found

    def list(self, kind: str, namespace: str, selector: str = "") -> list[Object]:
        """The objects of a kind in a namespace, those with the labels."""
        items: list[Object] = json.loads(self.kubectl("get", kind, "-n", namespace, "-l", selector, "-o", "json"))["items"]
        return items

    def delete(self, kind: str, name: str, namespace: str = "default", timeout_s: float = 60) -> None:
        """Deletes an object and waits until it is gone."""
        limit = f"--timeout={timeout_s:g}s"
        self.kubectl("delete", kind, name, "-n", namespace, "--ignore-not-found", limit, timeout_s=timeout_s + 10)

    def exec(self, namespace: str, pod: str, *command: str, stdin: str | bytes | None = None, timeout_s: float = 60) -> str:
        """Standard output of a command in a pod."""
        flag = ["-i"] if stdin is not None else []
        return self.kubectl("exec", *flag, "-n", namespace, pod, "--", *command, stdin=stdin, timeout_s=timeout_s)

    def await_ready(self, namespace: str, pod: str, timeout_s: float = 60) -> Object:
        """The pod, once it is Ready."""
        return await_that(lambda: ready(self.get("pod", pod, namespace)), timeout_s, f"pod {namespace}/{pod} is Ready")

    def diagnosis(self) -> str:
        """What a person would look at first: pods, events, and the words of the pods that are not well."""
        parts = [_section("pods", self._try("get", "pods", "-A", "-o", "wide"))]
        events = self._try("get", "events", "-A", "--sort-by=.lastTimestamp")
        parts.append(_section("events, the last 40", "\n".join(events.splitlines()[-40:])))
        for kind in ("yoloinferences", "yoloruntimes"):
            parts.append(_section(kind, self._try("get", kind, "-A", "-o", "yaml")))
        try:
            pods = json.loads(self.kubectl("get", "pods", "-A", "-o", "json"))["items"]
        except (CommandError, subprocess.TimeoutExpired) as error:
            return "\n".join([*parts, str(error)])
        for pod in pods:
            if ready(pod) and pod["metadata"]["labels"].get("app.kubernetes.io/name") != "yolastic-operator":
                continue
            namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
            parts.append(_section(f"logs of {namespace}/{name}", self._logs(namespace, name)))
        return "\n".join(parts)

    def _logs(self, namespace: str, pod: str) -> str:
        flags = ("-n", namespace, pod, "--all-containers", "--tail=60")
        return self._try("logs", *flags) + self._try("logs", *flags, "--previous")

    def _try(self, *args: str) -> str:
        try:
            return self.kubectl(*args, timeout_s=15)
        except (CommandError, subprocess.TimeoutExpired) as error:
            return f"{error}\n"


def ready(pod: Object | None) -> Object | None:
    """The pod, if it is Ready and not going."""
    return pod if pod and condition(pod, "Ready") == "True" and "deletionTimestamp" not in pod["metadata"] else None


def condition(thing: Object | None, kind: str) -> str | None:
    """Status of a condition; None: it has none of that type."""
    found = next((item for item in (thing or {}).get("status", {}).get("conditions", []) if item["type"] == kind), None)
    return found["status"] if found else None


def _section(title: str, text: str) -> str:
    return f"--- {title}\n{text.rstrip()}\n"
