"""Control tokens are replaced without a moment at which a worker would refuse the operator."""

import base64
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.act import manifests, workload
from yolastic_operator.act.control_token import OVERLAP_S, ControlTokens, following, read, remembered
from yolastic_operator.model import Ref

NOW_S = 1_795_000_000.0
DAY_S = 86400.0
ENSURE_EVERY_S = 120.0
KUBELET_S = 120.0
"""The longest a kubelet takes to bring a Secret into a running pod: a sync each minute, and what it caches."""
SPEC = InferenceSpec.model_validate({"model": {"uri": "http://models.invalid/m.onnx", "sha256": "0" * 64}})
WORK = workload.build(Ref("plant", "weld", "uid"), SPEC, "cpu", RuntimeSpec(image="worker:1"))


def secret(held: ControlTokens) -> dict[str, Any]:
    return manifests.control_secret(WORK, held)


@pytest.mark.parametrize(
    ("held", "known", "wanted"),
    [
        pytest.param(ControlTokens(), (), ControlTokens(("new",), NOW_S), id="the first"),
        pytest.param(ControlTokens(), ("a", "b"), ControlTokens(("a", "new"), NOW_S), id="deleted, and workers have it still"),
        pytest.param(ControlTokens(("a",), NOW_S - 9), (), ControlTokens(("a",), NOW_S - 9), id="young"),
        pytest.param(ControlTokens(("a",), NOW_S - 30 * DAY_S), (), ControlTokens(("a", "new"), NOW_S), id="old"),
        pytest.param(ControlTokens(("a",), None), (), ControlTokens(("a",), NOW_S), id="made by hand, age not known"),
        pytest.param(ControlTokens(("a",), NOW_S - 9, True), (), ControlTokens(("a", "new"), NOW_S), id="asked for"),
        pytest.param(ControlTokens(("a", "b"), NOW_S - 9), (), ControlTokens(("a", "b"), NOW_S - 9), id="under way"),
        pytest.param(
            ControlTokens(("a", "b"), NOW_S - 9, True), (), ControlTokens(("a", "b"), NOW_S - 9, True), id="asked under way"
        ),
        pytest.param(ControlTokens(("a", "b"), NOW_S - OVERLAP_S), (), ControlTokens(("b",), NOW_S), id="over"),
        pytest.param(
            ControlTokens(("a", "b"), NOW_S - OVERLAP_S, True), (), ControlTokens(("b", "new"), NOW_S), id="over, and asked for"
        ),
        pytest.param(ControlTokens(("a", "b"), NOW_S + DAY_S), (), ControlTokens(("a", "b"), NOW_S), id="from the future"),
    ],
)
def test_what_the_secret_must_say(held: ControlTokens, known: tuple[str, ...], wanted: ControlTokens) -> None:
    assert following(held, known, NOW_S, 30 * DAY_S, lambda: "new") == wanted


def test_without_a_limit_no_token_is_too_old() -> None:
    held = ControlTokens(("a",), NOW_S - 9999 * DAY_S)
    assert following(held, (), NOW_S, None, lambda: "new") == held


@pytest.mark.parametrize("content", ["", "!", "w6Q=", base64.b64encode(b" \n\n").decode()])
def test_a_secret_that_cannot_be_read_says_nothing(content: str) -> None:
    assert read({"data": {"token": content}}) == ControlTokens()
    assert read({"metadata": {"annotations": None}, "data": None}) == read(None) == ControlTokens()


def test_a_secret_says_what_was_written() -> None:
    held = ControlTokens(("a", "b"), NOW_S)
    assert read(secret(held)) == held
    live = secret(held)
    live["metadata"]["annotations"]["yolastic.dev/rotate"] = ""
    assert read(live) == ControlTokens(("a", "b"), NOW_S, True)


def test_somebodys_own_token_is_taken_without_its_line_break() -> None:
    assert read({"data": {"token": base64.b64encode(b"own\n").decode()}}).tokens == ("own",)


class World:
    """An operator, the Secret, and a worker whose file follows the Secret when the kubelet comes by."""

    def __init__(self) -> None:
        self.now_s, self.known, self.made = NOW_S, (), itertools.count()
        self.live: dict[str, Any] | None = None
        self.file: tuple[str, ...] = ()
        self.synced_s = NOW_S
        self.ensure()
        self.sync()

    known: tuple[str, ...]

    def ensure(self) -> None:
        held = read(self.live)
        due = following(held, self.known, self.now_s, 30 * DAY_S, lambda: f"token-{next(self.made)}")
        self.live, self.known = secret(due), remembered(due.tokens, self.known)
        if due.asked:
            self.ask()

    def sync(self) -> None:
        # A deleted Secret leaves the file in a running pod as it was.
        self.file, self.synced_s = read(self.live).tokens or self.file, self.now_s

    def ask(self) -> None:
        if self.live is not None:
            self.live["metadata"]["annotations"]["yolastic.dev/rotate"] = "now"

    def delete(self) -> None:
        self.live = None

    def restart(self) -> None:
        """The operator's process is another; it reads the Secret before it talks to a worker."""
        self.known = ()
        self.ensure()

    def wait(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(end_s, self.now_s + 10)
            if self.now_s - self.synced_s >= KUBELET_S:
                self.sync()


STEPS = st.one_of(
    st.sampled_from(["ask", "delete", "restart", "ensure", "sync"]),
    st.floats(0, 400).map(lambda seconds: ("wait", seconds)),
)


@given(st.lists(STEPS, max_size=40))
def test_the_token_that_is_presented_first_always_opens(steps: list[Any]) -> None:
    world = World()
    for step in steps:
        if isinstance(step, tuple):
            world.wait(step[1])
        elif step == "restart" and world.live is None:
            continue  # who loses the Secret and the operator at once waits for the kubelet
        else:
            getattr(world, step)()
        assert world.known[0] in world.file, (world.known, world.file)


@pytest.mark.parametrize("under_way", [False, True])
def test_a_leaked_token_is_worth_nothing_in_the_end(under_way: bool) -> None:
    world = World()
    leaked = world.known[0]
    world.ask()
    if under_way:
        world.ensure()
        leaked = read(world.live).tokens[-1]
        world.ask()
    for _ in range(8):
        world.wait(ENSURE_EVERY_S)
        world.ensure()
    world.wait(KUBELET_S)
    assert leaked not in world.file
    assert world.file == read(world.live).tokens == world.known[:1]


def test_few_tokens_are_remembered_the_latest_first() -> None:
    assert remembered(("d", "e"), ("a", "d", "b", "c", "x")) == ("d", "e", "a", "b")
