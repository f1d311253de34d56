"""`POST /predict`, and the pipeline from a request's body to scores that it shares with `/explain`."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from paddle_resnet.inference.inference_config import InferenceConfig
from paddle_resnet.inference.predictor import decide, rank
from paddle_resnet.service.batcher import Batcher
from paddle_resnet.service.errors import ServiceError, client_closed_error
from paddle_resnet.service.inference_workers import InferenceWorkers
from paddle_resnet.service.metrics import Metrics
from paddle_resnet.service.request_body import BodyLimiter, is_single_image, split_body
from paddle_resnet.service.request_queue import PendingRequest
from paddle_resnet.service.settings import Settings
from paddle_resnet.service.worker_process import release_memory

DEFAULT_TOP = "5"
SPLIT_THREADS = 2
"""Threads that split forms and JSON: a large or hostile body may take them long."""
DISCONNECT_CHECK_SECONDS = 0.5
"""A request younger than this is not watched for its client leaving: that costs more than most requests do."""
LARGE_BODY = 1 << 20
RELEASE_SECONDS = 2.0
"""After a larger body memory is returned to the system, once for all large bodies of this time."""


class InferencePipeline:
    """From a request to scores: read and split the body, admit, queue, compute. One per process."""

    def __init__(
        self, config: InferenceConfig, workers: InferenceWorkers, settings: Settings, metrics: Metrics
    ) -> None:
        self.config = config
        self.batcher = Batcher(workers.run, settings, lambda: workers.ready, metrics)
        self._body_limiter = BodyLimiter(settings)
        self._settings = settings
        self._split_threads = ThreadPoolExecutor(SPLIT_THREADS, thread_name_prefix="split")
        self._release_timer: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        """Compute what is queued, and end the threads."""
        await self.batcher.close()
        self._split_threads.shutdown()

    async def predict(self, request: Request) -> Response:
        """Respond to `POST /predict` with the class of each image and the most probable ones, `top` of them."""
        top = request.query_params.get("top", DEFAULT_TOP)
        if not (top.isascii() and top.isdecimal() and 0 < len(top) < 10 and int(top)):
            raise ServiceError(422, "invalid_parameter", "query.top: expected a whole number of at least 1")
        async with self.run(request, self._settings.max_images) as (scores, _):
            request.state.log_fields["images"] = len(scores)
            ranked = rank(scores, self.config.classes, int(top))
        predictions = [
            {
                "image": image,
                "class": decide(best[0], self.config.threshold),
                "top": [{"class": label, "probability": round(value, 6)} for label, value in best],
            }
            for image, best in enumerate(ranked)
        ]
        return json_response({"model": self.config.model, "predictions": predictions})

    @asynccontextmanager
    async def run(
        self, request: Request, max_images: int, *, with_pixels: bool = False
    ) -> AsyncIterator[tuple[np.ndarray, list[np.ndarray | None]]]:
        """Read a request and give the scores of its images, float32 ``[N, classes]``, and pixels.

        The body and the images count against the limits until the block ends.

        Args:
            request: its body is not read yet.
            max_images: that it may hold.
            with_pixels: run each image by itself, and give its pixels, uint8 ``[S, S, 3]``.

        Raises:
            ServiceError: the body, an image or the state of the service is the reason why there are no scores.
        """
        client = client_of(request)
        self.batcher.check_capacity(client)
        async with self._body_limiter.read(request) as body:
            pending = PendingRequest(client, with_pixels=with_pixels)
            loop = asyncio.get_running_loop()
            watching = [
                loop.call_later(self._settings.response_timeout, pending.time_out),
                loop.call_later(DISCONNECT_CHECK_SECONDS, self._watch, request, pending),
            ]
            try:
                images = await self._admit(request, pending, body, max_images)
                self.batcher.put(pending, images)
                yield await pending.scores, pending.pixels
            finally:
                for timer in watching:
                    timer.cancel()
                self.batcher.release(pending)
                if len(body) > LARGE_BODY and self._release_timer is None:
                    self._release_timer = loop.call_later(RELEASE_SECONDS, self._release_memory)
                # The error refers to this frame, and the frame to the error: without this line both would keep the
                # body until the garbage collector runs.
                del pending, watching

    def _watch(self, request: Request, pending: PendingRequest) -> None:
        """Fail a request as soon as its client leaves."""

        async def fail_on_disconnect() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            pending.fail(client_closed_error())

        watcher = asyncio.get_running_loop().create_task(fail_on_disconnect())
        pending.scores.add_done_callback(lambda _: watcher.cancel())

    async def _admit(self, request: Request, pending: PendingRequest, body: bytes, max_images: int) -> list[bytes]:
        """Admit the images of a body, the first one before it is split, and return them."""
        content_type = request.headers.get("content-type", "")
        self.batcher.admit(pending, 1)
        if is_single_image(content_type):
            return [body]
        loop = asyncio.get_running_loop()
        images = await loop.run_in_executor(self._split_threads, split_body, body, content_type, max_images)
        self.batcher.admit(pending, len(images) - 1)
        return images

    def _release_memory(self) -> None:
        self._release_timer = None
        release_memory()


def client_of(request: Request) -> str:
    """Return whose request it is: the sender's address, or the network of an IPv6 address."""
    return "" if request.client is None else _client_of_address(request.client.host)


@lru_cache(1024)
def _client_of_address(address: str) -> str:
    """Of IPv6 return the /64 network: its owner has all addresses in it."""
    with suppress(ValueError):
        parsed = ipaddress.ip_address(address)
        if isinstance(parsed, ipaddress.IPv6Address):
            return str(parsed.ipv4_mapped or parsed.packed[:8].hex())
    return address


def json_response(value: dict[str, Any]) -> Response:
    """Return compact JSON."""
    return Response(json.dumps(value, ensure_ascii=False, separators=(",", ":")), media_type="application/json")
