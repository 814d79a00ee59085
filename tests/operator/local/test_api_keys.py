"""A Secret of API keys on this host: there or refused, and readable by its owner alone."""

import asyncio
import sys
from pathlib import Path

import pytest

from yolastic_contract.inference import InferenceSpec
from yolastic_contract.runtime import RuntimeSpec
from yolastic_operator.act.workload import build
from yolastic_operator.cluster.base import RefusedError
from yolastic_operator.cluster.local import LocalCluster
from yolastic_operator.model import Ref, Workload

REF = Ref("default", "shapes")
TINY = str(Path(__file__).parent / "tiny_worker.py")
LINES = f"camera-1:{'0a' * 32}\n"


def workload(secret: str) -> Workload:
    model = {"uri": "file:///models/m.onnx", "sha256": "0" * 64}
    return build(
        REF, InferenceSpec.model_validate({"model": model, "apiKeysSecretName": secret}), "cpu", RuntimeSpec(image="none")
    )


def test_a_secret_that_is_not_there_is_refused_and_one_that_is_goes_to_a_file_of_its_own() -> None:
    async def scenario() -> None:
        cluster = LocalCluster(port=0, worker_command=(sys.executable, TINY), api_keys={"clients": LINES})
        async with asyncio.timeout(30), cluster:
            with pytest.raises(RefusedError, match="there is no Secret others here") as refusal:
                await cluster.ensure(workload("others"), 0)
            assert refusal.value.reason == "SecretNotFound"
            await cluster.ensure(workload("clients"), 0)
            (file,) = cluster._folder.glob("*.keys")
            assert (file.read_text(), file.stat().st_mode & 0o777) == (LINES, 0o600)

    asyncio.run(scenario())
