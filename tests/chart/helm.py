"""helm, wherever it is, away from the user's own settings and clusters."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

# A helm without a version of Kubernetes built in takes an old one for granted.
CLUSTER = ("--kube-version", "1.34.0")


def find() -> str | None:
    """On PATH, or where the tools of the one-node cluster are built; None when in neither."""
    found = shutil.which("helm")
    if found is not None:
        return found
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "yolastic/cluster"
    return next((str(path) for path in sorted(cache.glob("*/bin/helm"))), None)


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`helm ARGUMENTS`, with `home` for its own files."""
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(home), "KUBECONFIG": os.devnull}
    return subprocess.run(
        [find() or "helm", *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False
    )


def render(home: Path, chart: Path, release: str, *arguments: str) -> list[dict[str, Any]]:
    """Documents of the chart with these arguments."""
    done = run(home, "template", release, str(chart), "--namespace", "yolastic-system", *CLUSTER, *arguments)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]
