"""Names, buckets, metrics and statuses."""

import ast
import re
from pathlib import Path

import pytest

import yolastic_worker
from yolastic_contract import metrics, names, statuses

LABEL = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")


@pytest.mark.parametrize("name", ["a", "a" * names.MAX_INFERENCE_NAME_LENGTH, "weld-line-3"])
def test_names_of_children_and_labels_fit(name: str) -> None:
    assert re.fullmatch(names.INFERENCE_NAME_PATTERN, name)
    # A pod is NAME-<ReplicaSet hash>-<5 characters>; a label's value has at most 63.
    assert len(names.control_secret_name(name)) <= 63
    assert len(name) + len("-5d4f8c7b9d") <= 63
    assert all(LABEL.match(value) and len(value) <= 63 for value in names.worker_labels(name).values())


@pytest.mark.parametrize("name", ["", "1a", "-a", "a-", "a.b", "A", "a_b", "a\n"])
def test_names_that_cannot_name_a_service(name: str) -> None:
    assert re.fullmatch(names.INFERENCE_NAME_PATTERN, name) is None


@pytest.mark.parametrize(
    ("max_batch", "buckets"), [(1, (1,)), (2, (1, 2)), (24, (1, 2, 4, 8, 16, 24)), (32, (1, 2, 4, 8, 16, 32))]
)
def test_buckets_up_to(max_batch: int, buckets: tuple[int, ...]) -> None:
    assert names.buckets_up_to(max_batch) == buckets


ALL_METRICS = metrics.WORKER_METRICS + metrics.OPERATOR_METRICS


@pytest.mark.parametrize("metric", ALL_METRICS, ids=lambda metric: metric.name)
def test_metrics_are_named_by_the_rules_of_prometheus(metric: metrics.Metric) -> None:
    assert re.fullmatch(r"yolastic_[a-z_]+", metric.name)
    assert (metric.type == "counter") == metric.name.endswith("_total")
    assert not metric.name.endswith(("_ms", "_milliseconds", "_mib", "_percent"))
    assert (metric.type == "histogram") == bool(metric.buckets)
    assert list(metric.buckets) == sorted(metric.buckets)
    assert metric.help.endswith(".") or ": " in metric.help
    assert not {"le", "quantile"} & set(metric.labels)


def test_metrics_have_names_of_their_own() -> None:
    assert len({metric.name for metric in ALL_METRICS}) == len(ALL_METRICS)


def test_the_batch_histogram_counts_by_bucket() -> None:
    assert metrics.BATCH_SIZE.buckets == tuple(map(float, names.BUCKETS))


def test_a_worker_answers_with_no_status_that_is_not_documented() -> None:
    """Reads the first argument of every refusal in the worker's source."""
    used: dict[int, str] = {}
    for path in sorted(Path(yolastic_worker.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"Refusal", "ImageRefused"}:
                for argument in [*node.args[:1], *(word.value for word in node.keywords if word.arg == "status")]:
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, int):
                        used[argument.value] = f"{path.name}:{node.lineno}"
    documented = {status.code for status in statuses.STATUSES}
    assert {code: where for code, where in used.items() if code not in documented} == {}
    assert len(used) > 5  # the search finds what it looks for
