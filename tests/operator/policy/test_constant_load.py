"""A load whose mean does not change, image by image as cameras and people send it: the size holds, forecast and all."""

import numpy
import pytest
from policy_builders import RUNTIME, autoscaled, seen, state, view

from yolastic_operator.model import Observation, PolicyState
from yolastic_operator.policy.decide import decide

TURN_S = 5.0
HOURS = 6.0


class Poisson:
    """Ready workers that share arrivals of a constant mean evenly; their own rates are over 15 s, as a worker tells them."""

    def __init__(self, size: int, capacity_per_s: float, mean_ratio: float, seed: int, hours: float = HOURS) -> None:
        self.size, self.capacity_per_s = size, capacity_per_s
        looks = int(hours * 3600 / TURN_S)
        mean = mean_ratio * capacity_per_s * TURN_S
        self.came = numpy.random.default_rng(seed).poisson(mean, (looks, size))
        self.totals = self.came.cumsum(axis=0)

    def look(self, at: int) -> Observation:
        views = []
        for number in range(self.size):
            lately_per_s = float(self.came[max(at - 2, 0) : at + 1, number].sum()) / 15.0
            told = state(arrived_per_s=lately_per_s)
            load = told.load.model_copy(
                update={"demand_images": int(self.totals[at, number]), "capacity_per_s": self.capacity_per_s}
            )
            told = told.model_copy(update={"worker_id": f"w{number}", "load": load})
            views.append(view(f"w{number}", lately_per_s / self.capacity_per_s, told))
        return seen(*views)


@pytest.mark.parametrize(
    ("size", "capacity_per_s", "mean_ratio", "alone_percent"),
    [
        (1, 10, 0.5, 100), (1, 10, 0.55, 100), (2, 50, 0.62, 20), (3, 10, 0.62, 20), (2, 350, 0.62, 20),
        (1, 10, 0.15, 20), (1, 350, 0.19, 20),
    ],
)  # fmt: skip
def test_arrivals_of_a_constant_mean_move_nothing(
    size: int, capacity_per_s: float, mean_ratio: float, alone_percent: int
) -> None:
    rules = autoscaled(1, 50, secondWorkerLoadPercent=alone_percent)
    world, policy, now_s = Poisson(size, capacity_per_s, mean_ratio, seed=7), PolicyState(), 0.0
    for at in range(len(world.came)):
        decision = decide(world.look(at), rules, RUNTIME, policy, now_s)
        assert decision.replicas.desired == size, (now_s, decision.replicas.message)
        policy, now_s = decision.state, now_s + TURN_S


@pytest.mark.parametrize("capacity_per_s", [5, 350])
@pytest.mark.parametrize("load", [0.14, 0.2, 0.22, 0.3])
def test_a_second_worker_comes_at_most_once_and_stays(capacity_per_s: float, load: float) -> None:
    """Over two hours, wherever the mean lies about the share that a second one comes at, and without a window that holds it."""
    worlds = {size: Poisson(size, capacity_per_s, load / size, seed=7, hours=2.0) for size in (1, 2)}
    rules = autoscaled(1, 50, behavior={"scaleDown": {"stabilizationWindowSeconds": 0}})
    policy, now_s, sizes = PolicyState(), 0.0, [1]
    for at in range(len(worlds[1].came)):
        decision = decide(worlds[sizes[-1]].look(at), rules, RUNTIME, policy, now_s)
        policy, now_s = decision.state, now_s + TURN_S
        if decision.replicas.desired != sizes[-1]:
            sizes.append(decision.replicas.desired)
    assert sizes in ([1], [1, 2]), sizes
    assert len(sizes) == 2 or (load, capacity_per_s) < (0.3, 350)
