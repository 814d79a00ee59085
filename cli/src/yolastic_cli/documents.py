"""Reads the YAML that `yolastic up` is given: one YoloInference, and the YoloRuntimes and Secrets it may name."""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import quote, unquote

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from yolastic_cli.errors import CliError
from yolastic_contract.base import DnsName
from yolastic_contract.inference import InferenceSpec
from yolastic_contract.names import (
    API_KEYS_KEY,
    API_VERSION,
    INFERENCE_KIND,
    INFERENCE_NAME_PATTERN,
    MAX_INFERENCE_NAME_LENGTH,
    RUNTIME_KIND,
)
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.cluster.local import BUILT_IN_RUNTIMES
from yolastic_operator.model import Ref
from yolastic_operator.refusal import describe

_Model = TypeVar("_Model", bound=BaseModel)

MAX_FILE_BYTES: Final = 1 << 20
_SECRET_KIND: Final = "Secret"
_LOCAL_IMAGE: Final = "none"
"""Stands for the image of a runtime, which a process of this host does not need."""


@dataclass(frozen=True, slots=True)
class LocalInference:
    """An inference to run on this host."""

    ref: Ref
    spec: InferenceSpec
    runtimes: Mapping[str, RuntimeSpec]
    """Those of the file, beside the built-in ones."""
    model: Path
    api_keys: Mapping[str, str]
    """By the name of their Secret, the lines of API keys."""


class _Metadata(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: DnsName
    namespace: DnsName = "default"


class _InferenceMetadata(_Metadata):
    """As the API server wants it, so that what runs here is not refused there."""

    name: Annotated[str, Field(pattern=INFERENCE_NAME_PATTERN, max_length=MAX_INFERENCE_NAME_LENGTH)]


def load(path: Path) -> LocalInference:
    """The inference of a file; a relative `file://models/x.onnx` is looked up beside the file.

    Raises:
        CliError: the file, a document or a field is not what it must be; the sentence names it.
    """
    inferences: list[tuple[_Metadata, Mapping[str, Any]]] = []
    runtimes: dict[str, RuntimeSpec] = {}
    api_keys: dict[str, str] = {}
    for where, document in _documents(path):
        kind, metadata, fields = _parts(where, document)
        if kind == INFERENCE_KIND:
            inferences.append((metadata, fields))
        elif kind == _SECRET_KIND:
            api_keys[metadata.name] = _api_keys(where, fields)
        else:
            runtimes[metadata.name] = _validated(where, RuntimeSpec, {"image": _LOCAL_IMAGE, **fields})
    if len(inferences) != 1:
        raise CliError(f"{path}: must hold exactly one {INFERENCE_KIND}, not {len(inferences)}")
    metadata, raw = inferences[0]
    spec = _validated(str(path), InferenceSpec, _with_absolute_uri(raw, path))
    known = {**BUILT_IN_RUNTIMES, **runtimes}
    if spec.runtime not in known:
        raise CliError(
            f"{path}: spec.runtime: there is no runtime {spec.runtime} here, only {', '.join(sorted(known))}; "
            f"add a {RUNTIME_KIND} of that name to the file"
        )
    secret = spec.api_keys_secret_name
    if secret is not None and secret not in api_keys:
        raise CliError(f"{path}: spec.apiKeysSecretName: the file has no Secret {secret}; add one with stringData.{API_KEYS_KEY}")
    ref = Ref(metadata.namespace, metadata.name)
    return LocalInference(ref, spec, runtimes, _model_file(path, spec.model.uri), api_keys)


def _documents(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CliError(f"{path}: is larger than {MAX_FILE_BYTES} bytes")
        text = path.read_text("utf-8")
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except FileNotFoundError as error:
        raise CliError(f"{path}: there is no such file") from error
    except UnicodeDecodeError as error:
        raise CliError(f"{path}: is not UTF-8 text") from error
    except OSError as error:
        raise CliError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CliError(f"{path}: is not YAML: {_yaml_problem(error)}") from error
    for number, document in enumerate(documents, 1):
        yield (f"{path}: document {number}" if len(documents) > 1 else str(path)), document


def _yaml_problem(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    told = str(problem or error).split("\n", 1)[0] or "too deep"
    return told if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: {told}"


def _parts(where: str, document: Any) -> tuple[str, _Metadata, Mapping[str, Any]]:
    if not isinstance(document, dict):
        raise CliError(f"{where}: must be a mapping with apiVersion, kind, metadata and spec")
    kind = document.get("kind")
    if kind == _SECRET_KIND and document.get("apiVersion") == "v1":
        return kind, _validated(where, _Metadata, document.get("metadata"), root="metadata"), document
    if document.get("apiVersion") != API_VERSION:
        raise CliError(f"{where}: apiVersion: must be {API_VERSION}, not {document.get('apiVersion')}")
    if kind not in {INFERENCE_KIND, RUNTIME_KIND}:
        raise CliError(f"{where}: kind: must be {INFERENCE_KIND} or {RUNTIME_KIND}, not {kind}")
    metadata = _validated(
        where, _InferenceMetadata if kind == INFERENCE_KIND else _Metadata, document.get("metadata"), root="metadata"
    )
    spec = document.get("spec")
    if not isinstance(spec, dict):
        raise CliError(f"{where}: spec: must be a mapping")
    return kind, metadata, spec


def _api_keys(where: str, secret: Mapping[str, Any]) -> str:
    """The lines of API keys in a Secret, written as text or, as the cluster does, in base64."""
    text, encoded = (_mapping(secret, field).get(API_KEYS_KEY) for field in ("stringData", "data"))
    try:
        lines = text if text is not None else base64.b64decode(encoded or "", validate=True).decode("utf-8")
    except (ValueError, TypeError) as error:
        raise CliError(f"{where}: data.{API_KEYS_KEY}: is not text in base64") from error
    if not isinstance(lines, str) or not lines.strip():
        raise CliError(f"{where}: stringData.{API_KEYS_KEY}: must hold the lines that `yolastic-worker hash-key` makes")
    return lines


def _mapping(document: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = document.get(field)
    return value if isinstance(value, dict) else {}


def _validated(where: str, model: type[_Model], data: Any, root: str = "spec") -> _Model:
    """As the API server takes it: no text for a number, and a field that is null is not there."""
    try:
        return model.model_validate_json(json.dumps(_without_nulls(data), default=str), strict=True)
    except ValidationError as error:
        raise CliError(f"{where}: {describe(error, root)}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise CliError(f"{where}: {root}: cannot be written as JSON") from error


def _without_nulls(value: Any) -> Any:
    match value:
        case dict():
            return {name: _without_nulls(item) for name, item in value.items() if item is not None}
        case list():
            return [_without_nulls(item) for item in value]
        case _:
            return value


def _with_absolute_uri(spec: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """On this host a model may be named relative to the file that names it; the contract knows absolute paths alone."""
    model = spec.get("model")
    uri = model.get("uri") if isinstance(model, dict) else None
    if not isinstance(uri, str) or not isinstance(model, dict):
        return spec
    scheme, separator, rest = uri.partition("://")
    if scheme != "file" or not separator or rest.startswith("/") or not rest:
        return spec
    absolute = (path.parent / unquote(rest)).resolve()
    return {**spec, "model": {**model, "uri": f"file://{quote(str(absolute))}"}}


def _model_file(path: Path, uri: str) -> Path:
    scheme, _, rest = uri.partition("://")
    if scheme != "file":
        raise CliError(f"{path}: spec.model.uri: on this host it must be a file:// URI, not {uri}")
    file = Path(unquote(rest))
    if not file.is_file():
        raise CliError(f"{path}: spec.model.uri: there is no file {file}")
    return file
