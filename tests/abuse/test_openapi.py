"""The OpenAPI document is true: schemathesis holds a real worker against it, on every operation."""

from collections.abc import Callable
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from benchmarks import hostile
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

EXAMPLES = 60
OPERATIONS = [("/predict", "POST"), ("/info", "GET"), ("/openapi.json", "GET")]
CHECKS = (
    schemathesis.checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
    checks.response_headers_conformance, checks.response_schema_conformance, checks.negative_data_rejection,
    checks.unsupported_method,
)  # fmt: skip


@pytest.fixture(scope="module")
def schema(worker: Any) -> Any:
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{worker.port}/openapi.json")


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [(*operation, GenerationMode.POSITIVE) for operation in OPERATIONS] + [("/predict", "POST", GenerationMode.NEGATIVE)],
)
def test_a_worker_does_what_its_document_says(schema: Any, path: str, method: str, mode: GenerationMode) -> None:
    cases = schema[path][method].as_strategy(generation_mode=mode)

    @seed(7)
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(case=cases)
    def holds(case: Any) -> None:
        case.call_and_validate(checks=list(CHECKS))

    holds()


def test_documented_answers_of_good_requests(worker: Any, schema: Any, picture: bytes) -> None:
    """Every good request: validated as strictly as schemathesis does, which rarely makes an image by itself."""
    operation = schema["/predict"]["POST"]
    form = hostile.form(("file", picture), ("conf", b"0.3"), ("normalize", b"true"))
    for body, kind, query in (
        (picture, "image/jpeg", ""), (picture, "image/png", "?decimals=2&normalize=yes"), (picture, "image/webp", "?iou=.5"),
        (form, "multipart/form-data; boundary=frontier", ""),
    ):  # fmt: skip
        answer = worker.predict(body, query, kind)
        assert answer.status == 200, answer.body
        definition = schema.raw_schema["components"]["schemas"]["Prediction"]
        jsonschema_rs.validate(definition, answer.json())
    assert operation.definition.raw["responses"].keys() >= {
        "200",
        "400",
        "408",
        "413",
        "415",
        "422",
        "429",
        "500",
        "503",
        "504",
        "507",
    }


def test_info_is_as_documented(worker: Any, schema: Any) -> None:
    import http.client
    import json

    connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=10)
    connection.request("GET", "/info")
    value = json.loads(connection.getresponse().read())
    connection.close()
    jsonschema_rs.validate(schema.raw_schema["components"]["schemas"]["Info"], value)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_other_methods_are_told_which_are_allowed(worker: Any, answered: Callable[..., Any], path: str, method: str) -> None:
    for other in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - {method}:
        _, received, _ = answered(worker.port, f"{other} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert received.startswith(b"HTTP/1.1 405 "), (other, received)
        assert f"allow: {method}".encode() in received
