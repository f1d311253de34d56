"""The served model, the way from a request's body to the results of its images, and `/predict` and `/explain`."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from paddle_resnet.errors import PaddleResNetError
from paddle_resnet.inference.inference_config import InferenceConfig, onnx_file
from paddle_resnet.inference.options import GPU_SUPPORT
from paddle_resnet.inference.predictor import decide, rank
from paddle_resnet.service.batcher import Batcher, PendingRequest
from paddle_resnet.service.errors import ServiceError, client_closed_error
from paddle_resnet.service.inference_workers import InferenceWorkers
from paddle_resnet.service.request_body import BodyLimiter, split_body
from paddle_resnet.service.settings import Settings
from paddle_resnet.service.telemetry import Metrics, log
from paddle_resnet.service.worker_process import FORMATS, ImageData, ImageResult, explains

DEFAULT_TOP = "5"
VERSION_DIGITS = 12
SPLIT_THREADS = 2  # threads that split forms and JSON: a large or hostile body may take them long
DISCONNECT_CHECK_SECONDS = 0.5
"""A request younger than this is not watched for its client leaving: that costs more than most requests do."""
Splitter = Callable[[bytes, "ServedModel"], Sequence[ImageData]]
"""Returns the images of a body, at least one, for a model."""


class ServedModel:
    """An exported model that is loaded in its own worker processes, which start with this object.

    `name` is what responses say of it: the model, the name of the folder that holds the run or the exported model
    alone, and the first digits of the hash. A worker that starts later loads the model of this hash or none.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        expected_hash: str | None = None,
        workers: InferenceWorkers | None = None,
    ) -> None:
        self.config = InferenceConfig.load(settings.model)
        if settings.precision == "int8" and settings.backend not in GPU_SUPPORT:
            onnx_file(self.config, "int8")  # fails before processes start
        self.hash = expected_hash or self.config.digest()
        folder = self.config.folder.resolve()
        run = folder.parent if folder.name == "inference" else folder
        self.name: dict[str, Any] = {"model": self.config.model, "run": run.name, "version": self.hash[:VERSION_DIGITS]}
        self._explains = explains(settings, self.config)
        self.settings, self.metrics = settings, metrics
        self.workers = workers or InferenceWorkers(settings, self.hash, self.config.input.image_size)
        self.batcher = Batcher(self.workers, settings, metrics)

    def connect(self) -> None:
        """Take the workers into use. They are ready."""
        self.metrics.model.clear()
        self.metrics.model.labels(**self.name).set(1)
        self.workers.connect(self.batcher.start_batches, self.metrics.restarts.inc)

    async def close(self) -> None:
        """Answer the requests that were admitted, then end the workers."""
        try:
            while self.batcher.admitted:
                await asyncio.sleep(0.02)
        finally:
            await self.workers.close()

    def check_explains(self, label: str) -> None:
        """Raise a ServiceError where there is no Grad-CAM (404), or not for this class (422); "" is any."""
        if not self._explains:
            reason = "the run's checkpoint does not lie beside the model, or it is served with --no-explain or on Ray"
            raise ServiceError(404, "no_explanation", f"there is no Grad-CAM here: {reason}")
        if label and label not in self.config.classes:
            raise ServiceError(422, "unknown_class", "the model has no such class; GET /model lists them")

    def about(self) -> dict[str, Any]:
        """Describe the model and the limits, for `GET /model`."""
        return {
            **self.name,
            "hash": self.hash,
            "classes": list(self.config.classes),
            "threshold": self.config.threshold,
            "image_size": self.config.input.image_size,
            **self.settings.model_dump(include={"max_images", "max_body", "max_pixels"}),
            "formats": list(FORMATS),
            "explain": self._explains,
        }


class InferencePipeline:
    """From a request to the results of its images: read the body, admit, split, queue, compute."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model  # of new requests; `reload` replaces it
        self.settings = model.settings
        self._body_limiter = BodyLimiter(self.settings)
        self._split_threads = ThreadPoolExecutor(SPLIT_THREADS, thread_name_prefix="split")
        self._reloading = asyncio.Lock()

    async def close(self) -> None:
        """Answer what was admitted, and end the workers and threads."""
        await self.model.close()
        self._split_threads.shutdown()

    async def reload(self) -> None:
        """Load the model of the folder anew, and use it for the requests that are admitted from then on.

        The earlier one answers its requests. It stays in use if the new one cannot be loaded.
        """
        async with self._reloading:
            with ExitStack() as unless_ready:
                try:
                    model = ServedModel(self.settings, self.model.metrics)
                    unless_ready.callback(model.workers.kill)
                    await asyncio.to_thread(model.workers.wait_until_ready)
                except (PaddleResNetError, OSError) as error:
                    log("not reloaded; the earlier model stays in use", logging.ERROR, reason=str(error))
                    return
                unless_ready.pop_all()
            earlier, self.model = self.model, model
            model.connect()
            log("reloaded", **model.name)
            await earlier.close()

    async def predict(self, request: Request) -> Response:
        """Respond to `POST /predict` with the class of each image and the most probable ones, `top` of them."""
        top = request.query_params.get("top", DEFAULT_TOP)
        if not (top.isascii() and top.isdecimal() and 0 < len(top) < 10 and int(top)):
            raise ServiceError(422, "invalid_parameter", "query.top: expected a whole number of at least 1")
        async with self.run(request, self._splitter(request, self.settings.max_images)) as (model, results):
            ranked = rank(scores_of(results), model.config.classes, int(top))
        predictions = [
            {
                "image": image,
                "class": decide(best[0], model.config.threshold),
                "top": [{"class": label, "probability": round(value, 6)} for label, value in best],
            }
            for image, best in enumerate(ranked)
        ]
        return JSONResponse({**model.name, "predictions": predictions})

    async def explain(self, request: Request) -> Response:
        """Respond to `POST /explain` with the Grad-CAM of one image."""
        label = request.query_params.get("class", "")
        async with self.run(request, self._splitter(request, 1), explain=label) as (model, results):
            return JSONResponse({**model.name, **(results[0].explanation or {})})

    def _splitter(self, request: Request, max_images: int) -> Splitter | None:
        content_type = request.headers.get("content-type", "")
        if content_type[:6].lower() == "image/":
            return None
        return lambda body, model: split_body(body, content_type, max_images)

    @asynccontextmanager
    async def run(
        self, request: Request, split: Splitter | None, *, explain: str | None = None
    ) -> AsyncIterator[tuple[ServedModel, list[ImageResult]]]:
        """Read a request and give the model that it is for, and the results of its images, or raise a ServiceError.

        The body and the images count against the limits until the block ends. `split` is called in a thread; None: the
        body is an image. `explain` is the class to explain of a single image.
        """
        client = client_of(request.client.host) if request.client else ""
        self.model.batcher.check_capacity(client)
        async with self._body_limiter.read(request) as body:
            model, pending = self.model, PendingRequest(client, explain)
            if explain is not None:
                model.check_explains(explain)
            loop = asyncio.get_running_loop()
            watching = [
                loop.call_later(self.settings.response_timeout, pending.time_out),
                loop.call_later(DISCONNECT_CHECK_SECONDS, _watch, request, pending),
            ]
            try:
                model.batcher.admit(pending, 1)  # before it is split, which takes a thread
                images: Sequence[ImageData] = [body]
                if split is not None:
                    images = await loop.run_in_executor(self._split_threads, split, body, model)
                    model.batcher.admit(pending, len(images) - 1)
                request.state.log_fields["images"] = len(images)
                model.batcher.put(pending, images)
                yield model, await pending.results
            finally:
                for timer in watching:
                    timer.cancel()
                model.batcher.release(pending)
                # The error refers to this frame, and the frame to the error: without this line both would keep the
                # body until the garbage collector runs.
                del pending, watching


def _watch(request: Request, pending: PendingRequest) -> None:
    """Fail a request as soon as its client leaves."""

    async def fail_on_disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        pending.fail(client_closed_error())

    watcher = asyncio.get_running_loop().create_task(fail_on_disconnect())
    pending.results.add_done_callback(lambda _: watcher.cancel())


def client_of(address: str) -> str:
    """Return whose address it is: of IPv6 the /64 network, as its owner has all addresses in it."""
    if ":" not in address:
        return address
    parsed = ipaddress.IPv6Address(address)
    return str(parsed.ipv4_mapped or parsed.packed[:8].hex())


def scores_of(results: Sequence[ImageResult]) -> np.ndarray:
    """Return the scores of images, float32 ``[N, classes]``."""
    return np.stack([result.scores for result in results if result.scores is not None])
