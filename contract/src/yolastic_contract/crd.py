"""Resource models to `apiextensions.k8s.io/v1` CustomResourceDefinitions. Pure: models in, dicts out.

A structural schema is narrower than what pydantic writes: no $ref, no title, no const, no null. What has no counterpart is
refused, never passed on, and so is anything unbounded: an unbounded string or list makes a CEL rule too costly to accept.
"""

from collections.abc import Mapping
from typing import Any, Final

from yolastic_contract import names
from yolastic_contract.base import INT32_MAX, INT64_MAX, Resource, cel
from yolastic_contract.inference import InferenceSpec
from yolastic_contract.inference_status import InferenceStatus
from yolastic_contract.runtime import RuntimeSpec

_ORDER: Final = (
    "description", "type", "format", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "multipleOf", "minItems",
    "maxItems", "minProperties", "maxProperties", "default", "required", "properties", "additionalProperties", "items", "anyOf",
    "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
)  # fmt: skip
_RULES: Final = "x-kubernetes-validations"
_RULE_ORDER: Final = ("rule", "message", "reason", "fieldPath")
_INT_OR_STRING: Final = [{"type": "integer"}, {"type": "string"}]
_PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"

Schema = dict[str, Any]


class UnsupportedSchemaError(ValueError):
    """A model says something that a structural schema cannot; the message starts with the path of the field."""


def structural_schema(model: type[Resource], *, defaults: bool = True) -> Schema:
    """The structural schema of a model.

    Args:
        model: the resource part.
        defaults: False leaves defaults out, as for a status: what nobody has seen yet is absent there, not zero.

    Raises:
        UnsupportedSchemaError: a construct without counterpart, or a string, list or map without a bound.
    """
    source = model.model_json_schema(by_alias=True)
    return _Converter(source.pop("$defs", {}), defaults).convert(source, model.__name__, ())


class _Converter:
    """Converts the nodes of one JSON schema."""

    def __init__(self, definitions: Mapping[str, Schema], defaults: bool) -> None:
        self._definitions = definitions
        self._defaults = defaults

    def convert(self, source: Schema, path: str, within: tuple[str, ...]) -> Schema:
        """One node; `within` are the definitions it is nested in."""
        node, within = self._resolve(source, path, within)
        unknown = sorted(set(node) - set(_ORDER))
        if unknown:
            raise UnsupportedSchemaError(f"{path}: {', '.join(unknown)} has no counterpart in a structural schema")
        if "x-kubernetes-int-or-string" in node:
            if node.get("anyOf") != _INT_OR_STRING or "type" in node:
                raise UnsupportedSchemaError(f"{path}: an int-or-string is anyOf integer, string and nothing else")
        elif node.get("type") == "object":
            self._convert_object(node, path, within)
        elif node.get("type") == "array":
            node["items"] = self.convert(_part(node, "items", path), f"{path}[]", within)
        elif node.get("type") == "integer":
            _set_format(node)
        elif node.get("type") not in {"string", "boolean"}:
            raise UnsupportedSchemaError(f"{path}: type {node.get('type')} has no counterpart in a structural schema")
        _check_bounded(node, path)
        if (rules := node.get(_RULES)) is not None:
            node[_RULES] = [{key: rule[key] for key in _RULE_ORDER if key in rule} for rule in rules]
        self._settle_default(node, path)
        return {key: node[key] for key in _ORDER if key in node}

    def _resolve(self, source: Schema, path: str, within: tuple[str, ...]) -> tuple[Schema, tuple[str, ...]]:
        """Inlines $ref and drops null; what the field says wins over what its type says."""
        node = dict(source)
        while True:
            node.pop("title", None)
            if (reference := node.pop("$ref", None)) is not None:
                name = reference.rpartition("/")[2]
                if name in within:
                    raise UnsupportedSchemaError(f"{path}: {name} contains itself")
                within = (*within, name)
                node = self._definitions[name] | node
            elif "anyOf" in node and "x-kubernetes-int-or-string" not in node:
                options = [option for option in node.pop("anyOf") if option != {"type": "null"}]
                if len(options) != 1:
                    raise UnsupportedSchemaError(f"{path}: a union has no counterpart in a structural schema")
                node = options[0] | node
            elif "const" in node:
                node["enum"] = [node.pop("const")]
            else:
                return node, within

    def _convert_object(self, node: Schema, path: str, within: tuple[str, ...]) -> None:
        extra = node.pop("additionalProperties", False)
        properties = node.pop("properties", {})
        if properties:
            if extra is not False:
                raise UnsupportedSchemaError(f"{path}: an object has either named properties or free ones")
            node["properties"] = {name: self.convert(part, f"{path}.{name}", within) for name, part in properties.items()}
        elif isinstance(extra, dict):
            node["additionalProperties"] = self.convert(extra, f"{path}{{}}", within)
        elif _PRESERVE not in node:
            raise UnsupportedSchemaError(f"{path}: an object without properties must say {_PRESERVE}")

    def _settle_default(self, node: Schema, path: str) -> None:
        """Keeps a default that says something.

        Null and empty mean absent. An object's default is {}: the API server fills it from the defaults inside, which
        therefore must be all that the model's own default holds.
        """
        default = node.pop("default", None)
        if not self._defaults or default is None or default in ([], {}):
            return
        if "properties" in node:
            inside = _filled(node)
            if _without_empty(default) != inside:
                raise UnsupportedSchemaError(f"{path}: its default {default} is not what the defaults inside give, {inside}")
            default = {}
            if not inside:
                return
        node["default"] = default


def _set_format(node: Schema) -> None:
    """The width of an integer. The bounds of an int64 are left out: the API server keeps bounds as floats, which miss them."""
    maximum = node.get("maximum", INT64_MAX)
    node["format"] = "int32" if maximum <= INT32_MAX else "int64"
    if maximum >= INT64_MAX:
        node.pop("maximum", None)


def _part(node: Schema, key: str, path: str) -> Schema:
    part = node.get(key)
    if not isinstance(part, dict):
        raise UnsupportedSchemaError(f"{path}: {key} must be a schema")
    return part


def _check_bounded(node: Schema, path: str) -> None:
    bound = {
        "string": "maxLength" in node or "enum" in node,
        "array": "maxItems" in node,
        "object": "properties" in node or "maxProperties" in node or _PRESERVE in node,
    }.get(node.get("type", "string"), True)
    if not bound:
        raise UnsupportedSchemaError(f"{path}: {node.get('type', 'string')} without an upper bound")


def _filled(node: Schema) -> Schema:
    """What the API server makes of {}: the defaults inside, level by level."""
    return {
        name: _filled(part) if part["default"] == {} else part["default"]
        for name, part in node["properties"].items()
        if "default" in part
    }


def _without_empty(value: Any) -> Any:
    """The value less everything that means absent."""
    if not isinstance(value, dict):
        return value
    kept = {key: _without_empty(part) for key, part in value.items()}
    return {key: part for key, part in kept.items() if part is not None and part not in ([], {})}


def _column(name: str, path: str, kind: str, description: str, *, wide: bool = False) -> Schema:
    column: Schema = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return column | {"priority": 1} if wide else column


_AGE: Final = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
_READY: Final = '.status.conditions[?(@.type=="Ready")]'


def _definition(kind: str, plural: str, *, scope: str, short_name: str, categories: list[str], version: Schema) -> Schema:
    identity = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower(), "shortNames": [short_name]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "names": identity | ({"categories": categories} if categories else {}),
            "scope": scope,
            "versions": [{"name": names.VERSION, "served": True, "storage": True} | version],
        },
    }


def _root(description: str, properties: Schema, rules: list[Schema]) -> Schema:
    """The schema of a whole object."""
    head: Schema = {
        "apiVersion": {"type": "string", "description": "Version of the schema of this object."},
        "kind": {"type": "string", "description": "The kind of this object."},
        "metadata": {"type": "object"},
    }
    if rules:
        head["metadata"]["properties"] = {"name": {"type": "string"}}  # the rules below name it
    root: Schema = {"description": description, "type": "object", "required": ["spec"], "properties": head | properties}
    return {"openAPIV3Schema": root | ({"x-kubernetes-validations": rules} if rules else {})}


def inference_crd() -> Schema:
    """The CustomResourceDefinition of YoloInference."""
    longest = names.MAX_INFERENCE_NAME_LENGTH
    rules = [
        cel(f"self.metadata.name.size() <= {longest}", f"at most {longest} characters", ".metadata.name"),
        cel(
            f"self.metadata.name.size() > {longest} || self.metadata.name.matches('{names.INFERENCE_NAME_PATTERN}')",
            "it becomes the name of a Service: lower-case letters, digits and '-', a letter first",
            ".metadata.name",
        ),
    ]
    properties = {
        "spec": structural_schema(InferenceSpec),
        "status": structural_schema(InferenceStatus, defaults=False),
    }
    version = {
        "schema": _root("A YOLO model served elastically: batches and workers follow the load.", properties, rules),
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": [
            _column("Ready", f"{_READY}.status", "string", "The condition Ready."),
            _column("Replicas", ".status.readyReplicas", "integer", "Workers that serve."),
            _column("Desired", ".status.desiredReplicas", "integer", "Workers wanted."),
            _column("Batch", ".status.batch.ceiling", "integer", "Most images in one batch."),
            _column("VRAM", ".status.memory.predictedPeak", "string", "Memory of one worker at that batch."),
            _column("Reason", f"{_READY}.reason", "string", "Why it is ready, or not."),
            _AGE,
            _column("Limited-By", ".status.batch.limitedBy", "string", "What bounds the batch.", wide=True),
            _column("Model", ".spec.model.uri", "string", "Where the model comes from.", wide=True),
            _column("URL", ".status.url", "string", "Where clients send images.", wide=True),
        ],
    }
    return _definition(
        names.INFERENCE_KIND,
        names.INFERENCE_PLURAL,
        scope="Namespaced",
        short_name="yolo",
        categories=["inference"],
        version=version,
    )


def runtime_crd() -> Schema:
    """The CustomResourceDefinition of YoloRuntime."""
    description = "How workers run: image, backend, device and placement; written by whoever runs the cluster."
    version = {
        "schema": _root(description, {"spec": structural_schema(RuntimeSpec)}, []),
        "additionalPrinterColumns": [
            _column("Backend", ".spec.backend", "string", "What computes."),
            _column("Device", ".spec.device", "string", "On which kind of device."),
            _column("Accelerator", ".spec.acceleratorResource", "string", "The resource a worker asks one of."),
            _AGE,
            _column("Image", ".spec.image", "string", "The worker image.", wide=True),
        ],
    }
    return _definition(
        names.RUNTIME_KIND, names.RUNTIME_PLURAL, scope="Cluster", short_name="yolort", categories=[], version=version
    )
