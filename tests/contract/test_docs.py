"""What people meet is explained: every reason, status, code word, event and exit code in the code stands in the documentation.

The words are read from the sources, so that a new one fails here until docs/troubleshooting.md says what it means. Links and
paths in the documentation lead somewhere.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from yolastic_contract import failure, statuses
from yolastic_contract.inference import InferenceSpec

ROOT = Path(__file__).resolve().parents[2]
WORKER, OPERATOR = ROOT / "worker/src/yolastic_worker", ROOT / "operator/src/yolastic_operator"
PAGES = tuple(sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]))
TROUBLE = (ROOT / "docs/troubleshooting.md").read_text("utf-8")

_WORD = re.compile(r"[A-Z][a-z]+(?:[A-Z][a-z]+)*")
_CODE = re.compile(r"\b[45]\d\d,\s*b?\"([a-z]+(?:_[a-z]+)*)\"")
_REFUSED_CODE = re.compile(r"\bRefused\(\d{3}, .*\"([a-z]+(?:_[a-z]+)*)\"\)")

TELLING = (
    "policy/conditions.py", "policy/replicas.py", "policy/demand.py", "policy/fallback.py", "policy/behavior.py",
    "policy/rollout.py",
    "act/children.py", "act/events.py",
    "cluster/base.py", "cluster/pods.py", "cluster/process.py", "cluster/kubernetes.py", "cluster/local.py", "handlers.py",
    "loop.py",
)  # fmt: skip
"""Where the operator's reasons and events are written."""
NO_REASONS = frozenset({
    # values of fields, of conditions and of Python
    "True", "False", "Unknown", "None", "Active", "Normal", "Warning", "Hold", "Static", "Trend", "Max", "Percent", "Pods",
    "Disabled", "OnnxRuntime", "Simulated", "Prometheus", "Workers", "Auto", "Recreate", "Surge",
    # steps of an explanation
    "Fallback", "Forecast", "Load", "Mode", "Room", "Second", "Survivors", "Windows",
    # what Kubernetes calls its own
    "Deployment", "Event", "NetworkPolicy", "Pod", "PodDisruptionBudget", "Secret", "Service", "YoloInference", "Reconcile",
    "PodScheduled", "Succeeded", "Terminating", "Pending", "Failed", "Draining", "ContainerCreating",
    "CreateContainerConfigError", "PodInitializing", "Apply",
    "ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "RegistryUnavailable",
})  # fmt: skip
"""Words of those modules that no condition, decision or event carries; ErrImagePull and its like become ImagePullFailed."""
MADE_OF_PARTS = (
    "LimitedBySpec", "LimitedByMemory", "LimitedByLatency", "LimitedByEfficiency",
    "FallbackStatic", "FallbackAtLeast", "Advisory",
)  # fmt: skip
"""Words that the code puts together from others."""


def _words(path: Path) -> Iterator[str]:
    """CamelCase constants of a module, annotations left out."""
    tree = ast.parse(path.read_text("utf-8"))
    hints = [hint for node in ast.walk(tree) for name in ("annotation", "returns") if (hint := getattr(node, name, None))]
    left_out = {id(part) for hint in hints for part in ast.walk(hint)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in left_out
            and _WORD.fullmatch(node.value)
        ):
            yield node.value


def _operator_words() -> list[str]:
    found = {word for module in TELLING for word in _words(OPERATOR / module)} - NO_REASONS
    return sorted({*found, *MADE_OF_PARTS})


def _codes() -> list[str]:
    found: set[str] = set()
    for path in WORKER.rglob("*.py"):
        text = path.read_text("utf-8")
        found.update(_CODE.findall(text), _REFUSED_CODE.findall(text))
    return sorted({*found, "starting", "draining", "failed"})  # a phase is the code of /readyz


def _stands(word: str) -> bool:
    return re.search(rf"(?<![A-Za-z_]){word}(?![A-Za-z_])", TROUBLE) is not None


@pytest.mark.parametrize("word", _operator_words())
def test_every_reason_of_the_operator_is_explained(word: str) -> None:
    assert _stands(word), f"docs/troubleshooting.md says nothing of {word}"


@pytest.mark.parametrize("reason", failure.REASONS)
def test_every_reason_of_a_worker_is_explained(reason: str) -> None:
    after = TROUBLE.partition("## Why a worker does not start")[2]
    assert re.search(rf"^\| [^|]*\b{reason}\b", after, re.MULTILINE), (
        f"docs/troubleshooting.md does not say what to do about {reason}"
    )


@pytest.mark.parametrize("code", _codes())
def test_every_code_of_an_error_is_explained(code: str) -> None:
    assert _stands(code), f"docs/troubleshooting.md says nothing of the error {code}"


@pytest.mark.parametrize("status", [status.code for status in statuses.STATUSES if status.code >= 400])
def test_every_status_has_a_row(status: int) -> None:
    assert f"\n| {status} |" in TROUBLE


def test_rows_of_statuses_are_those_of_the_contract() -> None:
    told = {int(number) for number in re.findall(r"^\| (\d{3}) \|", TROUBLE, re.MULTILINE)}
    assert told == {status.code for status in statuses.STATUSES if status.code >= 400}


@pytest.mark.parametrize("code", statuses.EXIT_CODES)
def test_every_exit_code_has_a_row(code: int) -> None:
    assert f"\n| {code} |" in TROUBLE


def test_the_sources_are_read() -> None:
    """Nothing above would fail if the words were not found any more."""
    assert {"WorkersReady", "MetricOutage", "ShrinkGrowing", "NameTaken", "InvalidSpec", "Rescaled"} <= set(_operator_words())
    assert {"quarantined", "displaced", "too_many_images", "url_failed", "body_timeout", "deadline_passed"} <= set(_codes())


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        aim = page if not path else (page.parent / path).resolve()
        assert aim.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", aim.read_text("utf-8"), re.MULTILINE)
            assert anchor in map(_anchor, headings), f"{page.name} links to {target}"


def test_modules_that_architecture_names_are_there() -> None:
    """`batcher/batcher.py`, `policy/hpa.py`: each is a file of one of the packages, or of the repository."""
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    known = {str(path.relative_to(ROOT)) for path in ROOT.glob("*/src/*/**/*.py")}
    for name in set(re.findall(r"`([a-z_/]+\.py)`", text)):
        ending = f"/{name.removeprefix('contract/').removeprefix('cli/')}"
        assert (ROOT / name).is_file() or any(path.endswith(ending) for path in known), f"docs/architecture.md names {name}"


def test_what_the_comments_of_an_example_offer_is_accepted() -> None:
    """`# field: value` in examples/kubernetes.yaml, with the comment sign taken away."""
    text = (ROOT / "examples/kubernetes.yaml").read_text("utf-8")
    offered, count = re.subn(r"^(\s+)# (?=\s*[a-zA-Z]+:)", r"\1", text, flags=re.MULTILINE)
    assert count >= 5
    spec = InferenceSpec.model_validate(yaml.safe_load(offered)["spec"])
    assert spec.autoscaling is not None
    assert (spec.autoscaling.mode, spec.queue.overflow) == ("Advisory", "DropOldest")
    assert spec.api_keys_secret_name is not None


_FOREIGN = frozenset({"--set", "--create-namespace", "--type", "--previous", "--from-file", "--help"})
"""Of helm, kubectl and argparse."""


def test_flags_that_pages_name_are_there() -> None:
    sources = [path.read_text("utf-8") for folder in ("worker/src", "cli/src") for path in (ROOT / folder).rglob("*.py")]
    known = {flag for text in sources for flag in re.findall(r"\"(--[a-z][a-z-]*)\"", text)} | _FOREIGN
    for page in PAGES:
        told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+[a-z]", page.read_text("utf-8")))
        assert told <= known, f"{page.name} names {told - known}"


def test_commands_that_pages_name_are_there() -> None:
    known = {
        "yolastic": re.findall(r"add_parser\(\"([a-z-]+)\"", (ROOT / "cli/src/yolastic_cli/__main__.py").read_text("utf-8")),
        "yolastic-worker": re.findall(r"add_parser\(\s*\"([a-z-]+)\"", (WORKER / "settings.py").read_text("utf-8")),
    }
    for page in PAGES:
        for command, verb in re.findall(r"`(?:\.venv/bin/)?(yolastic(?:-worker)?) ([a-z-]+)", page.read_text("utf-8")):
            assert verb in known[command], f"{page.name} names {command} {verb}"


def test_fields_that_pages_name_are_there() -> None:
    """`autoscaling.mode`, `status.batch`, `spec.model.uri`: each stands in the reference."""
    reference = (ROOT / "docs/reference.md").read_text("utf-8")
    fields = set(re.findall(r"^\| `([a-zA-Z.\[\]]+)` \|", reference, re.MULTILINE))
    maps = set(re.findall(r"^\| `([a-zA-Z.]+)` \| map of", reference, re.MULTILINE))
    tops = {field.partition(".")[0] for field in fields if "." in field}
    for page in PAGES:
        for name in re.findall(r"`((?:spec\.|status\.)?[a-z][a-zA-Z]*(?:\.[a-z][a-zA-Z]*)+)`", page.read_text("utf-8")):
            path = name.removeprefix("spec.").removeprefix("status.")
            if path.partition(".")[0] in tops and not path.endswith(".py"):
                assert path in fields or path.rpartition(".")[0] in maps, f"{page.name} names {name}"
