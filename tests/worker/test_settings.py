"""The command line and its environment."""

from pathlib import Path

import pytest

from yolastic_worker.api.url_rules import UrlHosts
from yolastic_worker.settings import (
    FetchSettings,
    HashKeySettings,
    ServeSettings,
    available_cores,
    parse_arguments,
    termination_log_of,
)
from yolastic_worker.types import WorkerFailure


def _serve(*arguments: str) -> ServeSettings:
    settings = parse_arguments(["serve", *arguments])
    assert isinstance(settings, ServeSettings)
    return settings


def test_defaults() -> None:
    settings = _serve("--model", "/models/weld.onnx")
    assert (settings.name, settings.port, settings.control_port, settings.max_batch) == ("weld", 8000, 9000, 32)
    assert settings.metrics_port is None, "two workers on one host would want the same one"
    assert (settings.max_delay_s, settings.eager_size, settings.queue_length) == (0.010, 4, 256)
    assert (settings.patience_s, settings.limits.body_bytes) == (10.0, 32 * 2**20)
    assert (settings.propagation_delay_s, settings.drain_timeout_s) == (5.0, 60.0)
    assert settings.threads >= 1
    assert 1 <= settings.decode_threads <= 16


def test_environment_is_every_flag_and_the_flag_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("MODEL", "/m/a.onnx"), ("MAX_BATCH", "8"), ("SHARED", "true"), ("MEMORY_LIMIT", "2Gi"), ("OBJECTIVE_MS", "100"),
        ("PORT", "81"),
    ):  # fmt: skip
        monkeypatch.setenv(f"YOLASTIC_WORKER_{name}", value)
    settings = _serve("--port", "82")
    assert (settings.model, settings.max_batch, settings.shared, settings.port) == (Path("/m/a.onnx"), 8, True, 82)
    assert (settings.memory_limit_bytes, settings.objective_s, settings.patience_s) == (2 * 2**30, 0.1, 0.5)
    monkeypatch.setenv("YOLASTIC_WORKER_MAX_BATCH", "0")
    with pytest.raises(WorkerFailure, match="1 to 256"):
        _serve()


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["dance"], ["serve"], ["serve", "--model"], ["serve", "--model", "a", "--input-size", "33x32"],
        ["serve", "--model", "a", "--input-size", "640"], ["serve", "--model", "a", "--memory-limit", "much"],
        ["serve", "--model", "a", "--port", "70000"], ["serve", "--model", "a", "--metrics-port", "x"],
        ["serve", "--model", "a", "--simulate", "fixed_ms=1"],
        ["serve", "--backend", "simulated", "--device", "cuda"], ["serve", "--model", "a", "--model-sha256", "abc"],
        ["serve", "--model", "a", "--drain-timeout-s", "-1"], ["serve", "--model", "a", "--task", "Segment"],
        ["fetch", "--uri", "https://a/b"], ["fetch", "--uri", "https://a/b", "--sha256", "0" * 63, "--output", "x"],
    ],
)  # fmt: skip
def test_bad_command_lines_are_one_sentence(arguments: list[str]) -> None:
    with pytest.raises(WorkerFailure) as failure:
        parse_arguments(arguments)
    assert failure.value.reason == "BadConfiguration"
    assert "\n" not in str(failure.value)


def test_keys_and_url_hosts_are_off_until_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _serve("--model", "a")
    assert (settings.api_keys_file, settings.url_hosts, settings.url_timeout_s) == (None, None, 10.0)
    monkeypatch.setenv("YOLASTIC_WORKER_URL_HOSTS", "a.example.org,*.b.example.org:444")
    assert _serve("--model", "a", "--api-keys-file", "/k").url_hosts == UrlHosts(
        frozenset({("a.example.org", 443)}), frozenset({("b.example.org", 444)})
    )
    with pytest.raises(WorkerFailure, match="'localhost' is not a host such as"):
        _serve("--model", "a", "--url-hosts", "localhost")


def test_hash_key() -> None:
    assert parse_arguments(["hash-key", "--name", "camera-1", "--rate-per-s", "5", "--stdin"]) == HashKeySettings(
        "camera-1", "5", "", from_stdin=True
    )


def test_size_is_width_by_height() -> None:
    assert _serve("--model", "a", "--input-size", "640x480").input_size == (480, 640)


def test_fetch() -> None:
    settings = parse_arguments(
        ["fetch", "--uri", "https://a/b", "--sha256", "A" * 64, "--output", "/m/x", "--termination-log", "/t"]
    )
    assert settings == FetchSettings("https://a/b", "a" * 64, Path("/m/x"), 2 * 2**30, 600.0, Path("/t"))


def test_termination_log_is_found_on_any_command_line() -> None:
    assert termination_log_of(["serve", "--bad", "--termination-log", "/t", "--port", "x"]) == Path("/t")
    assert termination_log_of(["serve", "--termination-log"]) is None
    assert termination_log_of([]) is None


def test_cores_follow_the_control_group(tmp_path: Path) -> None:
    everything = available_cores(tmp_path / "none")
    for text, expected in (
        ("max 100000", everything),
        ("150000 100000", min(2, everything)),
        ("10000 100000", 1),
        ("rubbish", everything),
    ):
        (tmp_path / "cpu.max").write_text(text)
        assert available_cores(tmp_path / "cpu.max") == expected
