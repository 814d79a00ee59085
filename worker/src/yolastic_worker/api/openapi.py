"""`GET /openapi.json`: what the data port takes and answers, from the same limits, statuses and patterns that it runs on."""

from collections.abc import Sequence
from typing import Any, Final

from yolastic_contract.statuses import STATUSES
from yolastic_worker import __version__
from yolastic_worker.api.parameters import MAX_PATIENCE_MS
from yolastic_worker.limits import ImageFormat, Limits

Json = dict[str, Any]

_MEDIA: Final = {
    ImageFormat.JPEG: "image/jpeg",
    ImageFormat.PNG: "image/png",
    ImageFormat.WEBP: "image/webp",
    ImageFormat.BMP: "image/bmp",
}
_ALWAYS: Final = frozenset({400, 500})
"""Statuses any request may get: what is no HTTP, and what nobody foresaw."""
_PREDICT: Final = frozenset(status.code for status in STATUSES if status.port != "control") - {200, 404, 405}
_INFO: Final = frozenset({401, 429, 503})
_FLAGS: Final = ["true", "false", "1", "0", "yes", "no", "on", "off"]


def document(limits: Limits) -> Json:
    """The OpenAPI 3.1 description of a worker with these limits."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Yolastic worker", "version": __version__,
            "description": "Detections of a YOLO model, in the Ultralytics inference dialect. A path answers other methods with "
            "405, and every answer carries X-Request-Id.",
        },
        "paths": {
            "/predict": {"post": _predict(limits)},
            "/info": {"get": _get("info", "What is served, by what, within which limits", _ref("Info"), _INFO)},
            "/openapi.json": {"get": _get("openapi", "This document", {"type": "object"}, frozenset(), secure=False)},
        },
        "components": {
            "schemas": {"Error": _ERROR, "Prediction": _PREDICTION, "Info": _info_schema()},
            "headers": {"RequestId": _REQUEST_ID, "RetryAfter": _RETRY_AFTER},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "where the worker has API keys"}},
        },
    }  # fmt: skip


def _ref(name: str, kind: str = "schemas") -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _get(operation: str, summary: str, schema: Json, statuses: frozenset[int], *, secure: bool = True) -> Json:
    answer = {"operationId": operation, "summary": summary, "responses": _responses(schema, statuses)}
    return answer | ({"security": [{}, {"key": []}]} if secure else {})


def _predict(limits: Limits) -> Json:
    images = {_MEDIA[item]: {"schema": {"type": "string", "contentMediaType": _MEDIA[item]}} for item in limits.formats}
    return {
        "operationId": "predict",
        "summary": "Detections of one image, or of several in their order",
        "description": f"A body of at most {limits.body_bytes} bytes; an image of at most {limits.pixels} pixels, {limits.side} "
        f"a side, {limits.aspect} times as long as wide; {limits.files} images a form. Formats are told by content.",
        "security": [{}, {"key": []}],
        "parameters": [*_query(), *_headers()],
        "requestBody": {"required": False, "content": {**images, "multipart/form-data": {"schema": _form()}}},
        "responses": _responses(_ref("Prediction"), _PREDICT),
    }  # fmt: skip


def _parameters() -> dict[str, Json]:
    """What may be asked, in the query or as fields of a form."""
    return {
        "conf": {"type": "number", "minimum": 0.01, "maximum": 1, "default": 0.25},
        "iou": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.7},
        "imgsz": {"type": "string", "pattern": r"^[0-9]{1,5}(,[0-9]{1,5})?$", "description": "only the size that is served"},
        "normalize": {"type": "string", "enum": _FLAGS, "default": "false"},
        "decimals": {"type": "integer", "minimum": 0, "maximum": 9, "default": 5},
    }


def _query() -> list[Json]:
    source = {"type": "string", "description": "instead of a body: as the part source of a form"}
    return [{"name": name, "in": "query", "schema": schema} for name, schema in {**_parameters(), "source": source}.items()]


def _headers() -> list[Json]:
    patience = {"type": "integer", "minimum": 1, "maximum": MAX_PATIENCE_MS}
    return [
        {"name": "X-Request-Timeout-Ms", "in": "header", "schema": patience, "description": "how long the client waits"},
        {"name": "X-Source", "in": "header", "schema": {"type": "string", "maxLength": 128}, "description": "camera or client"},
        {"name": "X-Request-Id", "in": "header", "schema": {"type": "string"}, "description": "echoed when it is a sane one"},
    ]


def _form() -> Json:
    image = {"type": "string", "contentMediaType": "application/octet-stream"}
    source = {"type": "string", "description": "base64, a data URL, or where it is enabled the https URL of an image"}
    one_of_them = [{"required": ["file"]}, {"required": ["source"]}]
    return {"type": "object", "properties": {"file": image, "source": source, **_parameters()}, "anyOf": one_of_them}


def _responses(schema: Json, statuses: frozenset[int]) -> Json:
    request_id = {"X-Request-Id": _ref("RequestId", "headers")}
    answers: Json = {"200": {"description": "the answer", "headers": request_id, "content": _content(schema)}}
    for status in STATUSES:
        if status.code in statuses | _ALWAYS:
            headers = request_id | ({"Retry-After": _ref("RetryAfter", "headers")} if status.retry_after else {})
            answers[str(status.code)] = {"description": status.when, "headers": headers, "content": _content(_ref("Error"))}
    return answers


def _content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _object(properties: Json, optional: Sequence[str] = ()) -> Json:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _info_schema() -> Json:
    text, count = {"type": "string"}, {"type": "integer", "minimum": 0}
    side = {"type": "integer", "minimum": 1}
    return _object({
        "model": _object({
            "name": text, "sha256": {"type": ["string", "null"]}, "task": text, "names": {"type": "array", "items": text},
            "inputSize": _object({"width": side, "height": side}), "precision": text,
        }),
        "runtime": _object({
            "version": text, "backend": text, "device": text, "runtime": {"type": ["string", "null"]},
            "simulated": {"type": ["string", "null"]},
        }),
        "limits": _object({
            "bodyBytes": count, "pixels": count, "side": count, "aspect": count, "images": count,
            "formats": {"type": "array", "items": {"enum": list(ImageFormat)}}, "batch": count, "queue": count,
            "patienceSeconds": {"type": "number"},
        }),
    })  # fmt: skip


_NUMBER: Final[Json] = {"type": "number"}
_ERROR: Final = _object({"error": _object({"code": {"type": "string"}, "message": {"type": "string"}, "id": {"type": "string"}})})
_REQUEST_ID: Final[Json] = {"schema": {"type": "string", "minLength": 1, "maxLength": 128}, "required": True}
_RETRY_AFTER: Final[Json] = {"schema": {"type": "integer", "minimum": 0}, "description": "seconds"}
_PREDICTION: Final = _object({
    "images": {"type": "array", "minItems": 1, "items": _object({
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 2},
        "results": {"type": "array", "items": _object({
            "name": {"type": "string"}, "class": {"type": "integer", "minimum": 0}, "confidence": _NUMBER,
            "box": _object({"x1": _NUMBER, "y1": _NUMBER, "x2": _NUMBER, "y2": _NUMBER}),
        })},
        "speed": _object({"preprocess": _NUMBER, "inference": _NUMBER, "postprocess": _NUMBER}),
    })},
    "metadata": _object({
        "imageCount": {"type": "integer", "minimum": 1}, "functionTimeCall": _NUMBER, "model": {"type": "string"},
        "version": {"type": "object", "additionalProperties": {"type": "string"}},
    }),
})  # fmt: skip
