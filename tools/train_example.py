"""Trains the example detector from nothing on a CPU and exports it: examples/models/shapes.onnx and its companions.

The network is Ultralytics' YOLO26 layout at an eighth of its width. It has two heads on one backbone: one that wants NMS
(exported as the example model) and one that does not (exported for the golden tests), so both kinds of output come from the
same weights.

    uv venv train-venv --python 3.11
    uv pip install --python train-venv/bin/python ultralytics onnx onnxruntime onnxslim scikit-image
    train-venv/bin/python tools/train_example.py all --work /tmp/shapes          # about half an hour on two cores

The steps can also be run alone: `data` draws the images, `train` trains, `export` writes the ONNX files, `score` measures them.
No weights are downloaded. The same seed draws the same images; training is bounded in time, so its weights differ from run
to run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from operator import itemgetter
from pathlib import Path
from typing import Any

os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_OFFLINE", "true")

import cv2
import onnx
import onnxruntime
import torch
import ultralytics
import yaml
from shapes_data import CLASSES, write_examples, write_yolo_split
from ultralytics import YOLO

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "examples/models/shapes.onnx"
MODEL_END_TO_END = ROOT / "tests/goldens/shapes_e2e.onnx"
EXAMPLES = ROOT / "examples/images"

INPUT_SIZE = 320
SPLITS = {"train": (10_000, 1600), "val": (20_000, 120), "test": (30_000, 400)}
"""Seed and number of images of each split; `val` only shows progress, `test` is what the figures are measured on."""

LEAST_MAP50 = 0.90
LEAST_FOUND_SHARE = 0.90


def draw_data(work: Path) -> None:
    """Draw all splits and the committed example images."""
    for split, (seed, count) in SPLITS.items():
        write_yolo_split(work / "data", split, seed, count)
    write_examples(EXAMPLES)
    description = {"path": str((work / "data").resolve()), "names": dict(enumerate(CLASSES))}
    (work / "data.yaml").write_text(yaml.safe_dump({**description, **{s: f"images/{s}" for s in SPLITS}}))


def write_architecture(work: Path) -> Path:
    """Write the YOLO26 layout with our classes at depth 1/2, width 1/8."""
    layout = yaml.safe_load((Path(ultralytics.__file__).parent / "cfg/models/26/yolo26.yaml").read_text())
    layout["nc"] = len(CLASSES)
    layout["scales"] = {"n": [0.5, 0.125, 1024]}
    path = work / "yolo26n-shapes.yaml"
    path.write_text(yaml.safe_dump(layout))
    return path


def train(work: Path, minutes: float, threads: int) -> None:
    """Train for about `minutes`; the best weights end up in WORK/shapes.pt."""
    model = YOLO(str(write_architecture(work)), task="detect")
    # Ultralytics leaves one core idle.
    model.add_callback("on_train_start", lambda _trainer: torch.set_num_threads(threads))
    model.train(
        data=str(work / "data.yaml"), imgsz=INPUT_SIZE, time=minutes / 60, epochs=30, batch=16, nbs=16,
        device="cpu", workers=1, cache="ram", seed=0, pretrained=False, amp=False, plots=False,
        optimizer="AdamW", lr0=0.002, lrf=0.02, momentum=0.9, cos_lr=True, warmup_epochs=1.0, patience=1000,
        mosaic=0.0, mixup=0.0, erasing=0.0, scale=0.25, translate=0.1, fliplr=0.5, flipud=0.5, hsv_h=0.1, hsv_s=0.4, hsv_v=0.2,
        project=str(work / "runs"), name="train", exist_ok=True,
    )  # fmt: skip
    shutil.copy(work / "runs/train/weights/last.pt", work / "shapes.pt")


def export(work: Path) -> None:
    """Export both heads with free batch, height and width, and write the checksum of the example model."""
    for target, end_to_end in ((MODEL, False), (MODEL_END_TO_END, True)):
        target.parent.mkdir(parents=True, exist_ok=True)
        # nms=False keeps the head that needs none; None gives the raw one.
        made = YOLO(str(work / "shapes.pt")).export(
            format="onnx", imgsz=INPUT_SIZE, dynamic=True, simplify=True, nms=False if end_to_end else None, device="cpu"
        )
        shutil.move(made, target)
        _tidy(target)
    MODEL.with_name(MODEL.name + ".sha256").write_text(f"{_sha256(MODEL)}  {MODEL.name}\n")


def _tidy(path: Path) -> None:
    """Drop the exporter's intermediate shapes (a quarter of the file, inferred again on load) and the data set's path."""
    model = onnx.load(path)
    del model.graph.value_info[:]
    for entry in model.metadata_props:
        if entry.key == "description":
            entry.value = "Ultralytics YOLO26 at an eighth of its width, trained on drawn shapes"
    onnx.checker.check_model(model)
    onnx.save(model, path)


def score(work: Path) -> dict[str, Any]:
    """Measure mAP50 on the unseen test split and the found share on the example images; write shapes.json."""
    measured = {
        "mAP50_onnx": _map50(MODEL, work),
        "mAP50_onnx_end_to_end": _map50(MODEL_END_TO_END, work),
        "mAP50_pytorch": _map50(work / "shapes.pt", work),
    }
    found, total = found_objects(MODEL)
    card: dict[str, Any] = {
        "mAP50": measured["mAP50_onnx"],
        **measured,
        "images": SPLITS["test"][1],
        "examples": {"conf": 0.25, "iou": 0.7, "objects": total, "found": found, "found_share": round(found / total, 4)},
        "classes": list(CLASSES),
        "imgsz": INPUT_SIZE,
        "sha256": _sha256(MODEL),
        "sha256_end_to_end": _sha256(MODEL_END_TO_END),
        "bytes": MODEL.stat().st_size,
        "versions": {"ultralytics": ultralytics.__version__, "torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
    }
    MODEL.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))
    if card["mAP50"] < LEAST_MAP50 or found / total < LEAST_FOUND_SHARE:
        raise SystemExit(f"not good enough: mAP50 {card['mAP50']:.3f}, found {found} of {total}")
    return card


def _map50(model: Path, work: Path) -> float:
    metrics = YOLO(str(model), task="detect").val(
        data=str(work / "data.yaml"), split="test", imgsz=INPUT_SIZE, batch=8, rect=False, device="cpu", workers=0,
        plots=False, verbose=False, project=str(work / "runs"), name="val", exist_ok=True,
    )  # fmt: skip
    return round(float(metrics.box.map50), 4)


def found_objects(model: Path) -> tuple[int, int]:
    """Count the example images' objects and those found: right class, IoU >= 0.5, each answer used once."""
    labels = json.loads((EXAMPLES / "labels.json").read_text())
    detector = YOLO(str(model), task="detect")
    found = total = 0
    for entry in labels["images"]:
        image = cv2.imread(str(EXAMPLES / entry["file"]))
        answer = detector.predict(image, imgsz=INPUT_SIZE, conf=0.25, iou=0.7, rect=False, device="cpu", verbose=False)[0]
        boxes = list(zip(answer.boxes.cls.int().tolist(), answer.boxes.xyxy.tolist(), strict=True))
        for wanted in entry["objects"]:
            total += 1
            label = CLASSES.index(wanted["name"])
            same = [b for b in boxes if b[0] == label]
            overlaps = [(box_iou(b[1], wanted["box"]), b) for b in same]
            overlap, match = max(overlaps, key=itemgetter(0), default=(0.0, None))
            if match is not None and overlap >= 0.5:
                found += 1
                boxes.remove(match)
    return found, total


def box_iou(one: list[float], two: list[float]) -> float:
    """Intersection over union of two boxes x1, y1, x2, y2."""
    width = max(0.0, min(one[2], two[2]) - max(one[0], two[0]))
    height = max(0.0, min(one[3], two[3]) - max(one[1], two[1]))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, two)]
    return width * height / max(sum(areas) - width * height, 1e-9)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Run one step or all of them."""
    parser = argparse.ArgumentParser(description="Train and export the example detector.")
    parser.add_argument("step", choices=["all", "data", "train", "export", "score"])
    parser.add_argument("--work", type=Path, default=Path("/tmp/shapes"), help="folder for images, runs and weights")
    parser.add_argument("--minutes", type=float, default=24.0, help="time to train")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.step in ("all", "data"):
        draw_data(args.work)
    if args.step in ("all", "train"):
        train(args.work, args.minutes, args.threads)
    if args.step in ("all", "export"):
        export(args.work)
    if args.step in ("all", "score"):
        score(args.work)


if __name__ == "__main__":
    main()
