"""One function from an observation to a decision."""

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.model import Decision, Observation, PolicyState


def decide(observation: Observation, spec: InferenceSpec, runtime: RuntimeSpec, state: PolicyState, now_s: float) -> Decision:
    """What to run, what to grant and what to say, from everything one turn knows."""
    raise RuntimeError("being built")
