"""Which cluster the tests run on: a node of their own, one that was named, or none and why."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from cluster_kit.cluster import Cluster

FOLDER = Path(__file__).resolve().parents[1]
IMAGE_VARIABLES = ("YOLASTIC_OPERATOR_IMAGE", "YOLASTIC_WORKER_IMAGE")
GPUS = 2
GATEWAY = "10.244.0.1"
"""The node's address on the pods' bridge; see node/common.sh."""
BRIDGE = Path("/sys/class/net/yolastic0")
"""That bridge, as the kernel tells of it."""
BUILD_LIMIT_S = 2400
UP_LIMIT_S = 120


class NoClusterError(RuntimeError):
    """There is no cluster to test on; its text says why in one line."""


def named_cluster() -> Cluster | None:
    """The cluster that KUBECONFIG and the two image variables name; None: they do not."""
    path = os.environ.get("KUBECONFIG")
    if not path or not all(os.environ.get(name) for name in IMAGE_VARIABLES):
        return None
    tools = [shutil.which(name) for name in ("kubectl", "helm")]
    kubectl, helm = tools
    if kubectl is None or helm is None:
        raise NoClusterError("KUBECONFIG names a cluster, but kubectl or helm is not installed")
    return Cluster(Path(path), kubectl, helm, state=None, host_address="")


def why_no_node() -> str | None:
    """What keeps this host from running a node; None: nothing does."""
    missing = []
    if os.geteuid() != 0:
        missing.append("root")
    if shutil.which("go") is None and not built():
        missing.append("Go")
    if shutil.which("containerd") is None and shutil.which("apt-get") is None:
        missing.append("containerd")
    if not missing:
        return None
    hint = f"KUBECONFIG with {' and '.join(IMAGE_VARIABLES)} does not name a cluster either"
    return f"a node of our own needs {', '.join(missing)}, and {hint}"


def built() -> bool:
    """Whether the node's programs are in the user's cache."""
    script = f'source "{FOLDER}/node/common.sh" && [ -d "$BIN" ]'
    return subprocess.run(["bash", "-c", script], check=False, capture_output=True).returncode == 0


def start_node() -> Cluster:
    """Builds what is not built yet and starts a node; it goes when this process does.

    Raises:
        NoClusterError: this host cannot have one.
    """
    reason = why_no_node()
    if reason is not None:
        raise NoClusterError(reason)
    subprocess.run([FOLDER / "node/build.sh"], check=True, timeout=BUILD_LIMIT_S)
    # A short path: containerd's sockets are in it.
    state = Path(tempfile.mkdtemp(prefix="yolastic-node."))
    up = [str(FOLDER / "node/up.sh"), str(state), str(GPUS), str(os.getpid())]
    subprocess.run(up, check=True, timeout=UP_LIMIT_S, stdout=subprocess.DEVNULL)
    script = f'source "{FOLDER}/node/common.sh" && echo "$BIN"'
    tools = Path(subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True).stdout.strip())
    return Cluster(state / "admin.kubeconfig", str(tools / "kubectl"), str(tools / "helm"), state, GATEWAY)


def stop_node() -> None:
    """Takes this process's node down, if it is up; safe to call twice."""
    subprocess.run([FOLDER / "node/down.sh", str(os.getpid())], check=False, timeout=UP_LIMIT_S)


def build_images(cluster: Cluster) -> tuple[str, str]:
    """Names of the operator's and the worker's image in the cluster; a node of our own gets them built from the checkout."""
    if cluster.state is None:
        operator, worker = (os.environ[name] for name in IMAGE_VARIABLES)
        return operator, worker
    subprocess.run([FOLDER / "images.sh", cluster.state], check=True, timeout=BUILD_LIMIT_S)
    return "localhost/yolastic-operator:test", "localhost/yolastic-worker:test"
