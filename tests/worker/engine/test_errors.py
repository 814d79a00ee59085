"""Error texts of ONNX Runtime, CUDA, cuDNN and cuBLAS (corpus/*.txt), and what each means. Host and node names are made up."""

from pathlib import Path

import pytest

from yolastic_worker.engine.errors import classify

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.txt"))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_corpus(path: Path) -> None:
    """First line `class: NAME`, second `source: …`, then the text as it comes out of the runtime."""
    head, _, text = path.read_text().partition("\n\n")
    kind, source = (line.split(": ", 1)[1] for line in head.splitlines())
    assert text.strip()
    assert source
    for error in (RuntimeError(text), Exception(text.replace("\n", " "))):
        found = classify(error)
        assert ("None" if found is None else type(found).__name__) == kind
        assert found is None or text.strip() not in str(found), "what a device says is for the log, not for clients"


def test_the_corpus_has_every_class() -> None:
    kinds = [path.read_text().splitlines()[0].removeprefix("class: ") for path in CORPUS]
    assert {kind: kinds.count(kind) >= 5 for kind in ("OutOfDeviceMemory", "DeviceLost", "TransientFailure", "None")} == {
        "OutOfDeviceMemory": True, "DeviceLost": True, "TransientFailure": True, "None": True,
    }  # fmt: skip


def test_python_s_own_out_of_memory() -> None:
    assert type(classify(MemoryError())).__name__ == "OutOfDeviceMemory"
    assert classify(ValueError("something else")) is None
