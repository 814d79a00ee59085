"""Memory of the operator with fifty objects on a real API server."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.apiserver import api_server_with_resources, binaries, kubectl
from benchmarks.common import Row
from benchmarks.memory import resident_bytes

OBJECTS = 50
_SETTLE_S = 40.0


def _objects() -> str:
    runtime = {
        "apiVersion": "yolastic.dev/v1alpha1",
        "kind": "YoloRuntime",
        "metadata": {"name": "cpu"},
        "spec": {"image": "example.invalid/yolastic-worker:test"},
    }
    inferences = [
        {
            "apiVersion": "yolastic.dev/v1alpha1",
            "kind": "YoloInference",
            "metadata": {"name": f"line-{number}", "namespace": "default"},
            "spec": {
                "model": {"uri": "http://models.invalid/model.onnx", "sha256": f"{number:064x}"},
                "autoscaling": {"minReplicas": 1, "maxReplicas": 4},
            },
        }
        for number in range(OBJECTS)
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [runtime, *inferences]})


def operator_with_objects() -> list[Row]:
    """Resident memory of `yolastic-operator` once fifty objects have had some turns each."""
    folder = binaries()
    if folder is None:
        print("operator memory: not measured, needs the binaries that `make test-cluster` builds", flush=True)
        return []
    with api_server_with_resources(folder) as config:
        environment = {
            **os.environ,
            "KUBECONFIG": str(config),
            "YOLASTIC_OPERATOR_METRICS_PORT": "0",
            "YOLASTIC_OPERATOR_HEALTH_PORT": "18080",
        }
        operator = subprocess.Popen(
            [sys.executable, "-m", "yolastic_operator"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            kubectl(folder, config, "apply", "--server-side", "-f", "-", text=_objects())
            _await_deployments(folder, config)
            time.sleep(_SETTLE_S)  # some turns at rest
            resident_mib = resident_bytes(operator.pid) / 2**20
        finally:
            operator.terminate()
            operator.wait(20)
    settings = f"{OBJECTS} YoloInference objects on a real API server, turns of 5 s, after {_SETTLE_S:.0f} s at rest"
    return [Row("operator, resident", "<= 120 MB", f"{resident_mib:.0f} MB", resident_mib <= 120, settings)]


def _await_deployments(folder: Path, config: Path) -> None:
    deadline_s = time.monotonic() + 90
    while time.monotonic() < deadline_s:
        names = kubectl(folder, config, "get", "deployments", "-A", "-o", "name").split()
        if len(names) >= OBJECTS:
            return
        time.sleep(1)
    raise RuntimeError("the operator did not make its Deployments within 90 s")
