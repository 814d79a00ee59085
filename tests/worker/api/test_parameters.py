"""Every parameter's range, and the client's patience."""

import pytest

from yolastic_worker.api.http import Refusal
from yolastic_worker.api.parameters import Parameters, parse_parameters, patience_s
from yolastic_worker.types import Thresholds


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Parameters(Thresholds(0.25, 0.7), False, 5)),
        ({"conf": "0.01", "iou": "1", "normalize": "True", "decimals": "0"}, Parameters(Thresholds(0.01, 1.0), True, 0)),
        ({"conf": "1", "iou": "0", "normalize": "0", "decimals": "9"}, Parameters(Thresholds(1.0, 0.0), False, 9)),
        ({"imgsz": "480,640"}, Parameters(Thresholds(), False, 5)),
        ({"imgsz": "[480, 640]"}, Parameters(Thresholds(), False, 5)),
        ({"something": "else"}, Parameters(Thresholds(), False, 5)),
    ],
)
def test_good(values: dict[str, str], expected: Parameters) -> None:
    assert parse_parameters(values, 480, 640) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("conf", value) for value in ("0", "0.009", "1.01", "2", "-1", "nan", "inf", "high", "")),
        *(("iou", value) for value in ("-0.1", "1.1", "nan", "")),
        *(("normalize", value) for value in ("perhaps", "2")),
        *(("decimals", value) for value in ("-1", "10", "1.5", "")),
        *(("imgsz", value) for value in ("33", "640", "640,480", "480,640,3", "", "big", "480")),
    ],
)
def test_out_of_range(name: str, value: str) -> None:
    with pytest.raises(Refusal) as refusal:
        parse_parameters({name: value}, 480, 640)
    assert (refusal.value.status, refusal.value.code) == (422, "bad_parameter")
    assert name in refusal.value.message


def test_square_size_by_its_side() -> None:
    parse_parameters({"imgsz": "640"}, 640, 640)
    with pytest.raises(Refusal, match="this worker serves imgsz=640"):
        parse_parameters({"imgsz": "33"}, 640, 640)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 10.0),
        ({b"x-request-timeout-ms": b"500"}, 0.5),
        ({b"x-envoy-expected-rq-timeout-ms": b"2000"}, 2.0),
        ({b"x-request-timeout-ms": b"15000", b"x-envoy-expected-rq-timeout-ms": b"14000"}, 14.0),
        ({b"x-request-timeout-ms": b"60000"}, 60.0),
    ],
)
def test_patience(headers: dict[bytes, bytes], expected: float) -> None:
    assert patience_s(headers, 10.0) == expected
