"""helm, wherever it is: on PATH, or where the one-node cluster's tools were built."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/yolastic"
# A helm without a version of Kubernetes built in takes an old one for granted.
CLUSTER = ("--kube-version", "1.34.0")

Document = dict[str, Any]
Render = Callable[..., list[Document]]


def find_helm() -> str | None:
    found = shutil.which("helm")
    if found is not None:
        return found
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "yolastic/cluster"
    return next((str(path) for path in sorted(cache.glob("*/bin/helm"))), None)


HELM = find_helm()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without helm: one line in the summary instead of one for each test."""
    if HELM is None:
        missing = pytest.mark.skip(reason="no helm: neither on PATH nor built by tests/cluster/node/build.sh")
        for item in items:
            if "run_helm" in getattr(item, "fixturenames", ()):
                item.add_marker(missing)


@pytest.fixture(scope="session")
def run_helm(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs helm away from the user's own settings and clusters."""
    home = tmp_path_factory.mktemp("helm")
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(home), "KUBECONFIG": os.devnull}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        assert HELM is not None
        return subprocess.run([HELM, *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False)

    return run


@pytest.fixture(scope="session")
def render(run_helm: Callable[..., subprocess.CompletedProcess[str]]) -> Render:
    """Documents of the chart with these arguments."""

    def run(*arguments: str, chart: Path = CHART, release: str = "demo") -> list[Document]:
        done = run_helm("template", release, str(chart), "--namespace", "yolastic-system", *CLUSTER, *arguments)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return run
