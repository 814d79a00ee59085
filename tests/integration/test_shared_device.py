"""Three inferences on one simulated 24 GiB device, real workers: the memory is never over-granted, and a burst comes in time."""

import asyncio

import pytest
from benchmarks.shared_device import BASE, BUDGET_BYTES, CEILING, NAMES, Device, shared_device

pytestmark = pytest.mark.alone

WITHIN_S = 3.0
LOOKS_PER_S = 20.0


async def _phases() -> tuple[Device, dict[str, float]]:
    waited_s: dict[str, float] = {}
    async with shared_device() as device:
        await device.ready(40)
        # The load moves from one to the next; before it comes back to the first, all three want more than there is.
        for name in NAMES:
            async with device.load(name) as statuses:
                waited_s[name] = await device.until(name, CEILING, 10)
            assert set(statuses) <= {200}, "nobody waits in vain while memory changes hands"
        async with device.load(*NAMES):
            for name in NAMES:
                await device.until(name, 2 * BASE, 10)
            assert sum(device.looks[-1].bytes(name) for name in NAMES) <= BUDGET_BYTES
        async with device.load(NAMES[0]):
            waited_s["again"] = await device.until(NAMES[0], CEILING, 10)
    return device, waited_s


@pytest.mark.timeout(110)
def test_the_load_moves_and_the_sum_holds() -> None:
    device, waited_s = asyncio.run(_phases())
    assert device.looks_per_s() >= LOOKS_PER_S
    assert device.most_bytes() <= BUDGET_BYTES
    assert max(waited_s.values()) <= WITHIN_S, waited_s
    lent = {name: {look.states[name].ceiling.effective for look in device.looks if name in look.states} for name in NAMES}
    assert all(sizes >= {BASE, CEILING} for sizes in lent.values())
    explained = {step["about"]: step["text"] for step in device.runs[NAMES[0]].cluster.statuses["autoscaling"]["explanation"]}
    assert explained["Lease"].startswith("device GPU-0: ")
    assert "is lent a burst of 32, base 8" in explained["Lease"]
    for run in device.runs.values():
        told = run.cluster.statuses
        assert (told["batch"]["base"], told["batch"]["ceiling"], told["batch"]["bounds"]["lease"]) == (BASE, CEILING, CEILING)
        resolved = next(one for one in told["conditions"] if one["type"] == "MemoryBudgetResolved")
        assert (resolved["status"], resolved["reason"]) == ("True", "Device")
