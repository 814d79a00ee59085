"""Metadata are data: what Ultralytics writes is understood, what others write does no harm."""

import pytest

from yolastic_worker.engine.metadata import Metadata, choose_size, choose_task, parse_metadata
from yolastic_worker.types import WorkerFailure


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Metadata(None, (), None, None)),
        (
            {"task": "detect", "names": "{0: 'a', 1: 'b'}", "imgsz": "[640, 480]", "stride": "32"},
            Metadata("Detect", ("a", "b"), 640, 480),
        ),
        ({"names": "['a', 'b']", "imgsz": "320"}, Metadata(None, ("a", "b"), 320, 320)),
        ({"names": "{1: 'a', 0: 'b'}"}, Metadata(None, ("b", "a"), None, None)),
        ({"names": "{0: 'a', 2: 'b'}"}, Metadata(None, (), None, None)),
        ({"names": "__import__('os').system('true')", "imgsz": "open('x')"}, Metadata(None, (), None, None)),
        ({"names": "{0: 'a'", "imgsz": "[640]"}, Metadata(None, (), None, None)),
        ({"imgsz": "[-1, 'x']"}, Metadata(None, (), None, None)),
        ({"imgsz": "(" * 5000}, Metadata(None, (), None, None)),
        ({"task": "obb"}, Metadata("OrientedDetect", (), None, None)),
        ({"task": "sing"}, Metadata("sing", (), None, None)),
    ],
)
def test_parse(values: dict[str, str], expected: Metadata) -> None:
    assert parse_metadata(values) == expected


FREE = ("batch", 3, "height", "width")


@pytest.mark.parametrize(
    ("shape", "meta", "asked", "expected"),
    [
        (FREE, (None, None), None, (640, 640)),
        (FREE, (480, 640), None, (480, 640)),
        (FREE, (480, 640), (320, 352), (320, 352)),
        (("batch", 3, 320, 640), (None, None), None, (320, 640)),
        (("batch", 3, 320, 640), (640, 640), None, (320, 640)),
        (("batch", 3, 320, 640), (None, None), (320, 640), (320, 640)),
        (("batch", 3, 320, 640), (None, None), (640, 640), None),
        (FREE, (500, 640), None, None),
    ],
)
def test_size(
    shape: tuple[int | str, ...],
    meta: tuple[int | None, int | None],
    asked: tuple[int, int] | None,
    expected: tuple[int, int] | None,
) -> None:
    metadata = Metadata("Detect", (), *meta)
    if expected is None:
        with pytest.raises(WorkerFailure) as failure:
            choose_size(metadata, shape, asked)
        assert failure.value.reason == "BadConfiguration"
    else:
        assert choose_size(metadata, shape, asked) == expected


def test_task() -> None:
    assert choose_task(Metadata(None, (), None, None), None) == "Detect"
    assert choose_task(Metadata("Detect", (), None, None), "Detect") == "Detect"
    for task in ("Segment", "sing"):
        with pytest.raises(WorkerFailure) as failure:
            choose_task(Metadata(task, (), None, None), "Detect")
        assert failure.value.reason == "UnsupportedModel"
