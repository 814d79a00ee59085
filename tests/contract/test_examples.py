"""Every resource in examples/ is one that is accepted."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from yolastic_contract import names
from yolastic_contract.base import Resource
from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def resources() -> list[Any]:
    found = []
    for path in sorted(EXAMPLES.rglob("*.y*ml")):
        for number, document in enumerate(yaml.safe_load_all(path.read_text("utf-8"))):
            if isinstance(document, dict) and str(document.get("apiVersion", "")).startswith(names.GROUP):
                found.append(pytest.param(document, id=f"{path.relative_to(EXAMPLES)}#{number}"))
    return found


@pytest.mark.parametrize("document", resources())
def test_round_trip(document: dict[str, Any]) -> None:
    assert document["apiVersion"] == names.API_VERSION
    models: dict[str, type[Resource]] = {names.INFERENCE_KIND: InferenceSpec, names.RUNTIME_KIND: RuntimeSpec}
    model, spec = models[document["kind"]], document["spec"]
    assert re.fullmatch(names.INFERENCE_NAME_PATTERN, document["metadata"]["name"])
    if "model" in spec:
        # Local mode looks a relative file up beside the document, before it reads the spec.
        spec = spec | {"model": spec["model"] | {"uri": re.sub(r"^file://(?!/)", "file:///", spec["model"]["uri"])}}
    parsed = model.model_validate(spec)
    written = parsed.model_dump(by_alias=True, exclude_none=True)
    assert model.model_validate(written) == parsed
    # Nothing that the example says is lost on the way.
    assert _within(spec, written)


def _within(part: Any, whole: Any) -> bool:
    if isinstance(part, dict):
        return all(key in whole and _within(value, whole[key]) for key, value in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(_within(one, other) for one, other in zip(part, whole, strict=True))
    return bool(part == whole or str(part) == str(whole))
