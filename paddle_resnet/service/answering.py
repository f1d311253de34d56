"""From a request's body to its scores: its pictures found, admitted, and queued for the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np

from paddle_resnet.service.batcher import Answer, Batcher, Work
from paddle_resnet.service.metrics import Metrics
from paddle_resnet.service.pictures import is_one_picture, split_body
from paddle_resnet.service.settings import Settings

if TYPE_CHECKING:
    from paddle_resnet.deploy import Predictor

SPLITTERS = 2
"""Threads that take forms and JSON apart: a large or hostile one may take them long."""


class Answering:
    """The way of a request's pictures; one for a process. `answer` decodes and computes, `predictor` ranks."""

    def __init__(self, predictor: Predictor, answer: Answer, settings: Settings, metrics: Metrics) -> None:
        self.predictor = predictor
        self._settings = settings
        self._splitters = ThreadPoolExecutor(SPLITTERS, thread_name_prefix="split")
        self.queue = Batcher(
            answer,
            max_batch=settings.max_batch,
            max_wait=settings.max_wait,
            capacity=settings.queue,
            streams=settings.streams,
            seen=metrics.batch_seen,
        )
        self._queue_length = metrics.queue

    async def close(self) -> None:
        """Answer what is queued, and end the threads."""
        await self.queue.close()
        self._splitters.shutdown()

    @asynccontextmanager
    async def scores(self, body: bytes, content_type: str, most: int) -> AsyncIterator[tuple[np.ndarray, list[bytes]]]:
        """Answer the pictures of a body, at most `most`: the scores ``[N, classes]``, and the encoded pictures.

        The pictures count as waiting until the block ends.

        Raises:
            Refusal: the body, a picture, or the state of the service is why it is not answered.
        """
        work = Work()
        patience = asyncio.get_running_loop().call_later(self._settings.answer_seconds, work.give_up)
        try:
            self._admit(work, 1)
            pictures = [body] if is_one_picture(content_type) else await self._split(body, content_type, most)
            self._admit(work, len(pictures) - 1)
            self.queue.put(work, pictures)
            yield await work.answer, pictures
        finally:
            patience.cancel()
            self.queue.leave(work)
            self._queue_length.set(self.queue.admitted)

    def _admit(self, work: Work, images: int) -> None:
        if images:
            self.queue.admit(work, images)
            self._queue_length.set(self.queue.admitted)

    async def _split(self, body: bytes, content_type: str, most: int) -> list[bytes]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._splitters, split_body, body, content_type, most)
