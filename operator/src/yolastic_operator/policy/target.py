"""The load to aim for: `targetLoadPercent`, or less where the objective or the demand leaves no room for it. Pure."""

from yolastic_contract.inference import Autoscaling, InferenceSpec
from yolastic_operator.model import PolicyState
from yolastic_operator.policy import objective, swing


def aimed_for(spec: InferenceSpec, autoscaling: Autoscaling, state: PolicyState) -> tuple[Autoscaling, str]:
    """The same with the targets to aim for, and why they are lower, in words; empty: they are not.

    `scaleDownLoadPercent` keeps its distance from the target in proportion. Batches of a fixed size are made for no objective,
    and `forecast: None` looks at no more than the load.
    """
    target, wishes = autoscaling.target_load_percent, []
    if spec.objective is not None and state.full_batch is not None and spec.batching.policy != "Fixed":
        objective_ms, batch = spec.objective.latency_milliseconds, state.full_batch
        beside = f"{objective.images_beside(batch, objective_ms / 1000):.0f} images beside a batch of {batch.images}"
        percent = objective.load_percent(target, batch, objective_ms / 1000)
        wishes.append((percent, f"{objective_ms} ms leave time for {beside}"))
    if autoscaling.forecast == "Trend" and state.swing:
        wishes.append((swing.load_percent(target, state.swing), f"demand swings by {state.swing * 100:.0f} %"))
    percent, why = min(wishes, default=(target, ""))
    if percent >= target:
        return autoscaling, ""
    down = min(max(autoscaling.scale_down_load_percent * percent // target, 1), percent - 1)
    update = {"target_load_percent": percent, "scale_down_load_percent": down}
    return autoscaling.model_copy(update=update), f"not {target / 100:.2f}, since {why}"
