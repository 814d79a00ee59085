"""`POST /predict`: an image, or several, from the bytes of a request to the JSON of its answer."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from yolastic_worker.admission import Accepted, Refused
from yolastic_worker.api.http import ClientGone, Refusal, Reply, Request, json_reply
from yolastic_worker.api.multipart import parse_form, parse_source
from yolastic_worker.api.parameters import Parameters, parse_parameters, patience_s, tells_patience
from yolastic_worker.api.remote import Remote, Url, Watch
from yolastic_worker.api.ultralytics import render_boxes, render_image, render_response
from yolastic_worker.decode import DecodePool, Header, ImageRefused, decode_as, decodes_quickly, letterbox, read_header
from yolastic_worker.limits import Limits
from yolastic_worker.metrics import WorkerMetrics
from yolastic_worker.pipeline import Pipeline
from yolastic_worker.types import (
    DeviceLost,
    Displaced,
    Geometry,
    Image,
    Outcome,
    OutOfDeviceMemory,
    Quarantined,
    ShapeKey,
    content_digest,
)

_OWN_SHARE_BYTES: Final = 2**20
"""So much of a body always finds room in the last quarter of the memory for bodies: few large ones cannot shut out the rest."""
_FAILED_RETRY_S: Final = 1
_SOURCE_LENGTH: Final = 128
_NO_GEOMETRY: Final = Geometry(0, 0, 1.0, 0, 0)
"""Until an image is decoded."""


@dataclass(frozen=True, slots=True)
class PredictSettings:
    """What does not change while a worker runs."""

    model: str
    """Its name in answers."""
    version: Mapping[str, str]
    patience_s: float
    """Default patience of a client, seconds."""
    limits: Limits


class Pending:
    """One request's images on their way. Lives on the event loop; decode threads only add images."""

    def __init__(
        self, bodies: Sequence[bytes], parameters: Parameters, *, source: str, silent: bool, received_s: float, deadline_s: float
    ) -> None:
        self.bodies = bodies
        """Encoded; none when nobody waits any longer: what is still to be decoded must not hold memory that is not counted."""
        self.parameters, self.source, self.silent = parameters, source, silent
        self.received_s, self.deadline_s = received_s, deadline_s
        """Monotonic."""
        self.images: list[Image | None] = [None] * len(bodies)
        self.done: asyncio.Future[Callable[[], Exception] | None] = asyncio.get_running_loop().create_future()
        """None: all are answered. Else what to raise; the exception itself would, by its traceback, keep all of this alive."""
        self.cancelled = False
        self._left = len(bodies)

    def finish(self, image: Image) -> None:
        """An image is answered."""
        self._left -= 1
        if not self._left and not self.done.done():
            self.done.set_result(None)

    def cancel(self) -> None:
        """The client is gone: what has not begun to run will not."""
        self.cancelled, self.bodies = True, ()
        for image in self.images:
            if image is not None:
                image.cancelled = True
        if not self.done.done():
            self.done.set_result(ClientGone)

    def expire(self) -> None:
        """The deadline passed: unless it is running by now, it never will."""
        if self.done.done() or any(image is not None and image.started_s for image in self.images):
            return
        self.cancelled, self.bodies = True, ()
        self.done.set_result(_too_late)


class Predict:
    """The handler; one a worker."""

    def __init__(
        self, pipeline: Pipeline, settings: PredictSettings, metrics: WorkerMetrics, pool: DecodePool, remote: Remote
    ) -> None:
        self._pipeline, self._settings, self._metrics, self._pool = pipeline, settings, metrics, pool
        self._remote = remote
        info = pipeline.engine.info
        self._names, self._height, self._width = info.names, info.height, info.width
        self._key = ShapeKey(info.height, info.width)
        self._held_bytes = 0
        limits = settings.limits
        self._room_bytes = max(limits.held_bytes, limits.body_bytes * 4 // 3)
        self._room_for_large_bytes = self._room_bytes * 3 // 4

    async def __call__(self, request: Request) -> Reply:
        """One request."""
        own_bytes = 0

        def hold(size: int) -> None:
            nonlocal own_bytes
            room_bytes = self._room_bytes if own_bytes + size <= _OWN_SHARE_BYTES else self._room_for_large_bytes
            if self._held_bytes + size > room_bytes:
                raise Refusal(429, "overloaded", "too many bytes are on their way to this worker", _FAILED_RETRY_S)
            own_bytes += size
            self._held_bytes += size

        try:
            return await self._predict(request, hold)
        finally:
            self._held_bytes -= own_bytes

    async def _predict(self, request: Request, hold: Callable[[int], None]) -> Reply:
        if request.scope["gone"]():  # on a busy worker a request may be found after its client has hung up
            raise ClientGone
        patience = patience_s(request.headers, self._settings.patience_s)
        files, parameters = await self._read(request, hold)
        watch: Watch = request.scope["watch"]
        deadline_s = request.arrived_s + patience
        bodies = await self._remote.collect(files, deadline_s, hold, watch)
        source = request.headers.get(b"x-source", b"")[:_SOURCE_LENGTH].decode("latin-1") or request.client
        pending = Pending(
            bodies, parameters, source=source, silent=not tells_patience(request.headers), received_s=time.monotonic(),
            deadline_s=deadline_s,
        )  # fmt: skip
        self._metrics.stages["receive"].observe(pending.received_s - request.arrived_s)
        headers, accepted = self._admit(bodies, pending)
        alone = len(headers) == 1 and decodes_quickly(headers[0], bodies[0])
        if not alone or not self._pipeline.do_while_idle(partial(self._stage, pending, 0, headers[0])):
            for index, header in enumerate(headers):
                self._pool.submit(header.pixels, self._stage, pending, index, header)
        timer = asyncio.get_running_loop().call_later(pending.deadline_s - pending.received_s, pending.expire)
        watch(lambda: self._leave(pending))
        try:
            failure = await pending.done
        finally:
            watch(None)
            timer.cancel()
        self._learn(pending, accepted)  # also of those not waited for: an answer that would have come later than this
        if failure is not None:
            raise failure()
        return self._reply(request, pending)

    def _leave(self, pending: Pending) -> None:
        """The client is gone: what waits makes room at once."""
        pending.cancel()
        self._pipeline.leave([image for image in pending.images if image is not None])

    def _learn(self, pending: Pending, accepted: Accepted) -> None:
        """How late the answer came against what admission had predicted."""
        if accepted.predicted_s is not None:
            self._pipeline.observe_late(accepted.predicted_s, time.monotonic() - pending.received_s, silent=pending.silent)

    async def _read(self, request: Request, hold: Callable[[int], None]) -> tuple[Sequence[bytes | Url], Parameters]:
        """The images' bytes, or where they are, and what is asked of them."""
        kind = request.content_type
        form = kind == "multipart/form-data"
        if not kind and "source" in request.query:
            asked = parse_parameters(request.query, self._height, self._width)
            await request.body(0, self._settings.limits.body_timeout_s)
            return [parse_source(request.query["source"])], asked
        if not form and not kind.startswith("image/"):
            raise Refusal(415, "unsupported_content_type", "send an image/* body, or multipart/form-data with the part file")
        asked = parse_parameters(request.query, self._height, self._width)
        limits = self._settings.limits
        body = await request.body(limits.body_bytes, limits.body_timeout_s, hold)
        if not form:
            return [body], asked
        parsed = parse_form(request.headers[b"content-type"], body, limits)
        if not parsed.files:
            raise Refusal(422, "no_image", "the form has no part file or source")
        return parsed.files, parse_parameters({**request.query, **parsed.fields}, self._height, self._width)

    def _admit(self, bodies: list[bytes], pending: Pending) -> tuple[list[Header], Accepted]:
        """Refuse what is no image before it takes a place, then ask admission."""
        rejected = self._metrics.images[Outcome.REJECTED]
        headers = []
        for index, body in enumerate(bodies):
            try:
                headers.append(read_header(body, self._settings.limits))
            except ImageRefused as error:
                rejected.inc(len(bodies))
                raise _refusal_of(error, index, len(bodies)) from error
        self._keep_out_quarantined(bodies)
        large = sum(header.large for header in headers)
        if not self._pool.has_room(large):
            rejected.inc(len(bodies))
            raise Refusal(429, "overloaded", "too many large images wait to be decoded", _FAILED_RETRY_S)
        verdict = self._pipeline.admit(len(bodies), pending.deadline_s, pending.source)
        if isinstance(verdict, Refused):
            rejected.inc(len(bodies))
            raise Refusal(verdict.status, verdict.code, verdict.message, verdict.retry_after_s)
        if large:  # they wait for each other before the queue: nothing admission could learn from
            verdict = replace(verdict, predicted_s=None)
        return headers, verdict

    def _keep_out_quarantined(self, bodies: list[bytes]) -> None:
        """Refuse what made a batch fail a while ago; as long as nothing did, this costs nothing."""
        quarantine, now_s = self._pipeline.quarantine, time.monotonic()
        if quarantine.over(now_s):
            return
        for index, body in enumerate(bodies):
            if quarantine.holds(content_digest(body), now_s):
                self._metrics.images[Outcome.REJECTED].inc(len(bodies))
                self._metrics.quarantined.inc()
                raise _refusal_of(Quarantined(), index, len(bodies))

    def _stage(self, pending: Pending, index: int, header: Header) -> None:
        """Decode into a slot and queue it; runs in the decode pool, or in the engine's thread while that is idle."""
        slots, bodies = self._pipeline.slots, pending.bodies
        body = bodies[index] if bodies else b""  # then it is cancelled already
        image = Image(
            key=self._key, pixels=slots.take(), geometry=_NO_GEOMETRY, thresholds=pending.parameters.thresholds,
            arrived_s=pending.received_s, deadline_s=pending.deadline_s, finish=pending.finish, source=pending.source,
            silent=pending.silent,
            body=body,
        )  # fmt: skip
        pending.images[index] = image
        try:
            if pending.cancelled:
                image.outcome = Outcome.EXPIRED if time.monotonic() >= pending.deadline_s else Outcome.CANCELLED
            else:
                image.geometry = letterbox(decode_as(header, body), self._height, self._width, image.pixels)
        except ImageRefused as error:
            image.outcome, image.error = Outcome.REJECTED, error
        except Exception as error:
            image.outcome, image.error = Outcome.FAILED, error
        if image.outcome is None:
            image.cancelled = pending.cancelled
            self._pipeline.offer(image)
        else:
            slots.give(image.pixels)
            self._pipeline.abandon(image)

    def _reply(self, request: Request, pending: Pending) -> Reply:
        now_s, received_s = time.monotonic(), pending.received_s
        images = [image for image in pending.images if image is not None]
        for index, image in enumerate(images):
            if image.outcome is not Outcome.OK or image.boxes is None:
                raise _refusal_of(image.error, index, len(images), image.outcome)
        stages = self._metrics.stages
        rendered = []
        for image in images:
            preprocess_s, queue_s = image.queued_s - received_s, image.started_s - image.queued_s
            inference_s, postprocess_s = image.inferred_s - image.started_s, now_s - image.inferred_s
            stages["decode"].observe(preprocess_s)
            stages["queue"].observe(queue_s)
            stages["inference"].observe(inference_s)
            stages["postprocess"].observe(postprocess_s)
            geometry = image.geometry
            assert image.boxes is not None
            rows = render_boxes(image.boxes, self._names, geometry.source_height, geometry.source_width, pending.parameters)
            speed_ms = {"preprocess": preprocess_s * 1e3, "inference": inference_s * 1e3, "postprocess": postprocess_s * 1e3}
            rendered.append(render_image(rows, geometry.source_height, geometry.source_width, speed_ms))
        seconds = time.monotonic() - request.arrived_s
        stages["total"].observe(seconds)
        return json_reply(render_response(rendered, self._settings.model, self._settings.version, seconds))


def _too_late() -> Refusal:
    return Refusal(504, "deadline_passed", "the deadline passed before the image ran")


def _refusal_of(error: Exception | None, index: int, count: int, outcome: Outcome | None = None) -> Refusal:
    """Why a request is answered with an error, from the first of its images that was not answered."""
    which = f"image {index + 1}: " if count > 1 else ""
    if isinstance(error, ImageRefused):
        return Refusal(error.status, error.code, which + error.message)
    for kind, status, code, words, retry_after_s in _FATES:
        if isinstance(error, kind):
            return Refusal(status, code, which + words, retry_after_s)
    if outcome is Outcome.EXPIRED:
        return Refusal(504, "deadline_passed", "its deadline passed, or would have before the answer: it did not run")
    return Refusal(503, "failed", "the batch with this image failed", _FAILED_RETRY_S)


_FATES: Final[tuple[tuple[type[Exception], int, str, str, int | None], ...]] = (
    (Quarantined, 422, "quarantined", "the model fails on this image; for some minutes it is refused at once", None),
    (Displaced, 429, "displaced", "a newer image took its place in the full queue", _FAILED_RETRY_S),
    (OutOfDeviceMemory, 507, "out_of_memory", "the device has no memory for this image", None),
    (DeviceLost, 503, "unavailable", "this worker cannot serve any more", _FAILED_RETRY_S),
)
"""What may become of an accepted image: status, code, words, Retry-After in seconds."""
