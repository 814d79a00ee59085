"""What `yolastic up` reads: good files, and one sentence for each bad one."""

import base64
from pathlib import Path

import pytest
import yaml

from yolastic_cli.documents import load
from yolastic_cli.errors import CliError
from yolastic_contract.inference import InferenceSpec

ROOT = Path(__file__).parents[2]
HEAD = "apiVersion: yolastic.dev/v1alpha1\nkind: YoloInference\nmetadata: {name: shapes}\n"
MODEL = f"  model: {{uri: file://m.onnx, sha256: '{'0' * 64}'}}\n"
GOOD = f"{HEAD}spec:\n{MODEL}"
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: clients}\n"
KEYS = f"camera-1:{'0a' * 32}:50"
RUNTIME = """apiVersion: yolastic.dev/v1alpha1
kind: YoloRuntime
metadata: {name: fast}
spec: {backend: Simulated, simulate: 'fixed_ms=1'}
"""


def write(folder: Path, text: str | bytes) -> Path:
    (folder / "m.onnx").write_bytes(b"not looked at")
    file = folder / "up.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_a_model_is_found_beside_the_file(tmp_path: Path) -> None:
    inference = load(write(tmp_path, GOOD))
    assert str(inference.ref) == "default/shapes"
    assert inference.model == tmp_path / "m.onnx"
    assert inference.spec.model.uri == f"file://{tmp_path}/m.onnx"


@pytest.mark.parametrize("name", ["my model.onnx", "näht.onnx", "a#b?c.onnx", "100%.onnx"])
def test_awkward_names_of_files_are_fine(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    (folder / name).touch()
    spelled = name.replace("%", "%25")
    inference = load(write(folder, GOOD.replace("file://m.onnx", f'"file://./{spelled}"')))
    assert inference.model == folder / name


def test_runtimes_may_stand_in_the_same_file(tmp_path: Path) -> None:
    inference = load(write(tmp_path, f"{RUNTIME}---\n{GOOD}  runtime: fast\n"))
    assert inference.runtimes["fast"].backend == "Simulated"


def test_api_keys_stand_in_a_secret_of_the_same_file(tmp_path: Path) -> None:
    text = f"{SECRET}stringData: {{keys: '{KEYS}'}}\n---\n{GOOD}  apiKeysSecretName: clients\n"
    assert load(write(tmp_path, text)).api_keys == {"clients": KEYS}
    encoded = base64.b64encode(KEYS.encode()).decode()
    text = f"{GOOD}  apiKeysSecretName: clients\n---\n{SECRET}type: Opaque\ndata: {{keys: {encoded}, other: AA==}}\n"
    assert load(write(tmp_path, text)).api_keys == {"clients": KEYS}


def test_a_field_that_is_null_is_not_there_as_for_the_api_server(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    spec = load(write(tmp_path, f"{GOOD}  batching:\n  runtime: null\n  autoscaling: {{maxReplicas: 2, fallback: null}}\n")).spec
    assert (spec.batching.max_size, spec.runtime) == (32, "cpu")
    assert spec.autoscaling is not None
    assert spec.autoscaling.fallback.policy == "Hold"


BAD: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "must hold exactly one YoloInference, not 0"),
    "a list": ("- 1\n- 2\n", "must be a mapping with apiVersion, kind, metadata and spec"),
    "broken YAML": ("a: [1,\nb: }", "is not YAML: line 2, column "),
    "a tag": ("!!python/object/apply:os.system [id]", "is not YAML: line 1, column 1: could not determine a constructor"),
    "not text": (b"\xff\xfe\x00", "is not UTF-8 text"),
    "another group": (GOOD.replace("yolastic.dev/v1alpha1", "apps/v1"), "apiVersion: must be yolastic.dev/v1alpha1, not apps/v1"),
    "another kind": (GOOD.replace("YoloInference", "Deployment"), "kind: must be YoloInference or YoloRuntime, not Deployment"),
    "no spec": (HEAD, "spec: must be a mapping"),
    "no name": (GOOD.replace("{name: shapes}", "{}"), "metadata.name: Field required"),
    "a bad name": (GOOD.replace("{name: shapes}", "{name: Shapes_1}"), "metadata.name: String should match pattern"),
    "a name with a dot": (GOOD.replace("{name: shapes}", "{name: shapes.1}"), "metadata.name: String should match pattern"),
    "a digit first": (GOOD.replace("{name: shapes}", "{name: 1shapes}"), "metadata.name: String should match pattern"),
    "a long name": (GOOD.replace("shapes", "s" * 53), "metadata.name: String should have at most 52 characters"),
    "two of them": (f"{GOOD}---\n{GOOD}", "must hold exactly one YoloInference, not 2"),
    "an unknown field": (f"{GOOD}  modle: 1\n", "spec.modle: Extra inputs are not permitted"),
    "no policy": (
        f"{GOOD}  autoscaling: {{maxReplicas: 2, behavior: {{scaleUp: {{policies: []}}}}}}\n",
        "spec.autoscaling.behavior.scaleUp.policies: List should have at least 1 item",
    ),
    "min above max": (
        f"{GOOD}  autoscaling: {{minReplicas: 4, maxReplicas: 2}}\n",
        "spec.autoscaling: minReplicas must not exceed maxReplicas",
    ),
    "both": (f"{GOOD}  replicas: 1\n  autoscaling: {{maxReplicas: 2}}\n", "set either replicas or autoscaling, not both"),
    "a bad digest": (GOOD.replace("0" * 64, "12"), "spec.model.sha256: String should match pattern"),
    "a huge batch": (
        f"{GOOD}  batching: {{maxSize: 1000}}\n",
        "spec.batching.maxSize: Input should be less than or equal to 256",
    ),
    "no such model": (GOOD.replace("m.onnx", "gone.onnx"), "spec.model.uri: there is no file /"),
    "a folder": (GOOD.replace("file://m.onnx", "file://."), "spec.model.uri: there is no file /"),
    "no such runtime": (f"{GOOD}  runtime: cuda\n", "spec.runtime: there is no runtime cuda here, only cpu; add a YoloRuntime"),
    "a model elsewhere": (
        GOOD.replace("file://m.onnx", "https://example.com/m.onnx"),
        "spec.model.uri: on this host it must be a file:// URI",
    ),
    "a bad runtime": (
        f"{RUNTIME.replace('Simulated', 'Imagined')}---\n{GOOD}",
        "document 1: spec.backend: Input should be 'OnnxRuntime' or 'Simulated'",
    ),
    "keys that are not there": (
        f"{GOOD}  apiKeysSecretName: clients\n",
        "apiKeysSecretName: the file has no Secret clients; add",
    ),
    "a Secret without keys": (f"{SECRET}stringData: {{a: b}}\n---\n{GOOD}", "document 1: stringData.keys: must hold the lines"),
    "keys that are no text": (f"{SECRET}stringData: {{keys: [1]}}\n---\n{GOOD}", "stringData.keys: must hold the lines"),
    "keys that are no base64": (f"{SECRET}data: {{keys: '!'}}\n---\n{GOOD}", "data.keys: is not text in base64"),
    "a Secret that is none": (f"{SECRET}data: [1]\n---\n{GOOD}", "stringData.keys: must hold the lines"),
    "a Secret of another group": (
        f"{SECRET.replace('v1', 'v2')}---\n{GOOD}",
        "apiVersion: must be yolastic.dev/v1alpha1, not v2",
    ),
    "no model at all": (f"{HEAD}spec: {{replicas: 1}}\n", "spec.model: Field required"),
    "a model that is none": (f"{HEAD}spec: {{model: [1]}}\n", "spec.model: Input should be an object"),
    "text for a number": (f"{GOOD}  replicas: '1'\n", "spec.replicas: Input should be a valid integer"),
    "yes for a number": (f"{GOOD}  replicas: true\n", "spec.replicas: Input should be a valid integer"),
    "a key that is a date": (f"{GOOD}  2026-01-01: 1\n", "spec: cannot be written as JSON"),
}


@pytest.mark.parametrize(("text", "sentence"), BAD.values(), ids=BAD)
def test_a_bad_file_is_one_sentence_that_names_the_place(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(CliError) as caught:
        load(file)
    told = str(caught.value)
    assert told.startswith(str(file))
    assert sentence in told
    assert "\n" not in told


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="there is no such file"):
        load(tmp_path / "gone.yaml")
    with pytest.raises(CliError, match="cannot be read: Is a directory"):
        load(tmp_path)
    with pytest.raises(CliError, match="is larger than"):
        load(write(tmp_path, b" " * (1 << 20) + b"x"))


def test_the_examples_are_good() -> None:
    digest = (ROOT / "examples/models/shapes.onnx.sha256").read_text().split()[0]
    assert load(ROOT / "examples/quickstart.yaml").spec.model.sha256 == digest
    document = yaml.safe_load((ROOT / "examples/kubernetes.yaml").read_text())
    assert InferenceSpec.model_validate(document["spec"]).model.sha256 == digest
