"""`yolastic explain` of a `yolastic up` on this host: found, told, and a sentence when there is nothing."""

import asyncio
import io
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from yolastic_cli import running
from yolastic_cli.__main__ import main
from yolastic_operator.model import Ref

STATUS: dict[str, Any] = {
    "readyReplicas": 2,
    "desiredReplicas": 3,
    "batch": {"ceiling": 16},
    "autoscaling": {
        "recommendedReplicas": 3,
        "explainedTime": "2026-11-22T10:00:00Z",
        "explanation": [
            {"about": "Load", "text": "load ratio 1.20 over 2 workers, target 0.80: 3 workers"},
            {"about": "Written", "text": "3 workers ordered, 2 before"},
        ],
        "decisions": [
            {
                "time": "2026-11-22T09:59:00Z",
                "from": 2,
                "to": 3,
                "reason": "LoadAboveTarget",
                "message": "load ratio 1.20",
                "advice": True,
            },
            {
                "time": "2026-11-22T09:58:00Z",
                "from": 2,
                "to": 2,
                "batchTo": 16,
                "reason": "LimitedByMemory",
                "message": "ceiling 16",
            },
        ],
    },
    "conditions": [
        {"type": "ScalingActive", "status": "True", "reason": "ValidMetrics", "lastTransitionTime": "2026-11-22T09:58:00Z"}
    ],
}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    # No cluster by chance.
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    yield
    assert not list(tmp_path.glob("yolastic/*.sock"))


def beside(status: dict[str, Any], *arguments: str, name: str = "weld") -> int:
    """Exit code of a command beside a `yolastic up` of this name with this status."""

    async def run() -> int:
        async with running.answering(Ref("plant", name), "http://127.0.0.1:1", lambda: status) as silent:
            assert silent is None
            return await asyncio.to_thread(main, arguments)

    return asyncio.run(run())


def test_the_whole_sum_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert beside(STATUS, "explain", "weld") == 0
    told = capsys.readouterr().out
    assert told.startswith(f"plant/weld, by `yolastic up` on this host, process {os.getpid()}, http://127.0.0.1:1\n")
    assert "2 of 3 wanted workers ready, batches of up to 16 images\nas of 2026-11-22T10:00:00Z, " in told
    assert "Load       load ratio 1.20 over 2 workers, target 0.80: 3 workers\n" in told
    assert "Written    3 workers ordered, 2 before\n" in told
    assert "ScalingActive=True (ValidMetrics)\n" in told
    assert "2026-11-22T09:59:00Z  advice: 2 -> 3 workers: LoadAboveTarget: load ratio 1.20\n" in told
    assert "2026-11-22T09:58:00Z  ceiling none -> 16 images: LimitedByMemory: ceiling 16\n" in told


@pytest.mark.parametrize(
    ("ready", "wanted", "told"),
    [
        (
            {"status": "False", "reason": "FailedCreate", "message": "0 of 3; exceeded quota: q"},
            3,
            "Ready=False (FailedCreate): 0 of 3",
        ),
        (
            {"status": "True", "reason": "WorkersReady", "message": "2 of 3; exceeded quota: q"},
            3,
            "Ready=True (WorkersReady): 2 of 3",
        ),
        ({"status": "True", "reason": "WorkersReady", "message": "2 of 2 workers ready"}, 2, None),
    ],
)
def test_why_workers_are_missing_is_told_beside_the_sum(
    ready: dict[str, str], wanted: int, told: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    condition = {"type": "Ready", "lastTransitionTime": "2026-11-22T09:58:00Z", **ready}
    assert beside({**STATUS, "desiredReplicas": wanted, "conditions": [condition]}, "explain", "weld") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("Ready=")] == ([] if told is None else [f"{told}; exceeded quota: q"])


def test_the_same_as_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert beside(STATUS, "explain", "weld", "-n", "plant", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["explanation"] == STATUS["autoscaling"]["explanation"]
    assert told["decisions"] == STATUS["autoscaling"]["decisions"]
    assert (told["namespace"], told["name"], told["readyReplicas"], told["recommendedReplicas"]) == ("plant", "weld", 2, 3)
    assert told["batch"]["ceiling"] == 16
    assert told["ageSeconds"] >= 0


def test_on_a_terminal_lines_are_as_wide_as_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    long = {"about": "Ceiling", "text": "word " * 40}
    assert beside({**STATUS, "autoscaling": {**STATUS["autoscaling"], "explanation": [long]}}, "explain", "weld") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "word" in line]
    assert len(lines) > 3
    assert max(map(len, lines)) <= 60
    assert all(line.startswith(" " * 11) for line in lines[1:])


def test_what_others_say_is_not_obeyed_by_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    told = {"about": "Room", "text": "node \x1b]0;owned\x07 is full\u2026"}
    assert beside({**STATUS, "autoscaling": {**STATUS["autoscaling"], "explanation": [told]}}, "explain", "weld") == 0
    assert "node ?]0;owned? is full\u2026" in capsys.readouterr().out


def test_where_a_character_cannot_be_shown_a_question_mark_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"about": "Room", "text": "it is full\u2026"}
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert beside({**STATUS, "autoscaling": {**STATUS["autoscaling"], "explanation": [told]}}, "explain", "weld") == 0
    assert b"it is full?\n" in written.getvalue()


REFUSED = {
    "conditions": [
        {
            "type": "Ready",
            "status": "False",
            "reason": "RuntimeNotFound",
            "message": "there is no YoloRuntime tpu",
            "lastTransitionTime": "",
        }
    ]
}


@pytest.mark.parametrize(
    ("status", "arguments", "sentence"),
    [
        ({}, ["weld"], "nothing is decided for plant/weld, so there is nothing to explain: no operator has looked at it"),
        (REFUSED, ["weld"], "there is nothing to explain: RuntimeNotFound: there is no YoloRuntime tpu"),
        (STATUS, ["line"], "no `yolastic up` on this host runs line, and the cluster cannot be asked: no service account"),
        (STATUS, ["line", "--local"], "no `yolastic up` on this host runs line"),
        (STATUS, ["weld", "-n", "other", "--local"], "no `yolastic up` on this host runs other/weld"),
        (STATUS, ["weld", "--kubeconfig", "/nowhere"], "/nowhere: there is no such file"),
        (STATUS, ["weld", "--local", "--kubeconfig", "x"], "not allowed with"),
        (STATUS, ["../weld"], "'../weld' is no name that a YoloInference can have"),
        (STATUS, ["weld?x=1"], "'weld?x=1' is no name that a YoloInference can have"),
        (STATUS, ["weld", "-n", "../../nodes"], "'../../nodes' is no name that a namespace can have"),
    ],
)
def test_nothing_to_explain_is_one_sentence(
    status: dict[str, Any], arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert beside(status, "explain", *arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("yolastic: ")
    assert sentence in told.err
    assert told.err.count("\n") == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"a: [1,\nb: }", b"- 1\n- 2\n", b"text", b"\xff\x00", b"clusters: 3\ncontexts: []\n",
     b"current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\n"
     b"clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1', certificate-authority-data: '!!!'}}]\n"],
)  # fmt: skip
def test_a_kubeconfig_that_is_none_is_one_sentence(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "config.yaml"
    broken.write_bytes(content)
    for arguments in ([], ["--kubeconfig", str(broken)]):
        monkeypatch.setenv("KUBECONFIG", str(broken))
        assert beside(STATUS, "explain", "line", *arguments) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith("yolastic: ")
        assert "usable kubeconfig" in told.err
        assert told.err.count("\n") == 1


def test_one_that_was_killed_is_not_found_and_cleared_away(tmp_path: Path) -> None:
    folder = tmp_path / "yolastic"
    folder.mkdir(0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "1.sock"))
    assert running.find("weld") == []
    assert list(folder.iterdir()) == []


def test_a_folder_that_others_can_write_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "yolastic").mkdir()
    (tmp_path / "yolastic").chmod(0o777)

    async def serve() -> str | None:
        async with running.answering(Ref("plant", "weld"), "http://127.0.0.1:1", dict) as silent:
            return silent

    assert "not a folder of this user alone" in (asyncio.run(serve()) or "")
    assert running.find("weld") == []
