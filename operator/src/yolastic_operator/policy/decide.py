"""One function from an observation to a decision."""

from dataclasses import replace

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.model import CeilingDecision, Decision, Mode, Observation, PolicyState
from yolastic_operator.policy import demand, explain, forecast, objective, second, swing, victims
from yolastic_operator.policy.ceiling import decide_ceiling, granted, hold_ceiling
from yolastic_operator.policy.conditions import conditions
from yolastic_operator.policy.replicas import decide_replicas
from yolastic_operator.policy.workers import current_revision, known_states


def decide(  # noqa: PLR0917 - everything one turn knows
    observation: Observation,
    spec: InferenceSpec,
    runtime: RuntimeSpec,
    state: PolicyState,
    now_s: float,
    wanted_by: str = "",
) -> Decision:
    """What to run, what to grant and what to say, from everything one turn knows.

    Args:
        observation: workers with their readings, and the size ordered.
        spec: the inference as the user wrote it.
        runtime: the runtime it names.
        state: `Decision.state` of the turn before; empty after a restart, which then changes nothing.
        now_s: seconds of a clock that is never set; any zero.
        wanted_by: another inference that waits for a device of this one's kind (`Places.wanted_by`); empty: none.
    """
    state = replace(state, demand=demand.remember(state.demand, demand.sample(observation, now_s), now_s))
    state = forecast.remember(state, observation, now_s)
    state = replace(state, swing=swing.remember(state.swing, state.intervals))
    state = second.remember(state, observation, now_s, wanted_by)
    lone = second.lone(state, shared=runtime.shared, now_s=now_s, wanted_by=wanted_by)
    ceiling = decide_ceiling(observation, spec, runtime, state)
    told = known_states(current_revision(observation))
    state = replace(state, objective_percent=objective.remember(state.objective_percent, spec, ceiling, told))
    sized = decide_replicas(observation, spec, state, now_s, lone)
    mode: Mode = "Active" if spec.autoscaling is None else spec.autoscaling.mode
    state = replace(state, granted=granted(observation, state, mode))
    if mode == "Paused" and ceiling is not None:
        ceiling = hold_ceiling(ceiling, state.granted)
    return Decision(
        replicas=sized.decision,
        ceiling=ceiling,
        victims=victims.choose(observation, sized.decision.desired),
        conditions=conditions(observation, spec, sized.decision, ceiling),
        state=_with_tiers(
            replace(
                state,
                recommendations=sized.history.recommendations,
                scale_events=sized.history.scale_events,
                desired_replicas=sized.decision.desired,
                ordered_replicas=observation.fleet.replicas,
                lost_s=sized.lost_s,
                shrink_held_s=sized.shrink_held_s,
            ),
            ceiling,
            observation.fleet.revision,
        ),
        mode=mode,
        explanation=explain.steps(observation, sized.decision, ceiling),
    )


def _with_tiers(state: PolicyState, ceiling: CeilingDecision | None, revision: str | None) -> PolicyState:
    if ceiling is not None:
        return replace(state, tiers=ceiling.tiers, revision=revision)
    # A moment without any worker's figures changes nothing; a new revision starts anew.
    return state if state.revision == revision else replace(state, tiers=None, granted=None, revision=revision)
