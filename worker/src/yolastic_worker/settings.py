"""The worker's command line: every flag is also YOLASTIC_WORKER_<FLAG>."""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from yolastic_contract.names import CONTROL_PORT, DATA_PORT, TERMINATION_LOG, WORKER_ENV_PREFIX
from yolastic_contract.quantity import parse_bytes
from yolastic_worker.api.url_rules import UrlHosts, parse_hosts
from yolastic_worker.engine.simulated import Simulation, parse_simulation
from yolastic_worker.limits import DEFAULT_LIMITS, Limits, Rule, from_told, parse_formats, rules
from yolastic_worker.types import WorkerFailure

_DEFAULT_PATIENCE_S: Final = 10.0
_OBJECTIVES_OF_PATIENCE: Final = 5
_CGROUP_CPU_MAX: Final = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Everything `yolastic-worker serve` was told."""

    model: Path | None
    model_sha256: str | None
    name: str
    task: str | None
    input_size: tuple[int, int] | None
    """(height, width)."""
    backend: str
    device: str
    simulation: Simulation
    host: str
    port: int
    fd: int | None
    open_when_ready: bool
    """Others serve at the same address: nobody is let in before this one can serve."""
    control_host: str
    control_port: int
    control_fd: int | None
    metrics_port: int | None
    """None: `/metrics` is on the control port alone."""
    control_token_file: Path | None
    max_batch: int
    window: str
    max_delay_s: float
    eager_size: int
    shared: bool
    queue_length: int
    overflow: str
    memory_limit_bytes: int | None
    objective_s: float | None
    threads: int
    cuda_graphs: int
    decode_threads: int
    limits: Limits
    """At the door."""
    api_keys_file: Path | None
    url_hosts: UrlHosts | None
    url_timeout_s: float
    propagation_delay_s: float
    drain_timeout_s: float
    termination_log: Path | None
    log_format: str

    @property
    def patience_s(self) -> float:
        """A client's patience unless it says its own."""
        return _DEFAULT_PATIENCE_S if self.objective_s is None else self.objective_s * _OBJECTIVES_OF_PATIENCE


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """Everything `yolastic-worker fetch` was told."""

    uri: str
    sha256: str
    output: Path
    limit_bytes: int
    timeout_s: float
    termination_log: Path | None


@dataclass(frozen=True, slots=True)
class HashKeySettings:
    """Everything `yolastic-worker hash-key` was told."""

    name: str
    rate_per_s: str
    daily_quota: str
    """Both as the line has them; empty: none."""
    from_stdin: bool


def available_cores(cpu_max: Path = _CGROUP_CPU_MAX) -> int:
    """Cores this process may use: its affinity, and its control group's share rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text("ascii").split()
    except (OSError, ValueError):
        return cores
    return min(cores, max(1, -(-int(quota) // int(period)))) if quota.isdigit() else cores


class _Parser(argparse.ArgumentParser):
    """One sentence instead of a usage text."""

    def error(self, message: str) -> NoReturn:
        raise WorkerFailure("BadConfiguration", message)


def _add(parser: argparse.ArgumentParser, flag: str, **options: Any) -> None:
    """Add a flag whose default may come from the environment."""
    told = os.environ.get(WORKER_ENV_PREFIX + flag.removeprefix("--").replace("-", "_").upper())
    if told is not None:
        if options.get("action") == "store_true":
            options["default"] = told.lower() in ("1", "true", "yes")
        else:
            options["default"], options["required"] = told, False
    parser.add_argument(flag, **options)


def _whole(low: int, high: int) -> Any:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return number

    return parse


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 86400")
    return number


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and 32 <= int(part) <= 4096 and int(part) % 32 == 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT in multiples of 32, such as 640x640")
    return int(parts[1]), int(parts[0])


def _hosts(text: str) -> UrlHosts | None:
    try:
        return parse_hosts(text) if text.strip() else None
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _bytes(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _digest(text: str) -> str:
    if len(text) != 64 or not set(text.lower()) <= set("0123456789abcdef"):
        raise argparse.ArgumentTypeError("a sha256 is 64 hexadecimal digits")
    return text.lower()


_KINDS: Final[dict[str, Callable[[str], Any]]] = {"bytes": parse_bytes, "count": int, "seconds": float, "formats": parse_formats}


def _limit(rule: Rule) -> Any:
    def parse(text: str) -> Any:
        try:
            value = _KINDS[rule.kind](text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not what {rule.flag} takes: {rule.kind}") from error
        if rule.kind != "formats" and not rule.low <= value <= rule.high:
            raise argparse.ArgumentTypeError(f"{text!r} is not from {rule.low} to {rule.high}")
        return value

    return parse


def _limit_flags(parser: argparse.ArgumentParser) -> None:
    for name, rule in rules().items():
        kind = "" if rule.kind == "count" else f"{rule.kind}: "
        value = getattr(DEFAULT_LIMITS, name)
        default = ",".join(value) if rule.kind == "formats" else value
        help_text, shown = kind + rule.reason, rule.kind.upper()
        _add(parser, rule.flag, dest="limit_" + name, type=_limit(rule), default=default, metavar=shown, help=help_text)


def _serve_flags(parser: argparse.ArgumentParser) -> None:
    port, fd = _whole(0, 65535), _whole(3, 1 << 20)
    _add(parser, "--model", type=Path, help="ONNX file with a dynamic batch; optional with the simulated backend")
    _add(parser, "--model-sha256", type=_digest, help="refuse any other content")
    _add(parser, "--name", help="name of the model in answers and metrics; default: the file's stem")
    _add(parser, "--task", choices=["Detect"], help="default: the model's metadata")
    _add(parser, "--input-size", type=_size, help="WIDTHxHEIGHT; default: the model's metadata")
    _add(parser, "--backend", choices=["onnxruntime", "simulated"], default="onnxruntime")
    _add(parser, "--device", choices=["cpu", "cuda"], default="cpu")
    _add(
        parser, "--simulate", default="",
        help="with the simulated backend: fixed_ms=20,per_image_ms=1,memory_fixed_mib=600,…; for tests of failures also "
        "memory_limit_file=PATH (MiB, read before every batch) and faults=PATH (an error text a line, each fails one batch)",
    )  # fmt: skip
    _add(parser, "--host", default="0.0.0.0", help="of the data port")  # noqa: S104 - it serves a network
    _add(parser, "--port", type=port, default=DATA_PORT)
    _add(parser, "--fd", type=fd, help="an inherited listening socket, shared with other workers, instead of --port")
    _add(
        parser,
        "--open-when-ready",
        action="store_true",
        help="open the data port no sooner than it can serve, for behind a Service; without it 503 is answered meanwhile",
    )
    _add(parser, "--control-host", default="0.0.0.0", help="of the control port and the metrics port")  # noqa: S104 - probes come from the node
    _add(parser, "--control-port", type=port, default=CONTROL_PORT)
    _add(parser, "--control-fd", type=fd, help="an inherited socket instead of --control-port")
    _add(
        parser,
        "--metrics-port",
        type=port,
        help="a port with GET /metrics and nothing else; default: only the control port has it",
    )
    _add(
        parser,
        "--control-token-file",
        type=Path,
        help="bearer tokens for ceiling, drain and rebalance, one a line, each opens; without it they are refused",
    )
    _add(parser, "--max-batch", type=_whole(1, 256), default=32, help="never more images in one batch")
    _add(parser, "--window", choices=["adaptive", "fixed"], default="adaptive")
    _add(parser, "--max-delay-ms", type=_whole(0, 1000), default=10, help="the longest an image waits for company")
    _add(parser, "--eager-size", type=_whole(1, 256), default=4, help="this many waiting: go at once")
    _add(parser, "--shared", action="store_true", help="other workers use the device too")
    _add(parser, "--queue-length", type=_whole(1, 65536), default=256, help="images that may wait; more are refused")
    _add(
        parser, "--overflow", choices=["reject", "drop-oldest"], default="reject",
        help="when the queue is too long: refuse the newcomer, or drop the oldest for it (live cameras)",
    )  # fmt: skip
    _add(parser, "--memory-limit", type=_bytes, help="a quantity such as 8Gi; default: what the device has")
    _add(parser, "--objective-ms", type=_whole(1, 600_000), help="latency objective; 5 times it is a client's default patience")
    _add(parser, "--threads", type=_whole(0, 1024), default=0, help="of one run on the CPU; 0: all cores")
    _add(
        parser, "--cuda-graphs", type=_whole(0, 256), default=0,
        help="on cuda, batches up to this many images run as CUDA graphs, in sessions of their own; 0: none",
    )  # fmt: skip
    _add(parser, "--decode-threads", type=_whole(0, 1024), default=0, help="0: as many as cores, at most 16")
    _limit_flags(parser)
    _add(
        parser,
        "--api-keys-file",
        type=Path,
        help="lines name:sha256[:rate per second[:daily quota]]; with it nobody is served without a key (see hash-key)",
    )
    _add(
        parser,
        "--url-hosts",
        type=_hosts,
        default="",
        help="hosts that images may be fetched from over https, host[:port] or *.domain, with commas; none: no URL is fetched",
    )
    _add(parser, "--url-timeout-s", type=_seconds, default=10.0, help="the longest to fetch an image; a client may wait shorter")
    _add(parser, "--propagation-delay-s", type=_seconds, default=5.0, help="how long others may still send after a drain began")
    _add(parser, "--drain-timeout-s", type=_seconds, default=60.0, help="the longest to finish what was accepted")
    _add(parser, "--log-format", choices=["text", "json"], default="text")


def _fetch_flags(parser: argparse.ArgumentParser) -> None:
    _add(parser, "--uri", required=True, help="https:// or http://")
    _add(parser, "--sha256", type=_digest, required=True)
    _add(parser, "--output", type=Path, required=True)
    _add(parser, "--limit", type=_bytes, default="2Gi", help="largest file")
    _add(parser, "--timeout-s", type=_seconds, default=600.0, help="for the whole download")


def _hash_key_flags(parser: argparse.ArgumentParser) -> None:
    _add(parser, "--name", required=True, help="of the client the key is for; it stands in the file beside the key's hash")
    _add(parser, "--rate-per-s", default="", help="requests a second that one worker takes with this key; default: no limit")
    _add(parser, "--daily-quota", default="", help="requests a day (UTC) that one worker takes with this key; default: no limit")
    _add(parser, "--stdin", action="store_true", help="hash the key on standard input instead of making one")


def termination_log_of(arguments: list[str]) -> Path | None:
    """Where the reason goes, for when the rest of the command line cannot be read."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    _add(parser, "--termination-log", type=Path)
    try:
        told: Path | None = parser.parse_known_args(arguments)[0].termination_log
    except WorkerFailure:
        return None
    return told


def parse_arguments(arguments: list[str]) -> ServeSettings | FetchSettings | HashKeySettings:
    """Settings from the command line and the environment.

    Raises:
        WorkerFailure: BadConfiguration.
        SystemExit: after --help.
    """
    parser = _Parser(prog="yolastic-worker", description="Serve one YOLO model with dynamic batching.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    serve = commands.add_parser("serve", help="serve a model", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    fetch = commands.add_parser(
        "fetch", help="download a model and verify it", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    hash_key = commands.add_parser(
        "hash-key", help="make an API key, or hash one", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    _serve_flags(serve)
    _fetch_flags(fetch)
    _hash_key_flags(hash_key)
    for command in (serve, fetch):
        _add(command, "--termination-log", type=Path, help=f"where the reason of a failed start goes, such as {TERMINATION_LOG}")
    told = parser.parse_args(arguments)
    if told.command == "fetch":
        return FetchSettings(told.uri, told.sha256, told.output, told.limit, told.timeout_s, told.termination_log)
    if told.command == "hash-key":
        return HashKeySettings(told.name, told.rate_per_s, told.daily_quota, told.stdin)
    return _serve_settings(told)


def _serve_settings(told: argparse.Namespace) -> ServeSettings:
    simulated = told.backend == "simulated"
    if told.model is None and not simulated:
        raise WorkerFailure("BadConfiguration", "--model is required")
    if told.simulate and not simulated:
        raise WorkerFailure("BadConfiguration", "--simulate needs --backend simulated")
    if simulated and told.device != "cpu":
        raise WorkerFailure("BadConfiguration", "--backend simulated has no --device; its name is device=… in --simulate")
    if told.cuda_graphs and told.device != "cuda":
        raise WorkerFailure("BadConfiguration", "--cuda-graphs needs --device cuda")
    cores = available_cores()
    return ServeSettings(
        model=told.model, model_sha256=told.model_sha256, name=told.name or (told.model.stem if told.model else "simulated"),
        task=told.task, input_size=told.input_size, backend=told.backend, device=told.device,
        simulation=parse_simulation(told.simulate), host=told.host, port=told.port, fd=told.fd,
        open_when_ready=told.open_when_ready or told.fd is not None, control_host=told.control_host,
        control_port=told.control_port, control_fd=told.control_fd, metrics_port=told.metrics_port,
        control_token_file=told.control_token_file, max_batch=told.max_batch, window=told.window,
        max_delay_s=told.max_delay_ms / 1e3, eager_size=told.eager_size,
        shared=told.shared, queue_length=told.queue_length, overflow=told.overflow, memory_limit_bytes=told.memory_limit,
        objective_s=None if told.objective_ms is None else told.objective_ms / 1e3, threads=told.threads or cores,
        cuda_graphs=told.cuda_graphs, decode_threads=told.decode_threads or min(cores, 16), limits=from_told(vars(told)),
        api_keys_file=told.api_keys_file, url_hosts=told.url_hosts, url_timeout_s=told.url_timeout_s,
        propagation_delay_s=told.propagation_delay_s, drain_timeout_s=told.drain_timeout_s,
        termination_log=told.termination_log, log_format=told.log_format,
    )  # fmt: skip
