"""From a request's body to its scores: its pictures found, admitted, and queued for the network."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from starlette.requests import Request

from paddle_resnet.service.batcher import CLIENTS_SHARE, Batcher, Work
from paddle_resnet.service.body_limiter import GONE
from paddle_resnet.service.errors import Refusal
from paddle_resnet.service.fair_queue import ClientBudgets
from paddle_resnet.service.inference_workers import Network, give_memory_back
from paddle_resnet.service.metrics import Metrics
from paddle_resnet.service.pictures import is_one_picture, split_body
from paddle_resnet.service.settings import Settings

if TYPE_CHECKING:
    from paddle_resnet.inference import Predictor

SPLITTERS = 2
"""Threads that take forms and JSON apart: a large or hostile one may take them long."""
PRESENCE_SECONDS = 0.5
"""After which it is watched whether a client is still there: to watch each would cost more than most requests do."""
LARGE_BODY = 1 << 20
TRIM_SECONDS = 2.0
"""After a body larger than that the memory is given back, once for all that came meanwhile."""


class Answering:
    """The way of a request's pictures; one for a process. `network` decodes and computes, `predictor` ranks."""

    def __init__(self, predictor: Predictor, network: Network, settings: Settings, metrics: Metrics) -> None:
        self.predictor = predictor
        self._settings = settings
        self._splitters = ThreadPoolExecutor(SPLITTERS, thread_name_prefix="split")
        self.queue = Batcher(
            network.answer,
            max_batch=settings.max_batch,
            max_wait=settings.max_wait,
            capacity=settings.queue,
            streams=lambda: network.live,
            request_seconds=settings.request_seconds,
            budgets=ClientBudgets(settings.client_seconds, CLIENTS_SHARE),
            seen=metrics.batch_seen,
        )
        self._queue_length = metrics.queue
        self._refusals = metrics.refusals
        self._trimming: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        """Answer what is queued, and end the threads."""
        await self.queue.close()
        self._splitters.shutdown()

    @asynccontextmanager
    async def scores(
        self, request: Request, body: bytes, most: int, *, alone: bool = False
    ) -> AsyncIterator[tuple[np.ndarray, list[np.ndarray | None]]]:
        """Answer the pictures of a request, at most `most`: the scores ``[N, classes]``, and pixels.

        The pictures count as waiting until the block ends.

        Args:
            request: says of which type the body is, and whose it is.
            body: the whole of it.
            most: pictures.
            alone: each is computed by itself, and its pixels are given, uint8 ``[S, S, 3]``.

        Raises:
            Refusal: the body, a picture, or the state of the service is why it is not answered.
        """
        work = Work(client_of(request), alone=alone)
        loop = asyncio.get_running_loop()
        watching: list[asyncio.Task[None]] = []
        timers = [
            loop.call_later(self._settings.answer_seconds, work.give_up),
            loop.call_later(PRESENCE_SECONDS, _watch, request, work, watching),
        ]
        content_type = request.headers.get("content-type", "")
        try:
            self._admit(work, 1)
            pictures = [body] if is_one_picture(content_type) else await self._split(body, content_type, most)
            self._admit(work, len(pictures) - 1)
            self.queue.put(work, pictures)
            yield await work.answer, work.pixels
        except Refusal as refusal:
            self._refusals.labels(refusal.code).inc()
            raise
        finally:
            for timer in timers:
                timer.cancel()
            for task in watching:
                task.cancel()
            self.queue.leave(work)
            self._queue_length.set(self.queue.admitted)
            if len(body) > LARGE_BODY and self._trimming is None:
                self._trimming = loop.call_later(TRIM_SECONDS, self._trim)
            # Its error knows this frame, and the frame the error: both would wait for the collector, with the body.
            del work

    def _trim(self) -> None:
        self._trimming = None
        give_memory_back()

    def _admit(self, work: Work, images: int) -> None:
        if images:
            self.queue.admit(work, images)
            self._queue_length.set(self.queue.admitted)

    async def _split(self, body: bytes, content_type: str, most: int) -> list[bytes]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._splitters, split_body, body, content_type, most)


def client_of(request: Request) -> str:
    """Whose request it is: the sender's address."""
    return "" if request.client is None else _network_of(request.client.host)


@lru_cache(1024)
def _network_of(address: str) -> str:
    """The address itself, or of IPv6 the 64 bits of its network, whose owner has all addresses in it."""
    with suppress(ValueError):
        parsed = ipaddress.ip_address(address)
        if isinstance(parsed, ipaddress.IPv6Address):
            return str(parsed.ipv4_mapped or parsed.packed[:8].hex())
    return address


def _watch(request: Request, work: Work, watching: list[asyncio.Task[None]]) -> None:
    watching.append(asyncio.get_running_loop().create_task(_end_when_gone(request, work)))


async def _end_when_gone(request: Request, work: Work) -> None:
    """End a request whose client leaves."""
    while not work.over:
        if (await request.receive())["type"] == "http.disconnect":
            work.fail(Refusal(GONE, "gone", "the client is gone"))
