"""What is committed is what the contract says."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "tools/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = path
    return module


def test_nothing_has_drifted(generate: ModuleType) -> None:
    assert generate.drifted() == [], "run `make generate`"


def test_the_same_every_time(generate: ModuleType) -> None:
    assert generate.outputs() == generate.outputs()


def test_check_names_what_differs_and_writes_nothing(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["generate.py"])
    assert generate.main(tmp_path) == 0
    edited, gone = tmp_path / "crds/yoloruntimes.yaml", tmp_path / "docs/reference.md"
    edited.write_text(edited.read_text("utf-8").replace("minLength: 1", "minLength: 0"), "utf-8")
    gone.unlink()
    capsys.readouterr()

    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    assert generate.main(tmp_path) == 1
    told = capsys.readouterr().err
    assert "crds/yoloruntimes.yaml" in told
    assert "docs/reference.md" in told
    assert "yoloinferences" not in told
    assert not gone.exists()

    monkeypatch.setattr(sys, "argv", ["generate.py"])
    assert generate.main(tmp_path) == 0
    assert generate.drifted(tmp_path) == []


def test_crd_files_hold_what_the_models_say(generate: ModuleType) -> None:
    for plural, build in generate.CRDS.items():
        text = (ROOT / f"crds/{plural}.yaml").read_text("utf-8")
        assert yaml.safe_load(text) == build()
        assert "&id" not in text, "no anchors: people read this"
