"""The data port: `/predict`, `/info` and `/openapi.json`."""

from typing import Protocol

from yolastic_worker import __version__
from yolastic_worker.api.http import Application, Refusal, Reply, Request, json_reply
from yolastic_worker.api.keys import Gate
from yolastic_worker.api.openapi import document
from yolastic_worker.api.predict import Predict, PredictSettings
from yolastic_worker.api.remote import Remote
from yolastic_worker.decode import DecodePool
from yolastic_worker.lifecycle import Lifecycle
from yolastic_worker.metrics import WorkerMetrics
from yolastic_worker.pipeline import Pipeline
from yolastic_worker.settings import ServeSettings

_STARTING_RETRY_S = 2
_LEAVING_RETRY_S = 1


class Serving(Protocol):
    """What the data port needs of the worker."""

    settings: ServeSettings
    lifecycle: Lifecycle
    metrics: WorkerMetrics
    pipeline: Pipeline | None
    gate: Gate
    remote: Remote


class _Data:
    def __init__(self, worker: Serving, pool: DecodePool) -> None:
        self._worker, self._pool = worker, pool
        self._predict: Predict | None = None
        self._openapi = json_reply(document(worker.settings.limits))

    def _pipeline(self) -> Pipeline:
        """The pipeline of a worker that serves; while it drains it still does."""
        phase, pipeline = self._worker.lifecycle.phase, self._worker.pipeline
        if phase == "Failed" or (pipeline is not None and pipeline.lost is not None):
            raise Refusal(503, "failed", "this worker cannot serve any more", _LEAVING_RETRY_S)
        if phase == "Starting" or pipeline is None:
            raise Refusal(503, "starting", "this worker is not ready yet", _STARTING_RETRY_S)
        return pipeline

    async def predict(self, request: Request) -> Reply:
        """Detections of one image or several."""
        self._worker.gate.enter(request)
        pipeline = self._pipeline()
        if self._predict is None:
            settings, info = self._worker.settings, pipeline.engine.info
            version = {"yolastic": __version__}
            if info.runtime_version:
                name, _, number = info.runtime_version.partition(" ")
                version[name] = number
            self._predict = Predict(
                pipeline,
                PredictSettings(settings.name, version, settings.patience_s, settings.limits),
                self._worker.metrics,
                self._pool,
                self._worker.remote,
            )
        return await self._predict(request)

    async def info(self, request: Request) -> Reply:
        """What is served, by what, within which limits."""
        self._worker.gate.enter(request)
        pipeline, settings = self._pipeline(), self._worker.settings
        info, limits = pipeline.engine.info, settings.limits
        return json_reply({
            "model": {
                "name": settings.name, "sha256": info.sha256, "task": info.task, "names": list(info.names),
                "inputSize": {"width": info.width, "height": info.height}, "precision": info.precision,
            },
            "runtime": {
                "version": __version__, "backend": info.backend, "device": info.device, "runtime": info.runtime_version,
                "simulated": info.simulated,
            },
            "limits": {
                "bodyBytes": limits.body_bytes, "pixels": limits.pixels, "side": limits.side, "aspect": limits.aspect,
                "images": limits.files, "formats": list(limits.formats),
                "batch": pipeline.ceiling()[0].ceiling, "queue": settings.queue_length, "patienceSeconds": settings.patience_s,
            },
        })  # fmt: skip

    async def openapi(self, request: Request) -> Reply:
        """The description of all this."""
        return self._openapi


def data_application(worker: Serving, pool: DecodePool) -> Application:
    """The ASGI application of the data port."""
    data = _Data(worker, pool)
    routes = {"/predict": {"POST": data.predict}, "/info": {"GET": data.info}, "/openapi.json": {"GET": data.openapi}}
    return Application(routes, worker.metrics.answered, limits=worker.settings.limits, log=True)
