"""`yolastic up` as a person runs it: real processes, real answers, nothing left behind."""

import hashlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from yolastic_cli.__main__ import main
from yolastic_cli.load import LoadProcess, OpenLoad, Phase, read_labelled_images

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]
DIGEST = (ROOT / "examples/models/shapes.onnx.sha256").read_text().split()[0]
QUICKSTART = str(ROOT / "examples/quickstart.yaml")
DEADLINE_S = 60.0
SIMULATED = f"""
apiVersion: yolastic.dev/v1alpha1
kind: YoloRuntime
metadata: {{name: pretend}}
spec:
  backend: Simulated
  simulate: fixed_ms=20,per_image_ms=30,memory_fixed_mib=600,memory_per_image_mib=60,memory_limit_mib=4096
---
apiVersion: yolastic.dev/v1alpha1
kind: YoloInference
metadata: {{name: shapes}}
spec:
  model: {{uri: "file://{ROOT}/examples/models/shapes.onnx", sha256: "{DIGEST}"}}
  runtime: pretend
  drain: {{timeoutSeconds: 20}}
  batching: {{maxSize: 8}}
  autoscaling:
    maxReplicas: 3
    # A third of a worker's capacity is enough for the whole load, so that nothing need be refused while workers start.
    targetLoadPercent: 20
    scaleDownLoadPercent: 15
    behavior: {{scaleDown: {{stabilizationWindowSeconds: 0}}}}
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "yolastic_cli", *arguments]


class Running:
    """A `yolastic up` with its lines."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            command("up", "--port", "0", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []

    def read_until(self, pattern: str) -> re.Match[str]:
        """The first line to match, from here on."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            found = re.search(pattern, line)
            if found is not None:
                return found
        assert self.process.stderr is not None
        raise AssertionError(f"ended without {pattern!r}: {self.lines} {self.process.stderr.read()}")

    def end(self) -> tuple[int, str]:
        """(exit code, stderr) once it ends by itself."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        self.lines += out.splitlines()
        return self.process.returncode, err


@contextmanager
def running(*arguments: str) -> Iterator[Running]:
    """A `yolastic up` that is gone afterwards, workers and all."""
    up = Running(*arguments)
    family: list[psutil.Process] = []
    try:
        yield up
    finally:
        if up.process.poll() is None:
            family = psutil.Process(up.process.pid).children(recursive=True)
            up.process.kill()
        up.process.communicate()
        psutil.wait_procs(family, timeout=5)


def workers_of(up: Running) -> list[psutil.Process]:
    return psutil.Process(up.process.pid).children(recursive=True)


def post(url: str, body: bytes) -> dict[str, object]:
    request = urllib.request.Request(f"{url}/predict", data=body, headers={"Content-Type": "image/jpeg"})
    with urllib.request.urlopen(request, timeout=20) as response:
        answer: dict[str, object] = json.load(response)
    return answer


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_quickstart_serves_and_ends_on_a_signal(number: signal.Signals) -> None:
    with running("-f", QUICKSTART) as up:
        url = up.read_until(r"serving on (http://127\.0\.0\.1:\d+); try: curl")[1]
        image = read_labelled_images(ROOT / "examples/images")[0]
        answer = post(url, image.body)
        names = sorted(row["name"] for row in answer["images"][0]["results"])  # type: ignore[index]
        assert names == sorted(name for name, _ in image.objects)
        workers = workers_of(up)
        assert len(workers) == 1
        up.process.send_signal(number)
        assert up.end() == (0, "")
        assert up.lines[-1].endswith("every worker drained")
        assert psutil.wait_procs(workers, timeout=1)[1] == []
        with socket.socket() as free:
            assert free.connect_ex(("127.0.0.1", int(url.rsplit(":", 1)[1]))) != 0


def test_another_terminal_may_ask_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with running("-f", QUICKSTART) as up:
        url = up.read_until(r"serving on (http://127\.0\.0\.1:\d+); try: curl")[1]
        assert main(["explain", "shapes", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["where"] == f"by `yolastic up` on this host, process {up.process.pid}, {url}"
        assert {"Workers", "Figures", "Result", "Ceiling", "Written"} <= {step["about"] for step in told["explanation"]}
        assert told["ageSeconds"] < 30
        up.process.send_signal(signal.SIGINT)
        assert up.end() == (0, "")
    assert list(tmp_path.iterdir()) == []
    assert main(["explain", "shapes", "--local"]) == 2


def test_it_ends_by_itself() -> None:
    began_s = time.monotonic()
    with running("-f", QUICKSTART, "--for", "1500ms", "-v") as up:
        assert up.end() == (0, "")
    assert 1.5 < time.monotonic() - began_s < 30


def test_a_second_signal_ends_at_once_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with running("-f", QUICKSTART) as up:
        up.read_until("serving on")
        workers = workers_of(up)
        for worker in workers:
            worker.suspend()  # one that never drains
        up.process.send_signal(signal.SIGINT)
        up.read_until("draining")
        up.process.send_signal(signal.SIGINT)
        assert up.end()[0] == 130
        assert list(tmp_path.glob("yolastic-*")) == []
        assert psutil.wait_procs(workers, timeout=5)[1] == []


@pytest.mark.timeout(180)
def test_it_grows_and_shrinks_with_load_and_loses_nothing(tmp_path: Path) -> None:
    file = tmp_path / "up.yaml"
    file.write_text(SIMULATED)
    load = OpenLoad((Phase("busy", 12, 10, 10), Phase("calm", 120, 1, 1)), poisson=False)
    with running("-f", str(file), "--turn", "500ms") as up:
        url = up.read_until(r"serving on (\S+);")[1]
        probing = LoadProcess(f"{url}/predict", load, read_labelled_images(ROOT / "examples/images"))
        try:
            up.read_until(r"Rescaled: from 1 to [23] workers: load ratio")
            up.read_until(r"Rescaled: from [23] to [12] workers: load ratio")
            while len([worker for worker in workers_of(up) if worker.is_running()]) > 1:
                time.sleep(0.2)
            answers = probing.read()
        finally:
            probing.stop()
        assert len(answers) > 100
        assert [answer for answer in answers if answer.status != 200] == []
        assert sum(answer.found for answer in answers) > 0.9 * sum(answer.expected for answer in answers)
        up.process.send_signal(signal.SIGTERM)
        assert up.end() == (0, "")


def ended(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    return done.returncode, done.stdout, done.stderr


BAD = {
    "no command": ([], "the following arguments are required: COMMAND"),
    "no such command": (["fly"], "invalid choice: 'fly'"),
    "no file": (["up"], "the following arguments are required: -f/--file"),
    "a file that is none": (["up", "-f", "gone.yaml"], "gone.yaml: there is no such file"),
    "a bad port": (["up", "-f", QUICKSTART, "--port", "65536"], "65536 is not a port from 0 to 65535"),
    "a bad time": (["up", "-f", QUICKSTART, "--for", "soon"], "soon is not a time such as 60s, 5m or 1h"),
    "a bad turn": (["up", "-f", QUICKSTART, "--turn", "1h"], "1h is not a time from 100ms to 60s"),
    "a bad host": (["up", "-f", QUICKSTART, "--host", "203.0.113.1"], "203.0.113.1:8000 cannot be used: "),
    "a host that is none": (["up", "-f", QUICKSTART, "--host", "no host"], "no host:8000 cannot be used: "),
}


@pytest.mark.parametrize(("arguments", "sentence"), BAD.values(), ids=BAD)
def test_a_mistake_is_one_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("yolastic: ")
    assert sentence in told.err
    assert told.err.count("\n") == 1


def test_a_taken_port_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = ended("up", "-f", QUICKSTART, "--port", str(port))
    assert (code, out) == (2, "")
    assert err == f"yolastic: 127.0.0.1:{port} is in use, choose another with --port\n"


def test_a_model_that_can_never_load_ends_it(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("no ONNX at all")
    text = Path(QUICKSTART).read_text().replace("models/shapes.onnx", "m.onnx")
    for digest, reason in ((DIGEST, "ChecksumMismatch"), (sha256_of(tmp_path / "m.onnx"), "UnsupportedModel")):
        (tmp_path / "up.yaml").write_text(text.replace(DIGEST, digest))
        code, out, err = ended("up", "-f", str(tmp_path / "up.yaml"), "--port", "0", "--for", "60s")
        assert code == 2
        assert f"ModelLoadFailed: {reason}: " in out
        assert re.fullmatch(rf"yolastic: worker shapes-1: {reason}: [^\n]+\n", err)


def sha256_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(("flag", "told"), [("--help", "run a YoloInference on this host"), ("--version", "yolastic 0.")])
def test_help_and_version(flag: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([flag])
    assert caught.value.code == 0
    assert told in " ".join(capsys.readouterr().out.split())
