"""Cases computed by Kubernetes 1.34's own autoscaler code."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

VECTORS = Path(__file__).parent / "hpa.jsonl"
TOOL = Path(__file__).parents[3] / "tools" / "hpa_replay.py"


def _tool():
    loaded = importlib.util.spec_from_file_location("hpa_replay", TOOL)
    module = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["per_pod_metric", "timeline"])
def test_every_case_as_kubernetes_decides_it(kind):
    results = list(_tool().replay(VECTORS, kind))
    assert len(results) == 300
    assert [f"line {number}: {difference}" for number, difference in results if difference is not None] == []


def _timeline(behavior, recommended, expected, reason):
    steps = [{"after_s": 0, "recommended": recommended, "expected_replicas": expected, "limited_reason": reason}]
    sizes = {"start_replicas": 5, "min_replicas": 1, "max_replicas": 20}
    return json.dumps({"kind": "timeline", **sizes, "behavior": behavior, "steps": steps})


@pytest.mark.parametrize(
    ("behavior", "recommended", "expected", "reason"),
    [
        ({"scaleUp": {"policies": []}}, 9, 5, "ScaleUpLimit"),
        ({"scaleUp": {"policies": [], "selectPolicy": "Min"}}, 30, 20, "TooManyReplicas"),
        ({"scaleUp": {"policies": []}, "scaleDown": {"stabilizationWindowSeconds": 0}}, 2, 2, "DesiredWithinRange"),
        ({"scaleDown": {"policies": [], "stabilizationWindowSeconds": 0}}, 2, 5, "ScaleDownLimit"),
        ({"scaleDown": {"policies": [], "stabilizationWindowSeconds": 0, "selectPolicy": "Min"}}, 0, 1, "TooFewReplicas"),
    ],
)
def test_no_policy_at_all_is_for_the_rules_what_it_is_in_kubernetes(tmp_path, behavior, recommended, expected, reason):
    """No user gets so far: validation refuses it, in Kubernetes as here. Read off `calculateScaleUpLimitWithScalingRules`."""
    path = tmp_path / "vectors.jsonl"
    path.write_text(_timeline(behavior, recommended, expected, reason))
    assert [difference for _, difference in _tool().replay(path)] == [None]


@pytest.mark.parametrize(
    ("change", "said", "code"),
    [
        (lambda text: text, "600 passed, 0 failed", 0),
        (
            lambda text: text.replace('"expected_replicas":8,"error":false', '"expected_replicas":9,"error":false', 1),
            "599 passed, 1 failed",
            1,
        ),
    ],
)
def test_replay_counts_and_exits(tmp_path, change, said, code):
    path = tmp_path / "vectors.jsonl"
    path.write_text(change(VECTORS.read_text()))
    done = subprocess.run([sys.executable, TOOL, path], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (code, said)


def test_replay_of_no_vectors_says_so(tmp_path):
    path = tmp_path / "broken.jsonl"
    path.write_text("{")
    done = subprocess.run([sys.executable, TOOL, path], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
