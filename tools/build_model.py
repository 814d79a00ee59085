"""Build an Ultralytics architecture from its YAML with random weights and export it with a dynamic batch.

For timing and memory only: `python tools/build_model.py yolo11n.yaml OUT.onnx [--imgsz 640]`. Needs the `export` extra.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_OFFLINE", "true")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("architecture")
    parser.add_argument("output", type=Path)
    parser.add_argument("--imgsz", type=int, default=640)
    options = parser.parse_args()
    from ultralytics import YOLO  # noqa: PLC0415 - 6 GB that --help does not need

    output = options.output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        model = YOLO(options.architecture)
        model.save("model.pt")
        exported = YOLO("model.pt").export(format="onnx", dynamic=True, imgsz=options.imgsz, opset=17)
        shutil.move(exported, output)
    print(output)


if __name__ == "__main__":
    main()
