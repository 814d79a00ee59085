"""The batch ceiling: the smallest of four bounds, floored to a bucket, and the base tier below it.

    spec        batching.maxSize, and what the workers were started with
    memory      largest b with fixed + per_image*b <= limit less headroom
    latency     largest b with 2*(a + c*b) <= objective: an image waits for at most one batch, then runs in one
    efficiency  smallest b with b/(a + c*b) >= 0.95/c, that is 19a/c: beyond it a batch adds latency and hardly any throughput

`t(b) = a + c*b` is the median worker's: the slowest of many noisy fits would shrink the batches of every large fleet, and the
factor 2 above is already the worst case of waiting. Memory takes the largest fit, because running out of it has no margin. What
was measured replaces what was planned from the model's file as soon as one worker has it; a plan never forbids a single image.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.names import buckets_up_to
from yolastic_contract.quantity import format_bytes, parse_bytes
from yolastic_contract.runtime import RuntimeSpec
from yolastic_contract.state import Fit, WorkerState
from yolastic_operator.model import Bounds, CeilingDecision, CeilingLimit, Mode, Observation, PolicyState, Tiers
from yolastic_operator.policy.base_tier import base_for
from yolastic_operator.policy.workers import current_revision, is_serving, known_states

GROW_MARGIN: Final = 1.12
"""To grow, a bucket must still be allowed if every batch took this much longer: learned times swing by 5 % either way."""
EFFICIENT_BATCHES: Final = 19.0
"""0.95/(1 - 0.95): b/(a + c*b) reaches 95 % of 1/c at b = 19a/c."""
_MOST_IMAGES: Final = 1_000_000
_SMALLEST_S: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Budget:
    """Memory one worker may use, bytes; None: not known."""

    limit_bytes: int | None
    budget_bytes: int | None
    declared: bool


def decide_ceiling(
    observation: Observation, spec: InferenceSpec, runtime: RuntimeSpec, state: PolicyState
) -> CeilingDecision | None:
    """The tiers for the workers of the current revision; None until one of them has told its fits."""
    views = current_revision(observation)
    states = known_states(views)
    speed = _median_speed(states, spec.batching.max_size)
    measured = _largest(state.memory.fit for state in states)
    memory = measured or _largest(state.memory.plan for state in states)
    if not states or (speed is None and (memory is None or spec.batching.policy != "Fixed")):
        return None
    budget = budget_of(spec, runtime, states)
    previous = granted_before(observation, state, states)
    # Who ran out of memory works below its cap by itself, and each is granted no more than it has warm: it holds back nobody.
    able = [state for state in states if state.health.out_of_memory_cap is None] or [_most_warm(states)]
    # On a shared device that holds for one that had less room at its start, too.
    warm = [_most_warm(able)] if runtime.shared else able
    fitting = memory_bound(memory, budget.budget_bytes)
    bounds = _bounds(spec, warm, fitting, speed)
    ceiling, limited_by, wished = _ceiling(spec, bounds, speed, warm, previous)
    ready = sum(is_serving(view) for view in observation.workers)
    base = ceiling
    if spec.batching.policy == "Computed":
        base = base_for(ceiling, _warm(warm, spec), speed, state.demand, ready, previous=previous)
    decision = CeilingDecision(
        tiers=Tiers(base=base, ceiling=ceiling),
        bounds=bounds,
        limited_by=limited_by,
        budget_bytes=budget.budget_bytes,
        budget_source=None if budget.budget_bytes is None else ("Declared" if budget.declared else "Device"),
        fixed_bytes=None if memory is None else math.ceil(memory.fixed),
        per_image_bytes=None if memory is None else math.ceil(memory.per_image),
        fixed_s=None if speed is None else speed.fixed,
        per_image_s=None if speed is None else speed.per_image,
        fits=measured is None or fitting is None or fitting >= 1,
        fitting=fitting,
    )
    return replace(decision, message=explain(decision, spec, budget, planned=measured is None, wished=wished))


def hold_ceiling(decision: CeilingDecision, tiers: Tiers | None) -> CeilingDecision:
    """The decision with the tiers that workers were granted, for a time in which nothing may change; see `granted`."""
    if tiers is None:
        return decision
    if tiers == decision.tiers:
        return replace(decision, held=True)
    message = f"held at ceiling {tiers.ceiling}, base {tiers.base}; {decision.message}"
    return replace(decision, tiers=tiers, held=True, message=message)


def granted(observation: Observation, state: PolicyState, mode: Mode) -> Tiers | None:
    """What workers of this revision were granted, as they say or last said; None: nothing, as far as is known.

    That is not `PolicyState.tiers`: what was decided in mode Advisory was told to nobody. Outside Active nothing is granted anew,
    so what is known stays; and one that has run out of memory says less than it was granted.
    """
    states = [state for state in known_states(current_revision(observation)) if state.health.out_of_memory_cap is None]
    now = granted_before(observation, replace(state, tiers=None), states)
    before = state.granted if state.revision == observation.fleet.revision else None
    return (now or before) if mode == "Active" else (before or now)


def budget_of(spec: InferenceSpec, runtime: RuntimeSpec, states: Sequence[WorkerState]) -> Budget:
    """The limit less its headroom: what the inference declares, else the runtime, else the smallest a worker reports."""
    declared = spec.memory.limit if spec.memory.limit is not None else runtime.accelerator_memory
    if declared is not None:
        limit_bytes: int | None = parse_bytes(declared)
    else:
        limit_bytes = min((s.memory.limit_bytes for s in states if s.memory.limit_bytes is not None), default=None)
    budget_bytes = None if limit_bytes is None else limit_bytes * (100 - spec.memory.headroom_percent) // 100
    return Budget(limit_bytes, budget_bytes, declared is not None)


def granted_before(observation: Observation, state: PolicyState, states: Sequence[WorkerState]) -> Tiers | None:
    """Tiers the current revision works with: remembered, or after a restart what its workers say they were granted."""
    if state.tiers is not None and state.revision == observation.fleet.revision:
        return state.tiers
    # On a shared device what is lent at the moment says nothing about what is allowed.
    granted = [(s.ceiling.wanted or s.ceiling.ceiling, s.ceiling.base) for s in states if s.ceiling.granted]
    if not granted:
        return None
    ceiling, base = max(granted)
    return Tiers(base=base, ceiling=ceiling)


def memory_bound(fit: Fit | None, budget_bytes: int | None) -> int | None:
    """Largest batch within the budget, 0 when not even one image fits; None when it is not known or does not bind."""
    if fit is None or budget_bytes is None:
        return None
    free_bytes = budget_bytes - math.ceil(fit.fixed)
    per_image_bytes = math.ceil(fit.per_image)
    if per_image_bytes <= 0:
        return None if free_bytes >= 0 else 0
    return min(max(free_bytes // per_image_bytes, 0), _MOST_IMAGES)


def latency_bound(fit: Fit | None, objective_s: float | None) -> int | None:
    """Largest batch b with 2*(a + c*b) <= objective, at least 1; None without an objective, a fit, or a limit."""
    if fit is None or objective_s is None:
        return None
    free_s = objective_s / 2 - fit.fixed
    if fit.per_image <= _SMALLEST_S:
        return None if free_s >= 0 else 1
    images = math.floor(min(free_s / fit.per_image + 1e-9, _MOST_IMAGES))
    return max(images, 1)


def efficiency_bound(fit: Fit | None) -> int | None:
    """Smallest batch that reaches 95 % of the rate of an endless one; None when a batch takes no time for its images."""
    if fit is None or fit.per_image <= _SMALLEST_S:
        return None
    return max(math.ceil(min(EFFICIENT_BATCHES * fit.fixed / fit.per_image - 1e-9, _MOST_IMAGES)), 1)


def _most_warm(states: Sequence[WorkerState]) -> WorkerState:
    return max(states, key=lambda state: max(state.buckets, default=0))


def _bounds(spec: InferenceSpec, states: Sequence[WorkerState], fitting: int | None, speed: Fit | None) -> Bounds:
    started_with = min(state.max_batch for state in states)
    bounds = Bounds(
        spec=max(min(spec.batching.max_size, started_with), 1),
        memory=_memory_of(states, fitting),
    )
    if spec.batching.policy == "Fixed":
        return bounds
    return replace(bounds, latency=latency_bound(speed, _objective_s(spec)), efficiency=efficiency_bound(speed))


def _memory_of(states: Sequence[WorkerState], fitting: int | None) -> int | None:
    """The memory bound, cut to what is warm where memory ended a warm-up early, or all have run out of it."""
    stopped = [max(state.buckets) for state in states if state.buckets and max(state.buckets) < state.max_batch]
    return min([*stopped, *([] if fitting is None else [fitting])], default=None)


def _ceiling(
    spec: InferenceSpec, bounds: Bounds, speed: Fit | None, states: Sequence[WorkerState], previous: Tiers | None
) -> tuple[int, CeilingLimit, int]:
    """The ceiling, what limits it, and what it would be if it grew to all that is allowed."""
    smallest, limited_by = _smallest(bounds)
    if spec.batching.policy == "Fixed" and limited_by == "Spec":
        return smallest, limited_by, smallest
    warm = _warm(states, spec)
    allowed = _floor(smallest, warm)
    if previous is None or speed is None or spec.batching.policy == "Fixed" or allowed <= previous.ceiling:
        return allowed, limited_by, allowed
    slower, faster = speed.per_image * GROW_MARGIN, speed.fixed / GROW_MARGIN
    wary = replace(
        bounds,
        latency=latency_bound(
            speed.model_copy(update={"fixed": speed.fixed * GROW_MARGIN, "per_image": slower}), _objective_s(spec)
        ),
        efficiency=efficiency_bound(speed.model_copy(update={"fixed": faster, "per_image": slower})),
    )
    certain, certain_by = _smallest(wary)
    grown = max(_floor(certain, warm), _floor(previous.ceiling, warm))
    return grown, limited_by if grown == allowed else certain_by, allowed


def _smallest(bounds: Bounds) -> tuple[int, CeilingLimit]:
    named: list[tuple[int | None, CeilingLimit]] = [
        (bounds.spec, "Spec"),
        (bounds.memory, "Memory"),
        (bounds.latency, "Latency"),
        (bounds.efficiency, "Efficiency"),
    ]
    known = [(max(bound, 1), name) for bound, name in named if bound is not None]
    return min(known, key=lambda pair: pair[0])


def _warm(states: Sequence[WorkerState], spec: InferenceSpec) -> tuple[int, ...]:
    """Batch sizes that every worker has warmed up, ascending, 1 always among them."""
    common = set(buckets_up_to(spec.batching.max_size)).union(*(state.buckets for state in states))
    for state in states:
        if state.buckets:
            common &= set(state.buckets)
    return tuple(sorted(common | {1}))


def _floor(images: int, warm: Sequence[int]) -> int:
    return max((bucket for bucket in warm if bucket <= images), default=1)


def _objective_s(spec: InferenceSpec) -> float | None:
    return None if spec.objective is None else spec.objective.latency_milliseconds / 1000


def _median_speed(states: Sequence[WorkerState], images: int) -> Fit | None:
    """The fit of the middle worker by the time of a full batch; of two middle ones the slower."""
    fits = sorted((s.speed for s in states if s.speed is not None), key=lambda fit: (fit.at(images), fit.fixed))
    return fits[len(fits) // 2] if fits else None


def _largest(fits: Iterable[Fit | None]) -> Fit | None:
    known = [fit for fit in fits if fit is not None]
    if not known:
        return None
    return Fit(fixed=max(fit.fixed for fit in known), per_image=max(fit.per_image for fit in known))


def explain(decision: CeilingDecision, spec: InferenceSpec, budget: Budget, *, planned: bool, wished: int) -> str:
    """The sum in words, with every number; `planned`: no worker has measured its memory yet, `wished`: what is allowed."""
    bounds, tiers = decision.bounds, decision.tiers
    parts = [
        f"ceiling {tiers.ceiling}, base {tiers.base}, limited by {decision.limited_by.lower()}",
        f"spec allows {bounds.spec}",
    ]
    if bounds.memory is not None:
        parts.append(f"memory {bounds.memory}{_memory_sum(decision, budget, planned=planned)}")
    if decision.fixed_s is not None and decision.per_image_s is not None:
        time = f"{decision.fixed_s * 1000:.1f} ms + {decision.per_image_s * 1000:.2f} ms an image"
        if bounds.latency is not None and spec.objective is not None:
            parts.append(f"latency {bounds.latency} ({time}, twice within {spec.objective.latency_milliseconds} ms)")
            if 2 * (decision.fixed_s + decision.per_image_s) * 1000 > spec.objective.latency_milliseconds:
                parts.append("even a batch of 1 misses the objective when it has to wait for another")
        if bounds.efficiency is not None:
            parts.append(f"efficiency {bounds.efficiency}" + (f" ({time})" if bounds.latency is None else ""))
    if wished > tiers.ceiling:
        slower = f"{GROW_MARGIN - 1:.0%}".replace("%", " %")
        parts.append(f"it grows to {wished} once that is allowed with batches that are {slower} slower, too")
    return "; ".join(parts)


def _memory_sum(decision: CeilingDecision, budget: Budget, *, planned: bool) -> str:
    if decision.budget_bytes is None or decision.fixed_bytes is None or decision.per_image_bytes is None:
        return ""
    limit = "" if budget.limit_bytes is None else f" of {format_bytes(budget.limit_bytes)}"
    fit = f"{format_bytes(decision.fixed_bytes)} + {format_bytes(decision.per_image_bytes)} an image"
    told = f"{'planned ' if planned else ''}{fit} within {format_bytes(decision.budget_bytes)}{limit}"
    if decision.bounds.memory == decision.fitting:
        return f" ({told})"
    room = "allows any" if decision.fitting is None else f"allows {decision.fitting}"
    return f" (no more is warm on every worker, or left since they ran out of memory; {told} {room})"
