"""Who may ask, and from where an image may come: real workers, real keys, a real server of images with TLS."""

import http.client
import http.server
import json
import secrets
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

FAST = ("--backend", "simulated", "--simulate", "fixed_ms=1,per_image_ms=0")
TLS = Path(__file__).resolve().parents[1] / "worker/data/tls"
OUTSIDE = (str(Path(__file__).with_name("outside_worker.py")),)
HOST = "images.example.test"


def hash_key(*flags: str, key: str | None = None) -> str:
    """The line of a key, as people make it."""
    command = [sys.executable, "-m", "yolastic_worker", "hash-key", *flags]
    if key is not None:
        command.append("--stdin")
    done = subprocess.run(command, input=key, capture_output=True, text=True, check=True, timeout=60)
    if key is None:
        return done.stdout + next(word for word in done.stderr.split() if word.startswith("yk_"))
    assert key not in done.stdout + done.stderr
    return done.stdout


def ask(worker: Any, method: str, target: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """Status and JSON of a request without a body."""
    connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=30)
    try:
        connection.request(method, target, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def bearer(key: str) -> str:
    return f"Bearer {key}"


# --- keys


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    """By name: one that may do all, one that may ask seldom, one that has three requests a day."""
    return {name: f"yk_{secrets.token_urlsafe(32)}" for name in ("free", "slow", "few", "new")}


@pytest.fixture(scope="module")
def key_file(keys: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = [
        "# who may ask\n",
        hash_key("--name", "free", key=keys["free"]),
        hash_key("--name", "slow", "--rate-per-s", "0.5", key=keys["slow"]),
        hash_key("--name", "few", "--daily-quota", "3", key=keys["few"]),
    ]
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="module")
def guarded(module_worker: Callable[..., Any], key_file: Path) -> Any:
    return module_worker(*FAST, "--api-keys-file", key_file, "--log-format", "json")


def test_nobody_is_served_without_a_key(guarded: Any, keys: dict[str, str], jpeg: bytes) -> None:
    for headers in (
        {},
        {"authorization": bearer("x" * 43)},
        {"authorization": f"Basic {keys['free']}"},
        {"x-api-key": keys["free"]},
    ):
        answer = guarded.predict(jpeg, **headers)
        assert (answer.status, answer.code) == (401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith('Bearer realm="yolastic"')
        assert ask(guarded, "GET", "/info", headers)[0] == 401
    assert guarded.predict(jpeg, query=f"?api_key={keys['free']}").status == 401
    assert guarded.metric("yolastic_requests_total", code="401") == 9
    assert guarded.metric("yolastic_images_total", outcome="rejected") == 0, "nothing is read of whom nobody knows"


def test_a_key_opens_the_data_port(guarded: Any, keys: dict[str, str], jpeg: bytes) -> None:
    for _ in range(20):
        assert guarded.predict(jpeg, authorization=bearer(keys["free"])).status == 200
    assert ask(guarded, "GET", "/info", {"authorization": bearer(keys["free"])})[0] == 200


def test_two_keys_at_once_are_none(guarded: Any, keys: dict[str, str]) -> None:
    head = f"GET /info HTTP/1.1\r\nHost: a\r\nAuthorization: {bearer('x' * 43)}\r\nAuthorization: {bearer(keys['free'])}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=20) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")


def test_a_rate_and_a_quota_are_kept(guarded: Any, keys: dict[str, str], jpeg: bytes) -> None:
    assert guarded.predict(jpeg, authorization=bearer(keys["slow"])).status == 200
    refused = guarded.predict(jpeg, authorization=bearer(keys["slow"]))
    assert (refused.status, refused.code) == (429, "rate_limited")
    assert refused.headers["retry-after"] in ("1", "2")
    few = [guarded.predict(jpeg, authorization=bearer(keys["few"])) for _ in range(5)]
    assert [answer.status for answer in few] == [200, 200, 200, 429, 429]
    assert few[-1].code == "quota_exceeded"
    assert 1 <= int(few[-1].headers["retry-after"]) <= 86400
    assert guarded.predict(jpeg, authorization=bearer(keys["free"])).status == 200, "the others are not held up"


def test_the_control_port_asks_for_no_key(guarded: Any) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/state"):
        assert guarded.control("GET", path, token=None).status == 200
    assert guarded.control("POST", "/rebalance").status == 200


def test_a_changed_file_counts_within_two_seconds(
    guarded: Any, keys: dict[str, str], key_file: Path, jpeg: bytes, until: Callable[..., None]
) -> None:
    before = key_file.read_text()
    key_file.write_text("an editor that is not ready yet")
    time.sleep(1.2)
    assert guarded.predict(jpeg, authorization=bearer(keys["free"])).status == 200, "a broken file closes no door"
    new_file = key_file.with_name("new")
    new_file.write_text(before.replace("free:", "gone:") + hash_key("--name", "new", key=keys["new"]))
    new_file.write_text("".join(line for line in new_file.read_text().splitlines(True) if not line.startswith("gone:")))
    new_file.rename(key_file)
    until(lambda: guarded.predict(jpeg, authorization=bearer(keys["new"])).status == 200, 5)
    assert guarded.predict(jpeg, authorization=bearer(keys["free"])).status == 401


def test_no_key_is_in_the_log_the_metrics_or_the_state(guarded: Any, keys: dict[str, str]) -> None:
    told = guarded.log() + guarded.control("GET", "/metrics").body.decode() + guarded.control("GET", "/state").body.decode()
    assert "the API keys were read again" in told
    assert "cannot be used" in told
    for key in (*keys.values(), "x" * 43):
        assert key not in told


def test_a_key_that_floods_does_not_starve_another(
    start_worker: Callable[..., Any], tmp_path: Path, keys: dict[str, str], jpeg: bytes, until: Callable[..., None]
) -> None:
    """Without X-Source the key's name is the source: the queue is shared out by turns, not by who came first."""
    (tmp_path / "keys").write_text(hash_key("--name", "crowd", key=keys["free"]) + hash_key("--name", "one", key=keys["slow"]))
    slow = ("--backend", "simulated", "--simulate", "fixed_ms=50,per_image_ms=0", "--max-batch", "1")
    worker = start_worker(*slow, "--api-keys-file", tmp_path / "keys")
    crowd: list[float] = []

    def flood() -> None:
        answer = worker.predict(jpeg, authorization=bearer(keys["free"]), x_request_timeout_ms="30000")
        assert answer.status == 200
        crowd.append(time.monotonic())

    with ThreadPoolExecutor(40) as pool:
        floods = [pool.submit(flood) for _ in range(40)]
        until(lambda: worker.metric("yolastic_queue_images") >= 25)
        answer = worker.predict(jpeg, authorization=bearer(keys["slow"]), x_request_timeout_ms="30000")
        answered_s = time.monotonic()
        for flooded in floods:
            flooded.result(30)
    assert answer.status == 200
    assert sum(other_s > answered_s for other_s in crowd) >= 15, "it was not sent to the end of the queue"


@pytest.mark.parametrize(
    ("text", "reason"),
    [(None, "ApiKeysMissing"), ("", "BadConfiguration"), ("camera-1:yk_secretsecretsecret", "BadConfiguration")],
)
def test_no_worker_starts_with_keys_it_cannot_use(
    start_worker: Callable[..., Any], tmp_path: Path, text: str | None, reason: str
) -> None:
    if text is not None:
        (tmp_path / "keys").write_text(text)
    worker = start_worker(*FAST, "--api-keys-file", tmp_path / "keys", wait=False)
    assert worker.wait() == 2
    assert worker.termination_log.read_text().startswith(f"{reason}: ")
    assert "secretsecret" not in worker.log() + worker.termination_log.read_text()


def test_hash_key_makes_a_key_that_opens() -> None:
    line, key = hash_key("--name", "camera-1", "--rate-per-s", "2").split("\n")
    assert line.startswith("camera-1:")
    assert line.endswith(":2")
    assert hash_key("--name", "camera-1", "--rate-per-s", "2", key=key) == line + "\n"


# --- URLs


class Images:
    """A server of images: what it was asked, and answers that are slow, large, or lead elsewhere."""

    def __init__(self, image: bytes) -> None:
        images = self
        self.asked: Counter[str] = Counter()
        self.released = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                images.asked[self.path] += 1
                if self.path == "/moved":
                    self.send_response(302)
                    self.send_header("Location", "/a.jpg")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if self.path == "/slow":
                    images.released.wait(20)
                body = b"no image" if self.path == "/text" else image
                self.send_response(200)
                self.send_header("Content-Length", str(64 * 2**20 if self.path == "/large" else len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(TLS / "good.pem")
        self._server = Quiet(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def url(self, path: str, host: str = HOST) -> str:
        return f"https://{host}:{self.port}{path}"

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def images(jpeg: bytes) -> Iterator[Images]:
    server = Images(jpeg)
    yield server
    server.close()


@pytest.fixture(scope="module")
def fetching(module_worker: Callable[..., Any], images: Images) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(TLS / "authority.pem"))
        hosts = f"{HOST}:{images.port},inside.example.test:{images.port}"
        yield module_worker(*FAST, "--url-hosts", hosts, "--url-timeout-s", "5", program=OUTSIDE)


def form(*sources: str) -> dict[str, Any]:
    parts = [f'--x\r\nContent-Disposition: form-data; name="source"\r\n\r\n{source}\r\n' for source in sources]
    return {"body": ("".join(parts) + "--x--\r\n").encode(), "content_type": "multipart/form-data; boundary=x"}


def test_an_image_is_fetched_from_a_listed_host(fetching: Any, images: Images, jpeg: bytes) -> None:
    sent = fetching.predict(jpeg).json()["images"][0]
    answer = fetching.predict(**form(images.url("/a.jpg"), images.url("/b.jpg")))
    assert answer.status == 200
    assert [(image["shape"], image["results"]) for image in answer.json()["images"]] == [(sent["shape"], sent["results"])] * 2
    assert (images.asked["/a.jpg"], images.asked["/b.jpg"]) == (1, 1)
    assert ask(fetching, "POST", f"/predict?source={quote(images.url('/c.jpg'), safe='')}&conf=0.5")[0] == 200
    assert images.asked["/c.jpg"] == 1


@pytest.mark.parametrize(
    ("path", "host", "status", "code"),
    [
        ("/a.jpg", "other.example.test", 403, "host_not_allowed"),
        ("/a.jpg", "inside.example.test", 403, "address_not_allowed"),
        ("/a.jpg", "127.0.0.1", 422, "bad_url"),
        ("/a.jpg#x", HOST, 422, "bad_url"),
        ("/moved", HOST, 424, "url_failed"),
        ("/text", HOST, 415, "unsupported_format"),
        ("/large", HOST, 413, "url_too_large"),
    ],
)
def test_what_is_not_fetched(fetching: Any, images: Images, path: str, host: str, status: int, code: str) -> None:
    before = images.asked["/a.jpg"]
    answer = fetching.predict(**form(images.url(path, host)))
    assert (answer.status, answer.code) == (status, code)
    assert images.asked["/a.jpg"] == before


def test_plain_http_is_not_fetched(fetching: Any, images: Images) -> None:
    answer = fetching.predict(**form(images.url("/a.jpg").replace("https", "http")))
    assert (answer.status, answer.code) == (422, "bad_url")


def test_a_slow_server_holds_up_its_own_request_alone(fetching: Any, images: Images, prober: Any, jpeg: bytes) -> None:
    with prober(fetching.port, jpeg) as probing:
        began_s = time.monotonic()
        answer = fetching.predict(**form(images.url("/slow")), x_request_timeout_ms="1000")
        assert (answer.status, answer.code) == (424, "url_timeout")
        assert 0.9 < time.monotonic() - began_s < 4
        probing.wait_answers(5)
    probing.assert_lossless()
    assert probing.slowest_s < 1.0


def test_without_the_flag_no_url_is_fetched(start_worker: Callable[..., Any], images: Images) -> None:
    worker = start_worker(*FAST, program=OUTSIDE)
    before = images.asked.total()
    answer = worker.predict(**form(images.url("/a.jpg")))
    assert (answer.status, answer.code) == (403, "url_input_off")
    assert images.asked.total() == before
