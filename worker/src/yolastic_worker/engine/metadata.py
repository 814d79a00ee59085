"""What Ultralytics writes into its ONNX files, read as data: task, class names, input size."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from yolastic_worker.types import WorkerFailure

EXPORT_HINT: Final = "export it with a dynamic batch: yolo export model=X.pt format=onnx dynamic=True"
_DEFAULT_SIDE: Final = 640
_TASKS: Final = {"detect": "Detect", "segment": "Segment", "pose": "Pose", "classify": "Classify", "obb": "OrientedDetect"}


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a model's metadata say; what they leave out is None or empty."""

    task: str | None
    names: tuple[str, ...]
    """By class number; empty when the file has none."""
    height: int | None
    width: int | None


def _literal(text: str | None) -> Any:
    """A Python literal, never code; None when it is none."""
    if text is None:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def parse_metadata(values: Mapping[str, str]) -> Metadata:
    """Metadata of an Ultralytics export; of any other model nothing is known."""
    task = values.get("task")
    names = _literal(values.get("names"))
    if isinstance(names, list):
        names = dict(enumerate(names))
    plain = isinstance(names, dict) and set(names) == set(range(len(names)))
    size = _literal(values.get("imgsz"))
    sides = [size, size] if isinstance(size, int) else size
    known = isinstance(sides, list | tuple) and len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides)
    return Metadata(
        task=_TASKS.get(task, task) if task else None,
        names=tuple(str(names[number]) for number in range(len(names))) if plain else (),
        height=sides[0] if known else None,
        width=sides[1] if known else None,
    )


def choose_task(metadata: Metadata, asked: str | None) -> str:
    """The task to serve.

    Raises:
        WorkerFailure: UnsupportedModel, when it is not detection or not the one that was asked for.
    """
    task = metadata.task or asked or "Detect"
    if task != "Detect":
        raise WorkerFailure("UnsupportedModel", f"the model's task is {task}; this version serves Detect")
    if asked is not None and asked != task:
        raise WorkerFailure("UnsupportedModel", f"the model's task is {task}, not {asked}")
    return task


def choose_size(metadata: Metadata, shape: tuple[int | str | None, ...], asked: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) to serve: the model's own where it is fixed, else what is asked for, else its metadata, else 640.

    `shape`: of the model's input [batch, 3, height, width]; `asked`: (height, width).

    Raises:
        WorkerFailure: BadConfiguration, when the model cannot be served at the size that is asked for.
    """
    wanted = asked or (metadata.height or _DEFAULT_SIDE, metadata.width or _DEFAULT_SIDE)
    sides = []
    for fixed, side in zip(shape[2:], wanted, strict=True):
        if isinstance(fixed, int) and asked is not None and fixed != side:
            raise WorkerFailure(
                "BadConfiguration",
                f"the model's input is fixed at {shape[3]}x{shape[2]} (width x height), not {asked[1]}x{asked[0]}",
            )
        sides.append(fixed if isinstance(fixed, int) else side)
    if any(side % 32 for side in sides):
        raise WorkerFailure("BadConfiguration", f"the input size {sides[1]}x{sides[0]} is not a multiple of 32 on both sides")
    return sides[0], sides[1]
