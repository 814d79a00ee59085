"""`yolastic up` with API keys and URL hosts: what an object says reaches the workers of this host."""

import hashlib
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples/models/shapes.onnx"
KEY = "yk_" + "0123456789abcdef" * 2
DOCUMENTS = """
apiVersion: v1
kind: Secret
metadata: {{name: clients}}
stringData:
  keys: |
    # camera of line 3
    {line}
---
apiVersion: yolastic.dev/v1alpha1
kind: YoloRuntime
metadata: {{name: pretend}}
spec: {{backend: Simulated, simulate: 'fixed_ms=1', urlHosts: ['*.images.example.org']}}
---
apiVersion: yolastic.dev/v1alpha1
kind: YoloInference
metadata: {{name: shapes}}
spec:
  model: {{uri: "file://{model}", sha256: "{digest}"}}
  runtime: pretend
  apiKeysSecretName: clients
"""


def write(folder: Path, line: str) -> str:
    digest = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    file = folder / "up.yaml"
    file.write_text(DOCUMENTS.format(line=line, model=MODEL, digest=digest))
    return str(file)


@contextmanager
def up(file: str) -> Iterator["subprocess.Popen[str]"]:
    """A `yolastic up` that is gone afterwards, workers and all."""
    command = [sys.executable, "-m", "yolastic_cli", "up", "--port", "0", "-v", "-f", file]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.communicate()
        psutil.wait_procs(family, timeout=5)


def status(url: str, body: bytes | None = None, **headers: str) -> int:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, told), timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_keys_and_hosts_of_the_file_reach_the_workers(tmp_path: Path) -> None:
    with up(write(tmp_path, f"camera-3:{hashlib.sha256(KEY.encode()).hexdigest()}:100")) as process:
        assert process.stdout is not None
        told = ""
        for line in process.stdout:
            told += line
            found = re.search(r"serving on (\S+); try: curl -H 'Authorization: Bearer KEY' -F", line)
            if found is not None:
                break
        assert found is not None, told
        (worker,) = psutil.Process(process.pid).children()
        arguments = worker.cmdline()
        assert arguments[arguments.index("--url-hosts") + 1] == "*.images.example.org"
        keys = Path(arguments[arguments.index("--api-keys-file") + 1])
        assert keys.stat().st_mode & 0o777 == 0o600
        assert status(f"{found[1]}/info") == 401
        assert status(f"{found[1]}/info", authorization=f"Bearer {KEY}") == 200
        form = b'--x\r\nContent-Disposition: form-data; name="source"\r\n\r\nhttps://images.example.net/a.jpg\r\n--x--\r\n'
        headers = {"authorization": f"Bearer {KEY}", "content_type": "multipart/form-data; boundary=x"}
        assert status(f"{found[1]}/predict", form, **headers) == 403
        assert KEY not in told


def test_keys_that_are_none_end_it_with_the_line(tmp_path: Path) -> None:
    with up(write(tmp_path, f"camera-3:{KEY}")) as process:
        _, told = process.communicate(timeout=100)
        assert process.returncode != 0
        assert "line 2: after the name comes the key's sha256" in told
        assert KEY not in told
