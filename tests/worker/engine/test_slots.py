"""A model that is right alone and wrong in a batch never becomes Ready; the sentence says how to export it."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from yolastic_contract.failure import parse_failure
from yolastic_worker.engine.onnxruntime import OnnxOptions, OnnxRuntimeEngine
from yolastic_worker.types import WorkerFailure
from yolastic_worker.warmup import warm_up

DATA = Path(__file__).resolve().parents[1] / "data"
WRONG = ["first-place-only", "first-image-everywhere", "neighbour", "mixed"]


def _models() -> ModuleType:
    spec = importlib.util.spec_from_file_location("slot_models", Path(__file__).with_name("slot_models.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _engine(folder: Path, kind: str, **options: object) -> OnnxRuntimeEngine:
    path = folder / f"{kind}.onnx"
    path.write_bytes(_models().slot_model(kind))
    return OnnxRuntimeEngine(OnnxOptions(model=path, threads=1, max_batch=8, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"pixel_input": True}], ids=["planes", "pixels"])
def test_right_in_every_place(tmp_path: Path, options: dict[str, object]) -> None:
    engine = _engine(tmp_path, "right", **options)
    warmth = warm_up(engine, 8, None)
    assert warmth.buckets == (1, 2, 4, 8)
    canary = warmth.canary
    assert canary is not None
    assert canary.boxes.shape == (4, 6)
    assert canary.differs(engine.run([canary.pixels])[0], engine.info.head) is None
    assert canary.differs(engine.run([255 - canary.pixels])[0], engine.info.head)


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_in_a_batch(tmp_path: Path, kind: str) -> None:
    engine = _engine(tmp_path, kind)
    assert warm_up(engine, 1, None).buckets == (1,), "alone nobody can tell"
    with pytest.raises(
        WorkerFailure, match=r"in a batch of 2 the answer in place [12] is not that of the image alone"
    ) as failure:
        warm_up(engine, 8, None)
    assert failure.value.reason == "FixedBatch"
    assert "yolo export model=X.pt format=onnx dynamic=True nms=False" in str(failure.value)


def test_the_process_says_so_and_exits_with_2(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(_models().slot_model("first-place-only"))
    log = tmp_path / "termination"
    command = [sys.executable, "-m", "yolastic_worker", "serve", "--model", str(path), "--host", "127.0.0.1", "--port", "0"]
    command += ["--control-host", "127.0.0.1", "--control-port", "0", "--max-batch", "4", "--termination-log", str(log)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    found = parse_failure(done.stderr)
    assert found is not None, done.stderr
    assert found[0] == "FixedBatch"
    assert "nms=False" in found[1]
    assert log.read_text() == f"{found[0]}: {found[1]}\n"
    assert "Traceback" not in done.stderr
    assert "onnxruntime:" not in done.stderr, "the runtime's own log stays silent"
