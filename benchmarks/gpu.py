"""`make bench-gpu`: what only a device can tell, written to RESULTS-gpu.md. Downloads nothing.

Before it, where there is a network: `python benchmarks/gpu.py --prepare` builds YOLO11 n, s and m (random weights: they do not
matter for time and memory) in FP32 and FP16 into benchmarks/models, which travels with the checkout.
"""

import argparse
import datetime
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "benchmarks/models"
RESULTS = ROOT / "benchmarks/RESULTS-gpu.md"
_BEGIN, _END = "<!-- measured -->", "<!-- /measured -->"
WAYS: dict[str, dict[str, Any]] = {
    "float pixels, session.run": {"pixel_input": False, "bound": False},
    "uint8 pixels, session.run": {"pixel_input": True, "bound": False},
    "uint8 pixels, I/O bound (the default)": {"pixel_input": True, "bound": True},
    "the same and CUDA graphs up to 8": {"pixel_input": True, "bound": True, "fixed_up_to": 8},
}
_DEFAULT = "uint8 pixels, I/O bound (the default)"


def prepare(folder: Path) -> int:
    """Build the models; needs the export extra (about 6 GB once)."""
    import onnx  # noqa: PLC0415 - only here
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    for size in "nsm":
        path = folder / f"yolo11{size}-fp32.onnx"
        if not path.exists():
            export = ["uv", "run", "--isolated", "--package", "yolastic-cli", "--extra", "export", "python"]
            subprocess.run([*export, str(ROOT / "tools/build_model.py"), f"yolo11{size}.yaml", str(path)], check=True)
        half = convert_float_to_float16(onnx.load(path), keep_io_types=False)
        onnx.save(half, folder / f"yolo11{size}-fp16.onnx")
    return 0


def run_case(model: Path, device: str, largest: int, repeats: int, kind: str, **options: Any) -> dict[str, Any]:
    """One case in a process of its own; {"failure": …} when it could not be measured."""
    case = {"model": str(model), "device": device, "largest": largest, "repeats": repeats, "kind": kind, "options": options}
    command = [sys.executable, str(ROOT / "benchmarks/gpu_case.py"), json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"failure": (done.stderr or done.stdout).strip()[-300:]}
    return answer


def off(found: dict[str, float | None], wanted: dict[str, float]) -> list[float]:
    """How far each wanted value is from what was found, as a share of it."""
    return [abs(wanted[images] - peak) / peak for images, peak in found.items() if peak and images in wanted]


def share(errors: list[float]) -> str:
    """Mean and largest."""
    return f"{statistics.mean(errors):.1%} (largest {max(errors):.1%})" if errors else "not known"


def memory_rows(models: list[Path], device: str, largest: int, repeats: int) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    """(memory table, time table, the raw answers) of the default way."""
    buckets = [str(2**power) for power in range(largest.bit_length())]
    memory = [
        "| model | planned, off by (reach: 10 %) | fit, off by (reach: 5 %) | fixed | an image | largest batch |",
        "|---|---|---|---|---|---|",
    ]
    names = " | ".join(f"t({images}) ms" for images in buckets)
    times, raw = [f"| model | {names} | a ms | c ms |", "|---" * (len(buckets) + 3) + "|"], []
    for model in models:
        answer = run_case(model, device, largest, repeats, "memory", **WAYS[_DEFAULT])
        raw.append({"model": model.stem, **answer})
        if "failure" in answer:
            memory.append(f"| {model.stem} | {answer['failure']} |||||")
            continue
        peaks, fit, planned = answer["peaks"], answer["fit"], answer["planned"]
        by_plan = share(off(peaks, planned)) if isinstance(planned, dict) else planned
        by_fit = share(off(peaks, {n: fit["fixed"] + fit["per_image"] * int(n) for n in peaks})) if fit else "not known"
        line = "" if fit is None else f"{fit['fixed'] / 2**20:.0f} MiB | {fit['per_image'] / 2**20:.1f} MiB"
        memory.append(f"| {model.stem} | {by_plan} | {by_fit} | {line} | {max(map(int, peaks))} |")
        cells = [f"{answer['times_ms'][n]:.2f}" if n in answer["times_ms"] else "" for n in buckets]
        speed = answer["speed"]
        times.append(f"| {model.stem} | {' | '.join(cells)} | {speed['fixed']:.2f} | {speed['per_image']:.2f} |")
    return memory, times, raw


def way_rows(models: list[Path], device: str, largest: int, repeats: int) -> list[str]:
    """Each way of running beside the others: ms at 1, 4, 8 and the largest batch."""
    shown = sorted({1, 4, 8, largest})
    rows = [f"| model | way | {' | '.join(f't({images}) ms' for images in shown)} |", "|---" * (len(shown) + 2) + "|"]
    for model in models:
        for way, options in WAYS.items():
            answer = run_case(model, device, largest, repeats, "time", **options)
            if "failure" in answer:
                rows.append(f"| {model.stem} | {way} | {answer['failure']} |" + "|" * (len(shown) - 1))
                continue
            cells = [f"{answer['times_ms'].get(str(images), float('nan')):.2f}" for images in shown]
            rows.append(f"| {model.stem} | {way} | {' | '.join(cells)} |")
    return rows


def out_of_memory_row(model: Path, device: str, largest: int) -> list[str]:
    """An arena with room for about four images, asked for many."""
    free = run_case(model, device, 4, 1, "time", **WAYS[_DEFAULT])
    if "failure" in free or free["fit"] is None:
        return [f"not measured: {free.get('failure', 'the memory cannot be read')}"]
    limit_bytes = int(model.stat().st_size * 2 + free["fit"]["per_image"] * 4)
    answer = run_case(model, device, largest, 1, "survive", memory_limit_bytes=limit_bytes, **WAYS[_DEFAULT])
    if "failure" in answer:
        return [f"{model.stem}: {answer['failure']}"]
    told = ", ".join(map(str, answer["out_of_memory"])) or "none"
    after = "right" if answer["right_afterwards"] else "**wrong**"
    limit = f"{model.stem}, arena limited to {limit_bytes / 2**20:.0f} MiB"
    return [f"{limit}: out of memory at batches {told}; one image after each: {after}."]


def write(parts: dict[str, list[str]], device: str, runtime: str) -> None:
    """Replace what RESULTS-gpu.md says."""
    text = RESULTS.read_text()
    before, after = text.split(_BEGIN)[0], text.split(_END)[1]
    day = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    lines = [_BEGIN, "", f"Measured {day} by `make bench-gpu` on {device}, {runtime}.", ""]
    for title, rows in parts.items():
        lines += [f"### {title}", "", *rows, ""]
    RESULTS.write_text(before + "\n".join([*lines, _END]) + after)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of ONNX files")
    parser.add_argument("--prepare", action="store_true", help="build the models there; needs a network")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a dry run, printed and not written")
    parser.add_argument("--largest", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    if options.prepare:
        return prepare(options.models)
    models = sorted(options.models.glob("*.onnx"))
    if not models:
        print(f"no ONNX files in {options.models}: build them first with --prepare", file=sys.stderr)
        return 2
    device, largest, repeats = options.device, options.largest, options.repeats
    memory, times, raw = memory_rows(models, device, largest, repeats)
    if all("failure" in answer for answer in raw):
        print(raw[0]["failure"], file=sys.stderr)
        return 2
    parts = {
        "Memory: the plan and the fit beside what the driver says": memory,
        "Time of a batch, the default way: t(b) = a + c b": times,
        "What each way of running gains": way_rows(models, device, largest, repeats),
        "Out of memory": out_of_memory_row(models[0], device, largest),
    }
    for title, rows in parts.items():
        print(f"\n{title}", *rows, sep="\n", flush=True)
    if device == "cuda":
        seen = next(answer for answer in raw if "failure" not in answer)
        write(parts, gpu_name() or seen["device_id"], seen["runtime"])
    return 0


def gpu_name() -> str | None:
    """By the driver; None when it does not tell."""
    try:
        import pynvml  # noqa: PLC0415 - only where there is an NVIDIA device

        pynvml.nvmlInit()
        name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))
    except Exception:
        return None
    return name.decode() if isinstance(name, bytes) else str(name)


if __name__ == "__main__":
    sys.exit(main())
