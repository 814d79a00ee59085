"""The CRDs are structural schemas, bounded, described, and as permissive as the models, no more and no less."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from yolastic_contract import crd
from yolastic_contract.base import Resource
from yolastic_contract.crd import UnsupportedSchemaError, structural_schema
from yolastic_contract.inference import InferenceSpec

CRDS = {"yoloinferences": crd.inference_crd(), "yoloruntimes": crd.runtime_crd()}
# What a v1 structural schema may hold, less what nothing here uses.
ALLOWED = {
    "type", "format", "description", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "multipleOf", "minItems",
    "maxItems", "maxProperties", "default", "required", "properties", "additionalProperties", "items", "anyOf",
    "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
}  # fmt: skip


def version(definition: dict[str, Any]) -> dict[str, Any]:
    (only,) = definition["spec"]["versions"]
    return only  # type: ignore[no-any-return]


def schema(definition: dict[str, Any]) -> dict[str, Any]:
    return version(definition)["schema"]["openAPIV3Schema"]  # type: ignore[no-any-return]


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, part in node.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if key in node:
            yield from nodes(node[key], path + mark)


ALL_NODES = [
    pytest.param(node, path, id=f"{plural}{path}") for plural, one in CRDS.items() for path, node in nodes(schema(one)) if path
]


@pytest.mark.parametrize(("node", "path"), ALL_NODES)
def test_every_node_is_structural_and_bounded(node: dict[str, Any], path: str) -> None:
    assert set(node) <= ALLOWED
    if "x-kubernetes-int-or-string" in node:
        assert "type" not in node
        assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}]
        return
    assert "anyOf" not in node
    match node["type"]:
        case "string":
            # apiVersion, kind and the name are bounded by the API server.
            assert {"maxLength", "enum"} & set(node) or path in {".apiVersion", ".kind", ".metadata.name"}
        case "integer":
            assert node["format"] in {"int32", "int64"}
            assert "minimum" in node
            assert node.get("maximum", 0) <= 2**31 - 1
            assert ("maximum" in node) == (node["format"] == "int32")
        case "array":
            assert "maxItems" in node
        case "object":
            assert {"properties", "maxProperties", "x-kubernetes-preserve-unknown-fields"} & set(node) or path == ".metadata"
        case other:
            assert other == "boolean"
    if "default" in node and "enum" in node:
        assert node["default"] in node["enum"]
    re.compile(node.get("pattern", ""))


@pytest.mark.parametrize(("node", "path"), [case for case in ALL_NODES if not str(case.values[1]).endswith(("[]", "{}"))])
def test_every_field_explains_itself(node: dict[str, Any], path: str) -> None:
    if path.startswith(".metadata"):  # the API server's own words
        return
    assert len(node["description"]) > 5
    assert node["description"].endswith((".", "..."))


def test_patterns_are_of_the_kind_both_sides_read() -> None:
    """Go's RE2 and Rust's regex, which pydantic uses, have no look-around and no backreference."""
    for one in CRDS.values():
        for path, node in nodes(schema(one)):
            assert not re.search(r"\(\?[=!<]|\\[1-9]", node.get("pattern", "")), path


def test_a_status_has_no_defaults() -> None:
    status = schema(CRDS["yoloinferences"])["properties"]["status"]
    assert [path for path, node in nodes(status) if "default" in node] == []


def filled(node: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """Defaults as the API server fills them in."""
    full = dict(value)
    for name, part in node.get("properties", {}).items():
        if name not in full and "default" in part:
            full[name] = part["default"]
        if isinstance(full.get(name), dict):
            full[name] = filled(part, full[name])
    return full


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"autoscaling": {"maxReplicas": 4}},
        {"autoscaling": {"maxReplicas": 4, "fallback": {}}},
        {"batching": {"maxSize": 8}},
        {"replicas": 0},
    ],
)
def test_defaults_of_the_api_server_are_those_of_the_models(extra: dict[str, Any]) -> None:
    body = {"model": {"uri": "https://h/m.onnx", "sha256": "0" * 64}} | extra
    stored = filled(schema(CRDS["yoloinferences"])["properties"]["spec"], body)
    here = InferenceSpec.model_validate(body).model_dump(by_alias=True, exclude_none=True)
    assert stored == here


def test_scale_status_and_columns() -> None:
    inference = version(CRDS["yoloinferences"])
    assert inference["subresources"] == {
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    }
    columns = [(column["name"].upper(), column.get("priority", 0)) for column in inference["additionalPrinterColumns"]]
    shown = [name for name, priority in columns if priority == 0]
    assert shown == ["READY", "REPLICAS", "DESIRED", "BATCH", "VRAM", "REASON", "AGE"]
    assert [name for name, priority in columns if priority == 1] == ["LIMITED-BY", "MODEL", "URL"]


def test_columns_show_fields_that_exist() -> None:
    for one in CRDS.values():
        paths = {path for path, _ in nodes(schema(one))} | {".metadata.creationTimestamp"}
        for column in version(one)["additionalPrinterColumns"]:
            assert re.sub(r"\[\?\(@\.type==\"\w+\"\)\]", "[]", column["jsonPath"]) in paths


def test_rules_name_fields_that_exist_and_carry_a_message() -> None:
    rules = [(path, rule, node) for one in CRDS.values() for path, node in nodes(schema(one)) for rule in _rules(node)]
    assert len(rules) == 11
    for path, rule, node in rules:
        assert rule["message"], path
        inner = node
        for name in rule["fieldPath"].removeprefix(".").split("."):
            inner = inner["properties"][name]


def _rules(node: dict[str, Any]) -> list[dict[str, Any]]:
    return node.get("x-kubernetes-validations", [])  # type: ignore[no-any-return]


def test_conditions_are_a_map_by_type() -> None:
    conditions = schema(CRDS["yoloinferences"])["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert set(conditions["x-kubernetes-list-map-keys"]) <= set(conditions["items"]["required"])


class Inner(Resource):
    """Inner."""

    size: Annotated[int, Field(ge=0, le=9)] = 3


class OtherDefault(Resource):
    """A default that the defaults inside do not give."""

    inner: Inner = Inner(size=4)


class FreeText(Resource):
    """A string without a bound."""

    text: str


class FreeList(Resource):
    """A list without a bound."""

    sizes: list[Annotated[int, Field(ge=0, le=9)]]


class FreeMap(Resource):
    """A map without a bound."""

    sizes: dict[str, bool]


class Number(Resource):
    """A float."""

    ratio: Annotated[float, Field(ge=0, le=1)]


class Either(Resource):
    """A union."""

    value: Annotated[str, Field(max_length=3)] | bool


class Exclusive(Resource):
    """An exclusive bound."""

    size: Annotated[int, Field(gt=0, le=9)]


class Open(Resource):
    """An object of which nothing is known."""

    anything: dict[str, Any]


class Tree(Resource):
    """Contains itself."""

    children: Annotated[list["Tree"], Field(max_length=2)]


@pytest.mark.parametrize(
    ("model", "where"),
    [
        (OtherDefault, "OtherDefault.inner: its default"),
        (FreeText, "FreeText.text: string without an upper bound"),
        (FreeList, "FreeList.sizes: array without an upper bound"),
        (FreeMap, "FreeMap.sizes: object without an upper bound"),
        (Number, "Number.ratio: type number"),
        (Either, "Either.value: a union"),
        (Exclusive, "Exclusive.size: exclusiveMinimum"),
        (Open, "Open.anything: an object without properties"),
        (Tree, "contains itself"),
    ],
)
def test_what_has_no_counterpart_is_refused(model: type[Resource], where: str) -> None:
    with pytest.raises(UnsupportedSchemaError, match=re.escape(where)):
        structural_schema(model)


class Small(Resource):
    """All that a part can hold."""

    kind: Literal["One"] | None = None
    """One value."""
    size: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """A wide number."""
    inner: Inner = Inner()
    names: Annotated[list[Annotated[str, Field(max_length=5)]], Field(max_length=2)] = []  # noqa: RUF012


def test_a_small_model_word_for_word() -> None:
    assert structural_schema(Small) == {
        "description": "All that a part can hold.",
        "type": "object",
        "properties": {
            "kind": {"description": "One value.", "type": "string", "enum": ["One"]},
            "size": {"description": "A wide number.", "type": "integer", "format": "int64", "minimum": 0, "default": 0},
            "inner": {
                "description": "Inner.",
                "type": "object",
                "default": {},
                "properties": {"size": {"type": "integer", "format": "int32", "minimum": 0, "maximum": 9, "default": 3}},
            },
            "names": {"type": "array", "maxItems": 2, "items": {"type": "string", "maxLength": 5}},
        },
    }
