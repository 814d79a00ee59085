"""The text of docs/reference.md: resources, metrics and statuses from the contract, requests and limits from the worker.

Pure; tools/generate.py writes it.
"""

import inspect
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel

from yolastic_contract import crd, failure, metrics, state, statuses
from yolastic_contract.base import INT32_MAX
from yolastic_contract.metrics import Metric
from yolastic_worker import limits
from yolastic_worker.api import openapi

Schema = dict[str, Any]


def render(mark: str) -> str:
    """The whole page; `mark` says how it was made."""
    inference, runtime = crd.inference_crd(), crd.runtime_crd()
    parts = [
        f"<!-- {mark} -->\n# Reference\n",
        "Everything here is made from the code: from `contract/`, the words operator and workers share, and from what a worker "
        "says of itself. What to do about a status or a reason is in [troubleshooting.md](troubleshooting.md).\n",
        "## YoloInference\n",
        _resource(inference),
        "### Status\n",
        _fields(_properties(inference)["status"], with_defaults=False),
        "### Columns of `kubectl get yolo`\n",
        _columns(inference),
        "## YoloRuntime\n",
        _resource(runtime),
        "## What a worker is asked\n",
        _requests(),
        "## Limits at the door\n",
        "Flags of `yolastic-worker serve`, each also an environment variable: `YOLASTIC_WORKER_BODY_LIMIT` for `--body-limit`. "
        "All of it is for one worker.\n",
        _limits(),
        "## Metrics of a worker\n",
        "Each carries the label `model` besides those listed. `GET :9000/metrics`; in a pod also `GET :9001/metrics`, and there "
        "nothing else.\n",
        _metrics(metrics.WORKER_METRICS),
        "## Metrics of the operator\n",
        _metrics(metrics.OPERATOR_METRICS),
        "## Answers of a worker\n",
        _statuses(),
        'Every error has the body `{"error": {"code", "message", "id"}}`; the codes are in '
        "[troubleshooting.md](troubleshooting.md#what-a-worker-answers).\n",
        "## How a worker ends\n",
        _endings(),
        "## `GET :9000/state`\n",
        _messages(state.WorkerState),
    ]
    return "\n".join(parts)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(text) for text in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _version(definition: Schema) -> Schema:
    version: Schema = definition["spec"]["versions"][0]
    return version


def _properties(definition: Schema) -> Schema:
    properties: Schema = _version(definition)["schema"]["openAPIV3Schema"]["properties"]
    return properties


def _resource(definition: Schema) -> str:
    root = _version(definition)["schema"]["openAPIV3Schema"]
    names = definition["spec"]["names"]
    head = f"{root['description']} `{definition['spec']['group']}/{_version(definition)['name']}`, short name "
    scope = "in a namespace" if definition["spec"]["scope"] == "Namespaced" else "cluster-wide"
    head += f"`{names['shortNames'][0]}`, {scope}.\n\n### Spec\n\n"
    rules = [f"- `{path}`: {rule['message']}\n" for path, rule in _rules("", root)]
    body = _fields(root["properties"]["spec"], with_defaults=True)
    return head + body + ("\nThe API server refuses what breaks one of these rules:\n\n" + "".join(rules) if rules else "")


def _rules(path: str, node: Schema) -> Iterator[tuple[str, Schema]]:
    for rule in node.get("x-kubernetes-validations", []):
        yield (path + rule.get("fieldPath", "")).removeprefix("."), rule
    for name, part in node.get("properties", {}).items():
        yield from _rules(f"{path}.{name}", part)


def _fields(node: Schema, *, with_defaults: bool) -> str:
    rows = []
    for path, part, required in _walk("", node):
        default = "required" if required else _literal(part.get("default"))
        rows.append([f"`{path}`", _type(part), *([default] if with_defaults else []), part.get("description", "")])
    return _table(["field", "type", *(["default"] if with_defaults else []), ""], rows)


def _walk(path: str, node: Schema) -> Iterator[tuple[str, Schema, bool]]:
    """Every field below a node: (path, schema, required), depth first."""
    for name, part in node.get("properties", {}).items():
        here = f"{path}.{name}".removeprefix(".")
        yield here, part, name in node.get("required", [])
        yield from _walk(here, part)
        yield from _walk(f"{here}[]", part.get("items", {}))


def _literal(value: Any) -> str:
    if value is None or value == {}:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(node: Schema) -> str:
    if "x-kubernetes-int-or-string" in node:
        return "quantity"
    if "enum" in node:
        return " ".join(f"`{value}`" for value in node["enum"])
    kind = node.get("type", "")
    if kind == "integer":
        return _integer(node)
    if node.get("format") == "date-time":
        return "time"
    bound = next((f", at most {node[key]}" for key in ("maxLength", "maxItems", "maxProperties") if key in node), "")
    if "minItems" in node:
        bound = f", {node['minItems']} to {node['maxItems']}"
    if "additionalProperties" in node:
        kind = f"map of {_type(node['additionalProperties']).partition(',')[0]}"
    return f"{'list' if kind == 'array' else kind}{bound}"


def _integer(node: Schema) -> str:
    low, high = node.get("minimum"), node.get("maximum", INT32_MAX)
    bounds = f">= {low}" if high >= INT32_MAX else f"{low}..{high}"
    return f"{node['format']} {bounds}" + (f", multiple of {node['multipleOf']}" if "multipleOf" in node else "")


def _columns(definition: Schema) -> str:
    rows = []
    for column in _version(definition)["additionalPrinterColumns"]:
        name = column["name"].upper() + (" (`-o wide`)" if column.get("priority") else "")
        rows.append([name, f"`{column['jsonPath']}`", column.get("description", "")])
    return _table(["column", "from", ""], rows)


def _metrics(all_metrics: Iterable[Metric]) -> str:
    rows = []
    for metric in all_metrics:
        labels = " ".join(f"`{label}`" for label in metric.labels)
        buckets = f" Buckets: {' '.join(f'{bucket:g}' for bucket in metric.buckets)}." if metric.buckets else ""
        rows.append([f"`{metric.name}`", metric.type, labels, metric.help + buckets])
    return _table(["metric", "type", "labels", ""], rows)


def _requests() -> str:
    """Paths of the data port, and what `POST /predict` takes beside its body."""
    described = openapi.document(limits.DEFAULT_LIMITS)["paths"]
    calls = [(f"{method.upper()} {path}", call) for path, calls in described.items() for method, call in calls.items()]
    text = _table(["request", ""], [[f"`{name}`", call["summary"]] for name, call in calls])
    predict = described["/predict"]["post"]
    images = ", ".join(f"`{kind}`" for kind in predict["requestBody"]["content"])
    rows = [[f"`{one['name']}`", one["in"], *_asked(one["schema"]), _described(one)] for one in predict["parameters"]]
    told = f"`POST /predict` takes {images}; a form has parts `file` or `source`, and the query's parameters as fields."
    return f"{text}\n{told} `GET /openapi.json` describes all of it.\n\n{_table(['name', 'in', 'type', 'default', ''], rows)}"


def _asked(schema: Schema) -> tuple[str, str]:
    """(type, default)."""
    kind = " ".join(f"`{value}`" for value in schema["enum"]) if "enum" in schema else schema["type"]
    bounds = f" {schema['minimum']}..{schema['maximum']}" if "maximum" in schema else ""
    return kind + bounds, _literal(schema.get("default"))


def _described(parameter: Schema) -> str:
    text: str = parameter.get("description", parameter["schema"].get("description", ""))
    return text


def _limits() -> str:
    rows = []
    for name, rule in limits.rules().items():
        value = getattr(limits.DEFAULT_LIMITS, name)
        shown = ",".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
        rows.append([f"`{rule.flag}`", rule.kind, f"`{shown}`", rule.reason])
    return _table(["flag", "unit", "default", ""], rows)


def _statuses() -> str:
    rows = [[str(status.code), status.port, "yes" if status.retry_after else "", status.when] for status in statuses.STATUSES]
    return _table(["status", "port", "Retry-After", "when"], rows)


def _endings() -> str:
    codes = _table(["exit code", ""], [[str(code), meaning] for code, meaning in statuses.EXIT_CODES.items()])
    reasons = ", ".join(f"`{reason}`" for reason in failure.REASONS)
    told = "With the exit codes 2 and 3 the termination message ends with a line `Reason: sentence`; the reasons are"
    return f"{codes}\n{told} {reasons}.\n"


def _messages(top: type[BaseModel]) -> str:
    """A table for a message and one for each message inside it."""
    text = ""
    for model in _nested(top, []):
        rows = [
            [f"`{name}`", _annotation(field.annotation), field.description or ""] for name, field in model.model_fields.items()
        ]
        text += f"**{model.__name__}**: {inspect.getdoc(model)}\n\n{_table(['field', 'type', ''], rows)}\n"
    return text


def _nested(model: type[BaseModel], found: list[type[BaseModel]]) -> list[type[BaseModel]]:
    if model not in found:
        found.append(model)
        for field in model.model_fields.values():
            for part in (field.annotation, *get_args(field.annotation)):
                if isinstance(part, type) and issubclass(part, BaseModel):
                    _nested(part, found)
    return found


def _annotation(annotation: Any) -> str:
    parts = [part for part in get_args(annotation) if part is not type(None)]
    optional = " or null" if len(parts) < len(get_args(annotation)) else ""
    if not parts:
        return str(getattr(annotation, "__name__", annotation))
    if all(isinstance(part, str) for part in parts):
        return " ".join(f"`{part}`" for part in parts)
    inner = ", ".join(_annotation(part) for part in parts)
    return f"{inner}{optional}" if optional else f"{annotation.__name__} of {inner}"
