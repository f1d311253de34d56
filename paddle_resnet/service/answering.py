"""From a request's body to its answers: decoding threads before the queue, ranking behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from paddle_resnet.service.batcher import Batcher, Scores, Work
from paddle_resnet.service.metrics import Metrics
from paddle_resnet.service.pictures import decode, split_body
from paddle_resnet.service.settings import Settings

if TYPE_CHECKING:
    from paddle_resnet.deploy import Predictor

DECODED_AT_ONCE = 8
"""Pictures of one request that a thread decodes before it queues them: a request of many is spread over the threads."""


class Answering:
    """The way of a request's pictures; one for a process. `predictor` decodes and ranks, `scores` computes."""

    def __init__(self, predictor: Predictor, scores: Scores, settings: Settings, metrics: Metrics) -> None:
        self.predictor = predictor
        self._settings = settings
        self._decoders = ThreadPoolExecutor(settings.decoders, thread_name_prefix="decode")
        self.queue = Batcher(
            scores,
            max_batch=settings.max_batch,
            max_wait=settings.max_wait,
            capacity=settings.queue,
            streams=settings.streams,
            seen=metrics.batch_seen,
        )
        self._queue_length = metrics.queue

    def close(self) -> None:
        """Answer what is queued, and end the threads."""
        self._decoders.shutdown()
        self.queue.close()

    @asynccontextmanager
    async def scores(
        self, body: bytes, content_type: str, most: int, *, keep_pixels: bool = False
    ) -> AsyncIterator[tuple[np.ndarray, list[np.ndarray]]]:
        """Answer the pictures of a body, at most `most`.

        Gives the scores ``[N, classes]``, and of each picture the pixels uint8 ``[S, S, 3]`` if they are to be kept.
        The pictures count as waiting until the block ends.

        Raises:
            Refusal: the body, a picture, or the state of the service is why it is not answered.
        """
        work = Work(asyncio.get_running_loop())
        task = _Task(self, body, content_type, most, work, keep_pixels)
        try:
            self.queue.admit(work, 1)
            self._queue_length.set(self.queue.admitted)
            self._decoders.submit(_guarded, work, task.split)
            patience = work.loop.call_later(self._settings.answer_seconds, work.give_up)
            try:
                scores = await work.answer
            finally:
                patience.cancel()
            yield scores, task.pixels
        finally:
            self.queue.leave(work)
            self._queue_length.set(self.queue.admitted)

    def decode(self, data: bytes, image: int) -> np.ndarray:
        """Decode the picture of the number `image`."""
        return decode(data, image, self._settings.max_pixels, self.predictor.decode)

    def later(self, work: Work, do: Callable[[], None]) -> None:
        """Let a decoding thread do something for a request."""
        self._decoders.submit(_guarded, work, do)


@dataclass
class _Task:
    """What decoding threads do for one request."""

    answering: Answering
    body: bytes
    content_type: str
    most: int
    work: Work
    keep_pixels: bool
    pixels: list[np.ndarray] = field(default_factory=list)

    def split(self) -> None:
        """Find the pictures, admit all, and decode them: the first few here, the others wherever a thread is free."""
        encoded = split_body(self.body, self.content_type, self.most)
        self.body = b""
        self.answering.queue.admit(self.work, len(encoded) - 1)
        self.work.expect(len(encoded))
        for first in range(DECODED_AT_ONCE, len(encoded), DECODED_AT_ONCE):
            part = encoded[first : first + DECODED_AT_ONCE]
            self.answering.later(self.work, lambda part=part, first=first: self.decode(part, first))  # type: ignore[misc]
        self.decode(encoded[:DECODED_AT_ONCE], 0)

    def decode(self, encoded: list[bytes], first: int) -> None:
        """Decode some pictures and queue them."""
        pictures = []
        for index, data in enumerate(encoded, first):
            if self.work.over:
                return
            pictures.append(self.answering.decode(data, index))
        if self.keep_pixels:
            self.pixels += pictures
        self.answering.queue.put(self.work, first, pictures)


def _guarded(work: Work, do: Callable[[], None]) -> None:
    """Do something in a decoding thread; what it raises is the request's answer."""
    if work.over:
        return
    try:
        do()
    except BaseException as error:
        work.fail(error)
