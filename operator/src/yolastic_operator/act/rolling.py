"""Follows the rollouts of one inference: plans the next step, and keeps its record as text that the cluster stores."""

import json
from collections.abc import Collection
from dataclasses import replace
from typing import Any, Final

from pydantic import ValidationError

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.model import ConditionUpdate, Fleet, Observation, Workload
from yolastic_operator.policy import rollout, rollout_words
from yolastic_operator.policy.rollout import GivenUp, Kept, Record, Watch

LONGEST: Final = 128 << 10
"""Characters of a record: all annotations of an object share 256 KiB, and an affinity may be as long as one likes."""


class Rolling:
    """The rollouts of one inference. What the cluster kept is read once: this process is the only one to write it."""

    def __init__(self) -> None:
        self._record: Record | None = None
        self._watch = Watch()
        self._text = ""
        self._turned_s: float | None = None
        """When `follow` was asked last."""
        self._clock_s = 0.0
        """Seconds in which the fleet was confirmed."""

    def follow(
        self,
        fleet: Fleet,
        wanted: Workload,
        now_s: float,
        *,
        homeless: Collection[str] = (),
        waiting: Collection[str] = (),
    ) -> Workload:
        """What to run in place of `wanted`, with how it replaces what runs; mostly that is `wanted` itself.

        While the fleet is unconfirmed no time passes: what nobody sees does not stand still, and no old worker makes room for it.

        `homeless`, `waiting`: as in `rollout.plan`.
        """
        record = read(fleet.record) if self._record is None else self._record
        if self._turned_s is not None and not fleet.unconfirmed:
            self._clock_s += now_s - self._turned_s
        self._turned_s = now_s
        kept = Kept(wanted.revision, wanted.runtime_name, wanted.spec, wanted.runtime)
        plan = rollout.plan(
            fleet,
            kept,
            record=record,
            watch=self._watch,
            now_s=self._clock_s,
            homeless=homeless,
            waiting=waiting,
        )
        if plan.record != self._record:
            self._text = render(plan.record)
        self._record, self._watch = plan.record, plan.watch
        target = plan.target
        return replace(
            wanted,
            spec=rollout.effective(target, wanted.spec) if target is not kept else wanted.spec,
            runtime_name=target.runtime_name,
            runtime=target.runtime,
            revision=target.revision,
            manner=plan.manner,
            record=self._text,
            unplaced=plan.unplaced,
        )

    def conditions(self, observation: Observation) -> list[ConditionUpdate]:
        """What to tell in place of the usual conditions: why the spec's own revision does not run."""
        given_up = self._record.given_up if self._record is not None else None
        return [] if given_up is None else rollout_words.rolled_back(given_up, observation)


def render(record: Record) -> str:
    """The record as text; empty where it is too long to be kept: then there is nothing to go back to after a restart."""
    text = _render(record)
    return text if len(text) <= LONGEST else ""


def _render(record: Record) -> str:
    parts: dict[str, Any] = {}
    has_served = record.good is not None and record.good == record.running
    if has_served:
        parts["served"] = True
    for name, kept in (("running", record.running), ("good", None if has_served else record.good)):
        if kept is not None:
            parts[name] = {
                "revision": kept.revision,
                "runtimeName": kept.runtime_name,
                "spec": kept.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True),
                "runtime": kept.runtime.model_dump(mode="json", by_alias=True, exclude_defaults=True),
            }
    lost = record.given_up
    if lost is not None:
        told = {"revision": lost.revision, "asked": lost.asked, "reason": lost.reason, "message": lost.message}
        parts["givenUp"] = told
    return json.dumps(parts, sort_keys=True, separators=(",", ":"))


def read(text: str) -> Record:
    """The record of a text; an empty one for what this version cannot read: then there is nothing to go back to."""
    try:
        parts = json.loads(text) if text else {}
        lost = parts.get("givenUp")
        given_up = None
        if lost is not None:
            given_up = GivenUp(str(lost["revision"]), str(lost["asked"]), str(lost["reason"]), str(lost["message"]))
        running = _kept(parts.get("running"))
        return Record(running, running if parts.get("served") is True else _kept(parts.get("good")), given_up)
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
        return Record()


def _kept(part: dict[str, Any] | None) -> Kept | None:
    if part is None:
        return None
    spec, runtime = InferenceSpec.model_validate(part["spec"]), RuntimeSpec.model_validate(part["runtime"])
    return Kept(str(part["revision"]), str(part["runtimeName"]), spec, runtime)
