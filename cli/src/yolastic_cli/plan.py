"""`yolastic plan`: bytes for each batch size from a model's file, and the largest batch that fits."""

import argparse
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from yolastic_cli.errors import CliError
from yolastic_contract.names import BUCKETS
from yolastic_contract.quantity import format_bytes, parse_bytes
from yolastic_contract.state import Fit, WorkerState
from yolastic_worker.memory.planner import NotPlannable, Plan, plan

HELP = "bytes for each batch size from an ONNX file, and the largest batch that fits; nothing is run"
_DEFAULT_HEADROOM_PERCENT: Final = 10
_SIZE = re.compile(r"^(\d{2,5})x(\d{2,5})$")
_BYTE_SUFFIX = re.compile(r"(?<=[KMGTPEk])(i?)B$")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="a model with a dynamic batch")
    parser.add_argument("--memory", type=memory, metavar="SIZE", help="what the device has, such as 16GiB or 800Mi")
    parser.add_argument(
        "--headroom", dest="headroom_percent", type=percent, default=_DEFAULT_HEADROOM_PERCENT, metavar="PERCENT",
        help="kept free of it, as memory.headroomPercent (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where it will run (default: %(default)s)")
    parser.add_argument("--precision", choices=("FP32", "FP16"), help="as if it were converted (default: as it is)")
    parser.add_argument("--input-size", type=size, metavar="WIDTHxHEIGHT", help="pixels (default: what the model says)")
    parser.add_argument(
        "--runtime-defaults", action="store_true", help="with ONNX Runtime's default settings instead of the worker's"
    )
    parser.add_argument(
        "--measured", type=Path, metavar="STATE.json", help="a worker's GET /state: what it measured with this very model"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.set_defaults(run=run)


def memory(text: str) -> int:
    """Bytes of `16GiB`, `16Gi`, `800MB` or a plain number; more than none."""
    try:
        size_bytes = parse_bytes(_BYTE_SUFFIX.sub(r"\1", text))
    except ValueError:
        size_bytes = 0
    if size_bytes < 1:
        raise argparse.ArgumentTypeError(f"{text} is not an amount of memory such as 16GiB, 800Mi or 8e9")
    return size_bytes


def percent(text: str) -> int:
    """0 to 90, as the API takes it."""
    if not text.isdecimal() or int(text) > 90:
        raise argparse.ArgumentTypeError(f"{text} is not a percentage from 0 to 90")
    return int(text)


def size(text: str) -> tuple[int, int]:
    """(height, width) of `640x480`."""
    match = _SIZE.match(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text} is not a size such as 640x640 (width x height)")
    return int(match[2]), int(match[1])


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; the exit code."""
    try:
        content = arguments.model.read_bytes()
    except OSError as error:
        raise CliError(f"{arguments.model} cannot be read: {error.strerror}") from error
    try:
        planned = plan(
            content, device=arguments.device, precision=arguments.precision, input_size=arguments.input_size,
            runtime_defaults=arguments.runtime_defaults,
        )  # fmt: skip
    except NotPlannable as error:
        raise CliError(f"{arguments.model.name} cannot be planned: {error}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    state = None if arguments.measured is None else _measured(arguments.measured, planned, sha256)
    fit = None if state is None else state.memory.fit
    report = _report(arguments, planned, sha256, fit)
    if state is not None and state.simulated is not None:
        report["simulated"] = state.simulated
    print(json.dumps(report, indent=2) if arguments.json else _text(report, planned, fit))
    return 0


def _measured(file: Path, planned: Plan, sha256: str) -> WorkerState:
    """What a worker says that has measured the memory of this model, run as it is planned."""
    try:
        state = WorkerState.model_validate_json(file.read_bytes())
    except OSError as error:
        raise CliError(f"{file} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise CliError(f"{file} is not what a worker answers to GET /state") from error
    if state.model is None or state.memory.fit is None:
        raise CliError(f"{file}: this worker had not measured its memory yet")
    if state.model.sha256 != sha256:
        raise CliError(f"{file}: this worker runs another model ({state.model.sha256[:12]}, not {sha256[:12]})")
    model = state.model
    ran = (state.device, f"{model.input_width}x{model.input_height}", model.precision)
    asked = (planned.device, f"{planned.width}x{planned.height}", planned.precision)
    if state.simulated is None and ran != asked:
        told = " and ".join(f"{one}, not {other}" for one, other in zip(ran, asked, strict=True) if one != other)
        raise CliError(f"{file}: what this worker measured says nothing of this plan: it runs on {told}")
    return state


def _report(arguments: argparse.Namespace, planned: Plan, sha256: str, fit: Fit | None) -> dict[str, Any]:
    """What `--json` prints."""
    limit_bytes: int | None = arguments.memory
    budget_bytes = None if limit_bytes is None else limit_bytes * (100 - arguments.headroom_percent) // 100
    line = fit or planned.fit
    rows = []
    for row in planned.batches:
        total_bytes = row.total_bytes if fit is None else round(fit.at(row.images))
        rows.append({
            "images": row.images, "weightsBytes": planned.weights_bytes, "activationsBytes": row.block_bytes,
            "ioBytes": row.io_bytes, "totalBytes": total_bytes,
            "fits": None if budget_bytes is None else total_bytes <= budget_bytes,
        })  # fmt: skip
    report: dict[str, Any] = {
        "model": arguments.model.name, "sha256": sha256, "device": planned.device, "precision": planned.precision,
        "inputSize": {"width": planned.width, "height": planned.height}, "totalKnown": "prior" if fit is None else "measured",
        "fixedBytes": round(line.fixed), "perImageBytes": round(line.per_image), "batches": rows,
        "terms": [{"name": t.name, "value": t.value, "known": t.known, "source": t.source} for t in planned.terms],
    }  # fmt: skip
    if budget_bytes is not None:
        largest = planned.largest(budget_bytes) if fit is None else _largest(fit, budget_bytes)
        report |= {
            "limitBytes": limit_bytes, "headroomPercent": arguments.headroom_percent, "budgetBytes": budget_bytes,
            "largestBatch": largest, "largestBucket": max((bucket for bucket in BUCKETS if bucket <= largest), default=0),
        }  # fmt: skip
    return report


def _largest(fit: Fit, budget_bytes: int) -> int:
    if fit.at(1) > budget_bytes:
        return 0
    return BUCKETS[-1] if fit.per_image <= 0 else int((budget_bytes - fit.fixed) // fit.per_image)


def _text(report: dict[str, Any], planned: Plan, fit: Fit | None) -> str:
    limit = report.get("limitBytes")
    lines = [
        f"{report['model']}: {report['precision']}, {planned.width}x{planned.height} pixels, on {planned.device}",
        "",
        f"{'batch':>6} {'weights':>12} {'activations':>12} {'I/O':>12} {'total':>12}",
    ]
    for row in report["batches"]:
        cells = [_mib(row[key]) for key in ("weightsBytes", "activationsBytes", "ioBytes", "totalBytes")]
        over = "  over the budget" if row["fits"] is False else ""
        lines.append(f"{row['images']:>6} " + " ".join(f"{cell:>12}" for cell in cells) + over)
    known = "the terms below added up" if fit is None else "measured by a worker"
    if "simulated" in report:
        known = f"not of a device: a worker simulates it ({report['simulated']})"
    lines += ["", f"total = {_mib(report['fixedBytes'])} + {_mib(report['perImageBytes'])} an image, {known}"]
    for term in planned.terms:
        replaced = fit is not None and term.known == "prior"
        lines.append(f"  {term.name:<12} {term.known + (' (not used)' if replaced else ''):<19} {term.value:<20} {term.source}")
    if limit is not None:
        budget = f"{format_bytes(report['budgetBytes'])} ({format_bytes(limit)} less {report['headroomPercent']} % headroom)"
        largest, bucket = report["largestBatch"], report["largestBucket"]
        if largest:
            lines += ["", f"largest batch within {budget}: {largest}; as a batch size that is warmed up: {bucket}"]
        else:
            lines += ["", f"not even one image fits within {budget}: it takes {_mib(report['batches'][0]['totalBytes'])}"]
    return "\n".join(lines)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"
