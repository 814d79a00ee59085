"""A worker that cannot start says why in one line, on stderr and in the termination log, and exits with 2."""

import hashlib
import http.server
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from yolastic_contract.failure import parse_failure

TINY = Path(__file__).resolve().parents[2] / "tests/worker/data"
SIMULATED = ("--backend", "simulated", "--input-size", "64x64")
Start = Callable[..., Any]


@pytest.mark.parametrize(
    ("flags", "reason", "words"),
    [
        (("--model", TINY / "fixed.onnx"), "FixedBatch", "yolo export model=X.pt format=onnx dynamic=True"),
        (("--model", TINY / "careless.onnx"), "FixedBatch", "yolo export model=X.pt format=onnx dynamic=True"),
        (("--model", TINY / "segment.onnx"), "UnsupportedModel", "Segment"),
        (("--model", TINY / "three_names.onnx"), "UnsupportedModel", "3 classes"),
        (("--model", TINY / "external.onnx"), "UnsupportedModel", "external data"),
        (("--model", TINY / "foreign.onnx"), "UnsupportedModel", "com.example"),
        (("--model", TINY / "make_models.py"), "UnsupportedModel", "protocol buffer"),
        (("--model", TINY / "no-such-file.onnx"), "ModelNotFound", "/data/no-such-file.onnx"),
        (("--model", TINY / "dynamic.onnx/2026.onnx"), "ModelNotFound", "/data/dynamic.onnx/2026.onnx"),
        (("--model", TINY), "ModelNotFound", "/worker/data is a directory"),
        (("--model", TINY / "dynamic.onnx", "--model-sha256", "0" * 64), "ChecksumMismatch", "not 0000"),
        (("--model", TINY / "dynamic.onnx", "--input-size", "128x128"), "BadConfiguration", "fixed at 64x64"),
        (("--model", TINY / "dynamic.onnx", "--device", "cuda"), "DeviceUnavailable", "cuda"),
        (("--model", TINY / "dynamic.onnx", "--memory-limit", "1Mi"), "DoesNotFit", "the limit is 1Mi"),
        ((*SIMULATED, "--simulate", "memory_fixed_mib=600,memory_per_image_mib=60,memory_limit_mib=650"), "DoesNotFit", "660Mi"),
        ((*SIMULATED, "--simulate", "speed=fast"), "BadConfiguration", "speed=fast"),
        ((*SIMULATED, "--simulate", "fixed_ms=-1"), "BadConfiguration", "negative"),
        ((*SIMULATED, "--max-batch", "1000"), "BadConfiguration", "1 to 256"),
        ((*SIMULATED, "--fd", "999"), "BadConfiguration", "fd 999"),
        ((), "BadConfiguration", "--model is required"),
        (("--no-such-flag",), "BadConfiguration", "--no-such-flag"),
    ],
)  # fmt: skip
def test_reason(start_worker: Start, flags: tuple[str | Path, ...], reason: str, words: str) -> None:
    worker = start_worker(*flags, wait=False)
    assert worker.wait(60) == 2
    found = parse_failure(worker.log())
    assert found is not None, worker.log()
    assert found[0] == reason
    assert words in found[1]
    assert "Traceback" not in worker.log()
    assert worker.termination_log.read_text() == f"{found[0]}: {found[1]}\n"


def test_port_that_is_taken(start_worker: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        worker = start_worker(*SIMULATED, "--port", str(taken.getsockname()[1]), wait=False)
        assert worker.wait(60) == 2
    assert "BadConfiguration: cannot listen on 127.0.0.1:" in worker.log()


def test_right_digest_is_served_and_shown(start_worker: Start) -> None:
    digest = hashlib.sha256((TINY / "dynamic.onnx").read_bytes()).hexdigest()
    worker = start_worker("--model", TINY / "dynamic.onnx", "--model-sha256", digest, "--max-batch", "2")
    assert worker.state()["model"]["sha256"] == digest
    assert worker.metric("yolastic_model_info", sha256=digest, backend="OnnxRuntime", precision="FP32") == 1


class _Models(http.server.SimpleHTTPRequestHandler):
    """Serves the tiny models; /locked wants a bearer token, /flaky fails twice, /cut closes early, /elsewhere redirects,
    /echo and /gibberish repeat what they were sent."""

    failures = 2
    seen_authorization: list[str | None] = []  # noqa: RUF012 - one test, one server

    def do_GET(self) -> None:
        content = (TINY / "dynamic.onnx").read_bytes()
        name = self.path.split("?")[0].strip("/")
        type(self).seen_authorization.append(self.headers["Authorization"])
        if name == "locked" and self.headers["Authorization"] != "Bearer open-sesame":
            self.send_error(401)
        elif name == "flaky" and type(self).failures > 0:
            type(self).failures -= 1
            self.send_error(503)
        elif name == "missing":
            self.send_error(404)
        elif name == "echo":
            self.send_error(403, f"you sent {self.headers['Authorization']}")
        elif name == "gibberish":
            self.wfile.write(f"you sent {self.headers['Authorization']}\r\n\r\n".encode())
        elif name == "elsewhere":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_address[1]}/model.onnx")
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content) + (100 if name == "cut" else 0)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def models() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Models)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    _Models.failures = 2
    _Models.seen_authorization.clear()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def _fetch(uri: str, output: Path, sha256: str, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "yolastic_worker",
        "fetch",
        "--uri",
        uri,
        "--sha256",
        sha256,
        "--output",
        str(output),
        *flags,
    ]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={"PATH": "/usr/bin:/bin", **environment}, check=False
    )


DIGEST = hashlib.sha256((TINY / "dynamic.onnx").read_bytes()).hexdigest()


def test_fetch_writes_a_verified_file(models: str, tmp_path: Path) -> None:
    output = tmp_path / "models" / "model.onnx"
    done = _fetch(f"{models}/model.onnx?signature=secret", output, DIGEST)
    assert (done.returncode, done.stderr) == (0, "")
    assert output.read_bytes() == (TINY / "dynamic.onnx").read_bytes()
    assert list(output.parent.iterdir()) == [output]
    assert _fetch(f"{models}/missing", output, DIGEST).returncode == 0, "what is there and right is not fetched again"


def test_fetch_with_credentials(models: str, tmp_path: Path) -> None:
    refused = _fetch(f"{models}/locked", tmp_path / "a", DIGEST)
    assert refused.returncode == 2
    assert parse_failure(refused.stderr) == ("DownloadFailed", f"{models}/locked: the server answered 401 Unauthorized")
    assert _fetch(f"{models}/locked", tmp_path / "a", DIGEST, YOLASTIC_MODEL_token="open-sesame").returncode == 0
    _Models.seen_authorization.clear()
    done = _fetch(f"{models}/elsewhere", tmp_path / "b", DIGEST, YOLASTIC_MODEL_username="me", YOLASTIC_MODEL_password="secret")
    assert done.returncode == 0
    assert _Models.seen_authorization == ["Basic bWU6c2VjcmV0", None], "credentials do not follow a redirect to another host"


@pytest.mark.parametrize("given", [{}, {"token": " "}, {"username": "me"}])
def test_fetch_does_not_go_without_credentials_where_a_secret_is_named(
    models: str, tmp_path: Path, given: dict[str, str]
) -> None:
    variables = {f"YOLASTIC_MODEL_{key}": value for key, value in (given | {"SECRET": "model-store"}).items()}
    refused = _fetch(f"{models}/model.onnx", tmp_path / "a", DIGEST, **variables)
    assert refused.returncode == 2
    message = "Secret model-store is not in this namespace, or has neither key token nor keys username and password"
    assert parse_failure(refused.stderr) == ("CredentialsMissing", message)
    assert _Models.seen_authorization == []


def test_what_a_file_left_at_the_end_of_a_credential_does_no_harm(models: str, tmp_path: Path) -> None:
    assert _fetch(f"{models}/locked", tmp_path / "a", DIGEST, YOLASTIC_MODEL_token="open-sesame\r\n").returncode == 0
    done = _fetch(
        f"{models}/elsewhere", tmp_path / "b", DIGEST, YOLASTIC_MODEL_username="me\n", YOLASTIC_MODEL_password="secret\n"
    )
    assert done.returncode == 0
    assert "Basic bWU6c2VjcmV0" in _Models.seen_authorization


@pytest.mark.parametrize(
    ("path", "environment", "reason", "words"),
    [
        ("/locked", {"token": "s3cret\nhunter2"}, "BadConfiguration", "key token"),
        ("/locked", {"token": "s3cret hunter2"}, "BadConfiguration", "key token"),
        ("/locked", {"token": "s3cret€hunter2"}, "BadConfiguration", "key token"),
        ("/locked", {"token": "s3cret\udcffhunter2"}, "BadConfiguration", "key token"),
        ("/locked", {"username": "s3cret", "password": "hunter2\udcff"}, "DownloadFailed", "401"),
        ("/echo", {"token": "s3cret-hunter2"}, "DownloadFailed", "the server answered 403 Forbidden"),
        ("/gibberish", {"token": "s3cret-hunter2"}, "DownloadFailed", "the answer is broken (BadStatusLine)"),
        ("/model.onnx?signature=s3cret hunter2", {}, "DownloadFailed", "the request cannot be sent (InvalidURL)"),
        ("http://s3cret:hunter2@127.0.0.1/x", {}, "DownloadFailed", "the request cannot be sent (InvalidURL)"),
    ],
)
def test_a_credential_is_in_no_message(
    models: str, tmp_path: Path, path: str, environment: dict[str, str], reason: str, words: str
) -> None:
    variables = {f"YOLASTIC_MODEL_{key}": value for key, value in environment.items()}
    uri, log = models + path if path.startswith("/") else path, tmp_path / "termination"
    done = _fetch(uri, tmp_path / "a", DIGEST, "--termination-log", str(log), "--timeout-s", "2", **variables)
    assert done.returncode == 2, done.stderr
    found = parse_failure(log.read_text())
    assert found is not None
    assert found[0] == reason
    assert words in found[1]
    assert "s3cret" not in done.stderr + done.stdout + log.read_text()
    assert "hunter2" not in done.stderr + done.stdout + log.read_text()


def test_fetch_tries_again_what_may_pass(models: str, tmp_path: Path) -> None:
    assert _fetch(f"{models}/flaky", tmp_path / "a", DIGEST).returncode == 0


@pytest.mark.parametrize(
    ("path", "digest", "flags", "reason", "words"),
    [
        ("/model.onnx", "0" * 64, (), "ChecksumMismatch", DIGEST),
        ("/missing", DIGEST, (), "DownloadFailed", "404"),
        ("/model.onnx", DIGEST, ("--limit", "100"), "DownloadFailed", "more than the limit of 100"),
        ("/cut", DIGEST, ("--timeout-s", "1"), "DownloadFailed", "closed after"),
        ("ftp://127.0.0.1/x", DIGEST, (), "BadConfiguration", "https:// and http:// only"),
        ("http://127.0.0.1:1/x", DIGEST, ("--timeout-s", "1"), "DownloadFailed", "refused"),
    ],
)
def test_fetch_failures(
    models: str, tmp_path: Path, path: str, digest: str, flags: tuple[str, ...], reason: str, words: str
) -> None:
    output, log = tmp_path / "model.onnx", tmp_path / "termination"
    done = _fetch(models + path if path.startswith("/") else path, output, digest, "--termination-log", str(log), *flags)
    assert done.returncode == 2
    found = parse_failure(done.stderr)
    assert found is not None, done.stderr
    assert found[0] == reason
    assert words in found[1]
    assert done.stderr == log.read_text()
    assert not output.exists()
    assert list(tmp_path.iterdir()) == [log]
