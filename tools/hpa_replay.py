"""Replays autoscaling vectors (`hpa.jsonl`) against the operator's policy: `python tools/hpa_replay.py FILE`.

Prints the cases that differ and `N passed, M failed`; exits 1 when any failed.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yolastic_contract.behavior import Behavior, ScalingPolicy, ScalingRules
from yolastic_operator.policy import behavior as rules
from yolastic_operator.policy.hpa import PodMetrics, Tolerances, replicas_for


class _Rules(ScalingRules):
    """Also without any policy: validation refuses that, the rules themselves take it, in Kubernetes as here."""

    policies: list[ScalingPolicy] | None = None


class _Behavior(Behavior):
    scale_up: _Rules | None = None
    scale_down: _Rules | None = None


def per_pod_metric(case: dict[str, Any]) -> str | None:
    """What differs in a `per_pod_metric` case; None when nothing does."""
    ready = [pod["metric"] for pod in case["pods"] if pod["state"] == "ready"]
    pods = PodMetrics(
        values=tuple(metric for metric in ready if metric is not None),
        missing=ready.count(None),
        unready=sum(pod["state"] == "pending" for pod in case["pods"]),
    )
    tolerances = Tolerances(case["tolerance_up"], case["tolerance_down"])
    result = replicas_for(case["current_replicas"], case["target"], tolerances, pods)
    wanted = None if case["error"] else case["expected_replicas"]
    got = None if result is None else result.replicas
    return None if got == wanted else f"expected {wanted}, got {got}"


def timeline(case: dict[str, Any]) -> str | None:
    """The first step of a `timeline` case that differs; None when none does."""
    behavior = None if case["behavior"] is None else _Behavior.model_validate(case["behavior"])
    current, now_s, history = case["start_replicas"], 0.0, rules.History()
    for number, step in enumerate(case["steps"]):
        now_s += step["after_s"]
        history = rules.first_seen(history, current, now_s)
        result = rules.clamp(
            step["recommended"],
            current=current,
            minimum=case["min_replicas"],
            maximum=case["max_replicas"],
            behavior=behavior,
            history=history,
            now_s=now_s,
        )
        wanted, got = (step["expected_replicas"], step["limited_reason"]), (result.replicas, result.reason)
        if got != wanted:
            return f"step {number}: expected {wanted}, got {got}"
        history = rules.remember_recommendation(history, step["recommended"], behavior, now_s)
        if behavior is not None:  # without behavior Kubernetes decides every step by itself, at whatever distance
            history = rules.remember_scale(history, result.replicas - current, behavior, now_s)
        current = result.replicas
    return None


KINDS = {"per_pod_metric": per_pod_metric, "timeline": timeline}


def replay(path: Path, kind: str | None = None) -> Iterator[tuple[int, str | None]]:
    """(line number, what differs or None) of every case in the file, or of those of one kind."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            case = json.loads(line)
            if kind is None or case["kind"] == kind:
                check = KINDS.get(case["kind"])
                yield number, check(case) if check else f"unknown kind {case['kind']!r}"


def main(arguments: list[str]) -> int:
    """Command line: one file. Exit code 0 all passed, 1 some failed, 2 no such file or no JSON."""
    if len(arguments) != 1:
        print("usage: hpa_replay.py FILE", file=sys.stderr)
        return 2
    passed = failed = 0
    try:
        for number, difference in replay(Path(arguments[0])):
            if difference is None:
                passed += 1
            else:
                failed += 1
                print(f"line {number}: {difference}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 2
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
