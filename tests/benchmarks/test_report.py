"""The tables are made again and again in the same place."""

import json
import math
import re
from pathlib import Path

import pytest
from benchmarks import report
from benchmarks.common import Row
from benchmarks.side_by_side import FIGURES, Comparison

_ROWS = [Row("a figure", ">= 1", "2", True, "quietly"), Row("another", "<= 1", "2", False, "loudly")]


@pytest.fixture
def comparison() -> Comparison:
    made = Comparison(4.0, 1)
    made.add("Yolastic", "default", dict.fromkeys(FIGURES, 1.0))
    made.add("Mosec", "default", {"open": math.inf, "share": 0.5})
    made.failures["LitServe"] = "default: does not answer"
    return made


def test_results_are_replaced_between_their_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comparison: Comparison
) -> None:
    results = tmp_path / "benchmarks/RESULTS.md"
    results.parent.mkdir()
    results.write_text("before\n<!-- measured -->\nold\n<!-- /measured -->\nafter\n")
    monkeypatch.setattr(report, "ROOT", tmp_path)
    report.write_results(_ROWS, comparison, "the plant")
    once = results.read_text()
    report.write_results(_ROWS, comparison, "the plant")
    assert results.read_text() == once
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert "\nold\n" not in once
    assert "| another | <= 1 | 2 | **no** | loudly |" in once
    assert re.search(r"\| LitServe [\d.]+ \| not measured in full: default: does not answer \|", once), "never silently left out"
    assert "not all answered" in once
    assert "the plant" in once


def test_all_values_are_kept_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comparison: Comparison) -> None:
    monkeypatch.setattr(report, "ROOT", tmp_path)
    path = report.keep(_ROWS, comparison)
    found = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert found["side_by_side"]["Mosec"]["default"] == {"open": [None], "share": [0.5]}
    assert [row[3] for row in found["rows"]] == [True, False]
