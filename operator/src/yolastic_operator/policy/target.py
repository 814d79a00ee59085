"""The load to aim for: `targetLoadPercent`, or less where the objective or the demand leaves no room for it. Pure."""

from yolastic_contract.inference import Autoscaling, InferenceSpec
from yolastic_operator.model import PolicyState
from yolastic_operator.policy import swing


def aimed_for(spec: InferenceSpec, autoscaling: Autoscaling, state: PolicyState) -> tuple[Autoscaling, str]:
    """The same with the targets to aim for, and why they are lower, in words; empty: they are not.

    `scaleDownLoadPercent` keeps its distance from the target in proportion. `forecast: None` looks at no swing.
    """
    target, wishes = autoscaling.target_load_percent, []
    if spec.objective is not None and state.objective_percent is not None:
        room = f"an objective of {spec.objective.latency_milliseconds} ms leaves room for {state.objective_percent / 100:.2f}"
        wishes.append((state.objective_percent, f"{room} beside a batch"))
    if autoscaling.forecast == "Trend" and state.swing:
        wishes.append((swing.load_percent(target, state.swing), swing.words(state.swing)))
    percent, why = min(wishes, default=(target, ""))
    if percent >= target:
        return autoscaling, ""
    down = min(max(autoscaling.scale_down_load_percent * percent // target, 1), percent - 1)
    update = {"target_load_percent": percent, "scale_down_load_percent": down}
    return autoscaling.model_copy(update=update), f"not {target / 100:.2f}, since {why}"
