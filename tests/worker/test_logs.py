"""Log lines: fields in both kinds, and a tap that abuse cannot open further."""

import json
import logging
import sys

from yolastic_worker.logs import JsonFormatter, Tap, TextFormatter


def _record(**fields: object) -> logging.LogRecord:
    record = logging.LogRecord("yolastic", logging.INFO, "", 1, "a request was %s", ("refused",), None)
    if fields:
        record.fields = fields
    return record


def test_json() -> None:
    line = json.loads(JsonFormatter().format(_record(id="a-1", status=400)))
    assert line.pop("time")
    assert line == {"level": "info", "logger": "yolastic", "message": "a request was refused", "id": "a-1", "status": 400}
    assert set(json.loads(JsonFormatter().format(_record()))) == {"time", "level", "logger", "message"}


def test_json_with_an_exception_is_one_line() -> None:
    record = _record(id="a-1")
    try:
        raise ValueError("no\nluck")
    except ValueError:
        record.exc_info = sys.exc_info()
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert "ValueError" in json.loads(line)["exception"]


def test_text() -> None:
    assert TextFormatter().format(_record(id="a-1", status=400)).endswith("a request was refused id=a-1 status=400")


def test_the_tap_lets_a_burst_through_then_one_a_second_and_counts_the_rest() -> None:
    tap = Tap()
    passed = [tap.open("x", 0.0) for _ in range(100)]
    assert passed == [0] * 5 + [None] * 95
    assert tap.open("x", 1.0) == 95
    assert tap.open("x", 1.5) is None
    assert tap.open("y", 1.5) == 0
    assert tap.open("x", 2.5) == 1
    assert [tap.open("x", 1000.0) for _ in range(6)] == [0] * 5 + [None]
