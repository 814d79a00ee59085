"""`yolastic plan`: the table, the JSON, and one sentence for everything that cannot be planned."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from yolastic_cli.__main__ import main
from yolastic_contract.state import CeilingState, Fit, LoadState, MemoryState, ModelState, WorkerState

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples/models/shapes.onnx"
DATA = ROOT / "tests/worker/data"
MIB = 2**20


def planned(capsys, *arguments):
    assert main(["plan", str(MODEL), "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_table_has_every_batch_the_sum_and_how_each_term_is_known(capsys):
    assert main(["plan", str(MODEL), "--memory", "16GiB"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0] == "shapes.onnx: FP32, 320x320 pixels, on cuda"
    assert lines[2].split() == ["batch", "weights", "activations", "I/O", "total"]
    rows = [line.split() for line in lines[3:12]]
    assert [int(row[0]) for row in rows] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    weights, block, io, total = (float(value) for value in rows[5][1::2])
    assert 0 < weights < block < total
    assert total == pytest.approx(500 + 32 + 1.2 * weights + 1.3 * block + io, abs=0.3)
    for term in ("weights", "activations", "io"):
        assert any(line.split()[:2] == [term, "planned"] for line in lines)
    for term in ("process", "loading", "workspace", "growth"):
        assert any(line.split()[:2] == [term, "prior"] for line in lines)
    assert lines[-1].startswith("largest batch within 14746Mi (16384Mi less 10 % headroom): ")


def test_json_says_the_same(capsys):
    report = planned(capsys, "--memory", "2GiB", "--headroom", "0")
    assert report["sha256"] == hashlib.sha256(MODEL.read_bytes()).hexdigest()
    assert report["limitBytes"] == report["budgetBytes"] == 2 * 2**30
    largest, bucket = report["largestBatch"], report["largestBucket"]
    assert bucket <= largest < 2 * bucket
    assert [row["fits"] for row in report["batches"]] == [row["images"] <= largest for row in report["batches"]]
    at = report["fixedBytes"] + largest * report["perImageBytes"]
    assert at <= report["budgetBytes"] < at + 2 * report["perImageBytes"]
    assert report["totalKnown"] == "prior"
    assert {term["known"] for term in report["terms"]} == {"planned", "prior"}


def test_without_a_limit_there_is_no_largest_batch(capsys):
    report = planned(capsys)
    assert "largestBatch" not in report
    assert {row["fits"] for row in report["batches"]} == {None}


@pytest.mark.parametrize(
    ("text", "limit_bytes"),
    [("16GiB", 16 * 2**30), ("16Gi", 16 * 2**30), ("16G", 16 * 10**9), ("16GB", 16 * 10**9), ("800MiB", 800 * MIB),
     ("8e9", 8 * 10**9), ("1073741824", 2**30), ("0.5Gi", 2**29)],
)  # fmt: skip
def test_units_of_memory(capsys, text, limit_bytes):
    assert planned(capsys, "--memory", text)["limitBytes"] == limit_bytes


def test_settings_device_and_precision_change_the_plan(capsys):
    plain = planned(capsys, "--memory", "4Gi")
    half = planned(capsys, "--memory", "4Gi", "--precision", "FP16")
    defaults = planned(capsys, "--memory", "4Gi", "--runtime-defaults")
    host = planned(capsys, "--memory", "4Gi", "--device", "cpu")
    large = planned(capsys, "--memory", "4Gi", "--input-size", "640x640")
    assert half["precision"] == "FP16"
    assert half["largestBatch"] > plain["largestBatch"] > defaults["largestBatch"]
    assert host["device"] == "cpu"
    assert host["fixedBytes"] < plain["fixedBytes"]
    assert large["inputSize"] == {"width": 640, "height": 640}
    assert large["perImageBytes"] == pytest.approx(4 * plain["perImageBytes"], rel=0.05)


def test_not_even_one_image(capsys):
    assert main(["plan", str(MODEL), "--memory", "300MiB"]) == 0
    out = capsys.readouterr().out
    assert "not even one image fits within 270Mi (300Mi less 10 % headroom): it takes 5" in out
    assert out.count("over the budget") == 9


def state(folder, **fields):
    told = {
        "worker_id": "w", "version": "0", "phase": "Ready", "backend": "OnnxRuntime", "device": "cuda", "device_id": "GPU-0",
        "started_s": 0, "max_batch": 32, "buckets": [1, 2],
        "model": ModelState(sha256=hashlib.sha256(MODEL.read_bytes()).hexdigest(), task="Detect", names=["a"], input_width=320,
                            input_height=320, precision="FP32"),
        "memory": MemoryState(fit=Fit(fixed=500 * MIB, per_image=10 * MIB, samples=6)),
        "ceiling": CeilingState(base=1, ceiling=2, effective=1, burst=False, granted=False),
        "load": LoadState(ratio=0, arrived_per_s=0, refused_per_s=0, capacity_per_s=1, queue_images=0, queue_oldest_age_s=0,
                          inflight_images=0, busy_ratio=0),
    } | fields  # fmt: skip
    file = folder / "state.json"
    file.write_text(WorkerState(**told).model_dump_json())
    return str(file)


def test_what_a_worker_measured_replaces_the_priors(capsys, tmp_path):
    report = planned(capsys, "--memory", "1000Mi", "--headroom", "0", "--measured", state(tmp_path))
    assert report["totalKnown"] == "measured"
    assert report["largestBatch"] == 50
    assert report["batches"][2]["totalBytes"] == 540 * MIB
    assert main(["plan", str(MODEL), "--measured", state(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "500.0 MiB + 10.0 MiB an image, measured by a worker" in out
    assert out.count("prior (not used)") == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["README.md"], "README.md cannot be planned: the file is not an ONNX model"),
        (["nowhere.onnx"], "nowhere.onnx cannot be read: No such file or directory"),
        (["tests/worker/data"], "tests/worker/data cannot be read: Is a directory"),
        (
            ["tests/worker/data/fixed.onnx"],
            "fixed.onnx cannot be planned: its batch is fixed at 1; export it with a dynamic",
        ),
        (["tests/worker/data/dynamic.onnx", "--input-size", "128x128"], "the model's input is fixed at 64x64"),
        (["examples/models/shapes.onnx", "--memory", "16Gib"], "16Gib is not an amount of memory such as 16GiB"),
        (["examples/models/shapes.onnx", "--memory", "16GibiB"], "is not an amount of memory"),
        (["examples/models/shapes.onnx", "--memory", "0"], "0 is not an amount of memory"),
        (["examples/models/shapes.onnx", "--memory", "-1Gi"], "argument --memory"),
        (["examples/models/shapes.onnx", "--headroom", "95"], "95 is not a percentage from 0 to 90"),
        (["examples/models/shapes.onnx", "--input-size", "big"], "big is not a size such as 640x640"),
        (["examples/models/shapes.onnx", "--precision", "INT4"], "invalid choice: 'INT4'"),
        (["examples/models/shapes.onnx", "--device", "tpu"], "invalid choice: 'tpu'"),
        (["examples/models/shapes.onnx", "--measured", "README.md"], "README.md is not what a worker answers to GET /state"),
        (["examples/models/shapes.onnx", "--measured", "no.json"], "no.json cannot be read"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(capsys, monkeypatch, arguments, sentence):
    monkeypatch.chdir(ROOT)
    assert main(["plan", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("yolastic: ")
    assert told.err.count("\n") == 1
    assert sentence in told.err


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"memory": MemoryState(plan=Fit(fixed=1, per_image=1))}, "had not measured its memory yet"),
        ({"model": None}, "had not measured its memory yet"),
        (
            {"model": ModelState(sha256="0" * 64, task="Detect", names=[], input_width=1, input_height=1, precision="FP32")},
            "runs another model (000000000000, not ",
        ),
        ({"device": "cpu"}, "says nothing of this plan: it runs on cpu, not cuda"),
    ],
)
def test_a_measurement_of_something_else_is_not_taken(capsys, tmp_path, fields, sentence):
    assert main(["plan", str(MODEL), "--measured", state(tmp_path, **fields)]) == 2
    assert sentence in capsys.readouterr().err


def test_nor_is_one_of_another_size_or_precision(capsys, tmp_path):
    asked = ["plan", str(MODEL), "--measured", state(tmp_path), "--input-size", "640x640", "--precision", "FP16"]
    assert main(asked) == 2
    assert "it runs on 320x320, not 640x640 and FP32, not FP16" in capsys.readouterr().err


def test_a_simulated_measurement_says_so(capsys, tmp_path):
    told = state(tmp_path, device="simulated", backend="Simulated", simulated="20 ms a batch")
    assert main(["plan", str(MODEL), "--measured", told]) == 0
    assert "an image, not of a device: a worker simulates it (20 ms a batch)" in capsys.readouterr().out
    assert main(["plan", str(MODEL), "--measured", told, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["simulated"] == "20 ms a batch"


def test_a_reader_that_has_read_enough_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "yolastic_cli", "plan", str(MODEL), "--json"]
    with os.fdopen(writer, "w") as nobody:
        done = subprocess.run(command, stdout=nobody, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (141, "")
