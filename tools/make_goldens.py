"""Writes what Ultralytics itself answers, so that the tests can hold the worker to it without installing Ultralytics.

    uv venv train-venv --python 3.11
    uv pip install --python train-venv/bin/python ultralytics onnx onnxruntime onnxslim scikit-image
    train-venv/bin/python tools/make_goldens.py                  # writes tests/goldens/{ultralytics,letterbox}.json
    train-venv/bin/python tools/make_goldens.py --check          # computes them again and compares with what is committed
    train-venv/bin/python tools/make_goldens.py --write-photos   # writes tests/goldens/photos from scikit-image's wheel
    train-venv/bin/python tools/make_goldens.py --compare-worker http://127.0.0.1:8000

The last one sends photographs that may not be redistributed (the two in Ultralytics' wheel, and those in `--photos DIR`) to a
running worker and to Ultralytics, prints the largest differences, and fails when they exceed 1 px or 0.01.

Every answer is Ultralytics' own `YOLO(onnx).predict(cv2.imread(file), rect=False)` with its default NMS settings (class-aware,
at most 300 boxes). A case that hangs on the last digits of a float (a score at the confidence limit, an overlap at the NMS
limit) is left out, since another processor may answer it the other way.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_OFFLINE", "true")

import cv2
import numpy as np
import ultralytics
from ultralytics import YOLO
from ultralytics.data.augment import LetterBox

ROOT = Path(__file__).resolve().parent.parent
GOLDENS = ROOT / "tests/goldens"
PHOTOS = GOLDENS / "photos"
EXAMPLES = ROOT / "examples/images"
MODELS = ("examples/models/shapes.onnx", "tests/goldens/shapes_e2e.onnx")

MODEL_SIZE = (320, 320)
OTHER_SIZES = ((256, 256), (480, 480), (256, 416), (480, 320))
"""Height and width; the models take any multiple of 32."""

OTHER_LIMITS = ((0.1, 0.45), (0.5, 0.3), (0.02, 0.95), (0.6, 0.7))
"""Confidence and IoU limits beside the default 0.25 and 0.7."""

PHOTO_CONF = 0.02
"""Low enough that a detector of drawn shapes sees some in photographs."""

CONF_MARGIN = 2e-4
IOU_MARGIN = 1e-3
MOST_PIXELS = 1.0
MOST_SCORE = 0.01

LETTERBOX_CASES = (
    (640, 480, 320, 320), (333, 500, 320, 320), (501, 333, 320, 320), (101, 75, 320, 320), (1023, 577, 640, 640),
    (319, 321, 320, 320), (7, 211, 320, 320), (350, 2, 320, 320), (517, 389, 256, 416), (389, 517, 480, 320),
    (320, 320, 320, 320),
)  # fmt: skip
"""Image width and height, target height and width."""

CORNERS = ("x1", "y1", "x2", "y2")

Case = dict[str, Any]
Detection = dict[str, Any]


def read_image(path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    """BGR pixels of an image file.

    Raises:
        SystemExit: it cannot be read.
    """
    image = cv2.imread(str(path))
    if image is None:
        raise SystemExit(f"{path} is no image")
    return image


class Reference:
    """Ultralytics' answers for one ONNX file."""

    def __init__(self, model: Path) -> None:
        self._model = YOLO(str(model), task="detect")

    def detect(self, image: np.ndarray, imgsz: tuple[int, int], conf: float, iou: float) -> list[Detection]:
        """Detections in source pixels, best first, in the form `/predict` uses."""
        answer = self._model.predict(
            image, imgsz=list(imgsz), conf=conf, iou=iou, rect=False, max_det=300, agnostic_nms=False, device="cpu", verbose=False
        )[0]
        boxes = answer.boxes
        rows = zip(boxes.cls.int().tolist(), boxes.conf.tolist(), boxes.xyxy.tolist(), strict=True)
        return [
            {"name": answer.names[label], "class": label, "confidence": score, "box": dict(zip(CORNERS, box, strict=True))}
            for label, score, box in rows
        ]

    def is_stable(self, image: np.ndarray, imgsz: tuple[int, int], conf: float, iou: float) -> bool:
        """Whether the same boxes come back with each limit moved a hair to either side."""
        counts = {
            len(self.detect(image, imgsz, conf + conf_step, min(iou + iou_step, 1.0)))
            for conf_step, iou_step in ((0, 0), (CONF_MARGIN, 0), (-CONF_MARGIN, 0), (0, IOU_MARGIN), (0, -IOU_MARGIN))
        }
        return len(counts) == 1


def plan(photos: Path) -> Iterator[tuple[Path, tuple[int, int], float, float]]:
    """Image, input height and width, confidence and IoU limit of every case."""
    examples, pictures = sorted(EXAMPLES.glob("*.jpg")), sorted(photos.glob("*.jpg"))
    for image in examples:
        yield image, MODEL_SIZE, 0.25, 0.7
    for image in pictures:
        yield image, MODEL_SIZE, PHOTO_CONF, 0.7
    for size in OTHER_SIZES:
        for image in examples[:6]:
            yield image, size, 0.25, 0.7
        for image in pictures:
            yield image, size, PHOTO_CONF, 0.7
    for conf, iou in OTHER_LIMITS:
        for image in examples[6:12]:
            yield image, MODEL_SIZE, conf, iou


def compute_answers(photos: Path) -> dict[str, Any]:
    """Ask Ultralytics every case with both models."""
    cases: list[Case] = []
    left_out = 0
    for model in MODELS:
        reference = Reference(ROOT / model)
        for path, imgsz, conf, iou in plan(photos):
            image = read_image(path)
            if not reference.is_stable(image, imgsz, conf, iou):
                left_out += 1
                continue
            case = {"model": model, "image": str(path.relative_to(ROOT)), "imgsz": list(imgsz), "conf": conf, "iou": iou}
            results = reference.detect(image, imgsz, conf, iou)
            cases.append({**case, "shape": list(image.shape[:2]), "results": results})
    boxes = sum(len(case["results"]) for case in cases)
    print(f"{len(cases)} cases with {boxes} boxes; {left_out} left out because they hang on the last digits")
    digests = {model: hashlib.sha256((ROOT / model).read_bytes()).hexdigest() for model in MODELS}
    return {"ultralytics": ultralytics.__version__, "models": digests, "cases": cases}


def compute_letterboxes() -> dict[str, Any]:
    """Letterbox seeded noise with Ultralytics' own transform: geometry and CRC-32 of the H x W x 3 bytes."""
    cases = []
    for seed, (width, height, target_height, target_width) in enumerate(LETTERBOX_CASES):
        image = noise(seed, width, height)
        transform = LetterBox((target_height, target_width), auto=False, scaleup=True, center=True)
        params = transform.get_params({"img": image})
        boxed = transform(image=image)
        cases.append(
            {
                "seed": seed,
                "width": width,
                "height": height,
                "target": [target_height, target_width],
                "ratio": params["ratio"][0],
                "resized": list(params["new_unpad"]),
                **{side: params[side] for side in ("top", "bottom", "left", "right")},
                "image_crc32": zlib.crc32(image.tobytes()),
                "crc32": zlib.crc32(np.ascontiguousarray(boxed).tobytes()),
                "mean": float(boxed.mean()),
            }
        )
    return {"ultralytics": ultralytics.__version__, "opencv": cv2.__version__, "padding": 114, "cases": cases}


def noise(seed: int, width: int, height: int) -> np.ndarray:
    """H x W x 3 uint8 noise that every numpy version draws alike."""
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=np.uint8)


def match(ours: list[Detection], theirs: list[Detection]) -> tuple[float, float, list[Detection]]:
    """Largest box difference in pixels and score difference of matched detections, and those without a partner."""
    pixels = score = 0.0
    alone: list[Detection] = []
    left = list(theirs)
    for detection in ours:
        same = [d for d in left if d["class"] == detection["class"]]
        best = min(same, key=partial(distance, detection), default=None)
        if best is None or box_difference(detection, best) > 5 * MOST_PIXELS:
            alone.append(detection)
            continue
        left.remove(best)
        pixels = max(pixels, box_difference(detection, best))
        score = max(score, abs(detection["confidence"] - best["confidence"]))
    return pixels, score, alone + left


def distance(one: Detection, two: Detection) -> float:
    """How unlike two detections are: pixels, and a hundredth of score counts as one."""
    return box_difference(one, two) + abs(float(one["confidence"] - two["confidence"])) / MOST_SCORE


def box_difference(one: Detection, two: Detection) -> float:
    """Largest difference of two boxes' corners, pixels."""
    return float(max(abs(one["box"][corner] - two["box"][corner]) for corner in CORNERS))


def dump(data: dict[str, Any]) -> str:
    """JSON with one case a line, floats in full."""
    head = "".join(f'  "{key}": {json.dumps(value)},\n' for key, value in data.items() if key != "cases")
    return "{\n" + head + '  "cases": [\n' + ",\n".join("    " + json.dumps(case) for case in data["cases"]) + "\n  ]\n}\n"


def check(photos: Path) -> int:
    """Compare what is committed with what Ultralytics answers now; the number of complaints."""
    committed = json.loads((GOLDENS / "ultralytics.json").read_text())
    complaints = [
        f"{model} is not the file the answers were made with"
        for model, digest in committed["models"].items()
        if hashlib.sha256((ROOT / model).read_bytes()).hexdigest() != digest
    ]
    key = ("model", "image", "imgsz", "conf", "iou")
    known = {json.dumps([case[k] for k in key]): case for case in committed["cases"]}
    worst_pixels = worst_score = 0.0
    references = {model: Reference(ROOT / model) for model in MODELS}
    for name, case in known.items():
        image = read_image(ROOT / case["image"])
        answer = references[case["model"]].detect(image, tuple(case["imgsz"]), case["conf"], case["iou"])
        pixels, score, alone = match(case["results"], answer)
        worst_pixels, worst_score = max(worst_pixels, pixels), max(worst_score, score)
        if alone:
            complaints.append(f"{name}: {len(alone)} boxes have no partner")
    wanted = {json.dumps([m, str(p.relative_to(ROOT)), list(s), c, i]) for m in MODELS for p, s, c, i in plan(photos)}
    complaints += [f"{name}: is no longer planned" for name in known.keys() - wanted]
    print(f"{len(known)} cases: largest difference {worst_pixels:.4f} px, score {worst_score:.6f}")
    if worst_pixels > 0.1 or worst_score > 0.001:
        complaints.append("the answers moved: write the goldens again and say why")
    letterboxes = json.loads((GOLDENS / "letterbox.json").read_text())
    if letterboxes["cases"] != json.loads(json.dumps(compute_letterboxes()["cases"])):
        complaints.append("letterbox.json differs")
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return len(complaints)


def compare_worker(url: str, model: Path, photos: Path | None) -> int:
    """Send photographs to a worker and to Ultralytics; the number of answers that differ by more than is allowed."""
    reference = Reference(model)
    files = sorted((Path(ultralytics.__file__).parent / "assets").glob("*.jpg"))
    if photos is not None:
        files += sorted(p for p in photos.iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
    failures = 0
    for path in files:
        image = read_image(path)
        for conf, iou in ((0.25, 0.7), (PHOTO_CONF, 0.7), (PHOTO_CONF, 0.45)):
            theirs = reference.detect(image, MODEL_SIZE, conf, iou)
            pixels, score, alone = match(ask_worker(url, path, conf, iou), theirs)
            # A score at the limit may fall on either side of it.
            alone = [d for d in alone if d["confidence"] > conf + CONF_MARGIN]
            bad = bool(alone) or pixels > MOST_PIXELS or score > MOST_SCORE
            failures += bad
            print(
                f"{path.name} conf {conf} iou {iou}: {len(theirs)} boxes, {len(alone)} without a partner,"
                f" largest difference {pixels:.3f} px, score {score:.5f}{'  TOO MUCH' if bad else ''}"
            )
    return failures


def ask_worker(url: str, path: Path, conf: float, iou: float) -> list[Detection]:
    """Post one JPEG to URL/predict and return the first image's detections."""
    query = urllib.parse.urlencode({"conf": conf, "iou": iou})
    request = urllib.request.Request(
        f"{url.rstrip('/')}/predict?{query}", data=path.read_bytes(), headers={"Content-Type": "image/jpeg"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        results: list[Detection] = json.load(answer)["images"][0]["results"]
    return results


def write_photos() -> None:
    """Re-encode scikit-image's freely licensed photographs as JPEGs of at most 80 kB."""
    from skimage import data  # noqa: PLC0415 only this step needs it

    PHOTOS.mkdir(parents=True, exist_ok=True)
    for name in ("astronaut", "chelsea", "coffee", "rocket", "camera"):
        pixels = getattr(data, name)()
        image = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR if pixels.ndim == 2 else cv2.COLOR_RGB2BGR)
        for quality in range(92, 40, -4):
            encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            if encoded.size <= 80_000:
                break
        (PHOTOS / f"{name}.jpg").write_bytes(encoded.tobytes())


def main() -> None:
    """Write, check or compare."""
    parser = argparse.ArgumentParser(description="Golden answers of Ultralytics.")
    parser.add_argument("--check", action="store_true", help="compare with what is committed instead of writing")
    parser.add_argument("--write-photos", action="store_true", help="write tests/goldens/photos and stop")
    parser.add_argument("--compare-worker", metavar="URL", help="compare a running worker with Ultralytics and stop")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="further photographs for --compare-worker")
    parser.add_argument("--model", type=Path, default=ROOT / MODELS[0], help="the model the compared worker serves")
    args = parser.parse_args()
    if args.write_photos:
        write_photos()
    elif args.compare_worker:
        try:
            failures = compare_worker(args.compare_worker, args.model, args.photos)
        except OSError as error:  # urllib's errors are OSErrors
            sys.exit(f"{args.compare_worker} did not answer: {error}")
        sys.exit(1 if failures else 0)
    elif args.check:
        sys.exit(1 if check(PHOTOS) else 0)
    else:
        (GOLDENS / "ultralytics.json").write_text(dump(compute_answers(PHOTOS)))
        (GOLDENS / "letterbox.json").write_text(dump(compute_letterboxes()))


if __name__ == "__main__":
    main()
