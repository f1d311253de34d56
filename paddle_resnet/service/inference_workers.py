"""The service's side of the inference workers: batches in, results out, and dead workers replaced."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable
from multiprocessing import connection

import numpy as np

from paddle_resnet.errors import PaddleResNetError, RunFailure
from paddle_resnet.service.settings import Settings
from paddle_resnet.service.telemetry import configure_logging, log
from paddle_resnet.service.worker_process import Batch, ImageResult, make_worker
from paddle_resnet.worker_pool import WorkerPool

RETRY_SECONDS = 10.0
"""Between two tries to replace a worker, the first of which is at once."""


class WorkerDied(Exception):  # noqa: N818 (the name says what happened)
    """The worker that had a batch is gone."""


class InferenceWorkers:
    """`settings.streams` processes that have loaded the model of `digest`. They start with this object.

    `connect` is called on the event loop, and before `run`.
    """

    def __init__(self, settings: Settings, digest: str, image_size: int) -> None:
        self._workers = [_Worker(settings, digest, image_size) for _ in range(settings.streams)]
        self._supervisors: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> int:
        """How many workers live."""
        return sum(worker.ready for worker in self._workers)

    @property
    def idle(self) -> int:
        """How many workers wait for a batch."""
        return sum(worker.idle for worker in self._workers)

    @property
    def healthy(self) -> bool:
        """False while a dead worker cannot be replaced."""
        return not any(worker.failed for worker in self._workers)

    def wait_until_ready(self) -> None:
        """Wait until all workers have loaded the model; raise the UsageError or RunFailure of one that cannot."""
        for worker in self._workers:
            worker.wait_until_ready()

    def connect(self, on_idle: Callable[[], object], on_replaced: Callable[[], object]) -> None:
        """Supervise the workers from this event loop; call `on_idle` when one can take a batch."""
        loop = asyncio.get_running_loop()
        self._supervisors = [loop.create_task(worker.supervise(on_idle, on_replaced)) for worker in self._workers]

    def run(self, batch: Batch) -> Awaitable[list[ImageResult]]:
        """Compute a batch on an idle worker, which is busy from now on. Raise RunFailure, or WorkerDied."""
        return next(worker for worker in self._workers if worker.idle).start(batch)

    async def close(self) -> None:
        """End the workers at once."""
        for supervisor in self._supervisors:
            supervisor.cancel()
        if self._supervisors:
            await asyncio.wait(self._supervisors)
        await asyncio.to_thread(self.kill)

    def kill(self) -> None:
        for worker in self._workers:
            worker.kill()


class _Worker:
    """One worker process, and its replacements."""

    def __init__(self, settings: Settings, digest: str, image_size: int) -> None:
        self._arguments = settings, digest
        self._timeout = settings.response_timeout
        self._max_batch, self._blank = settings.max_batch, np.zeros((image_size, image_size, 3), np.uint8)
        self.ready = self._busy = False
        self.failed = False
        """Whether the last try to replace it failed."""
        self._start()

    @property
    def idle(self) -> bool:
        return self.ready and not self._busy

    def _start(self) -> None:
        self._pool: WorkerPool[Batch, list[ImageResult] | str] = WorkerPool(
            1, make_worker, *self._arguments, prepare=configure_logging, name="inference worker"
        )

    def wait_until_ready(self) -> None:
        self._pool.wait_until_ready()
        self.ready = True

    def kill(self) -> None:
        self.ready = False
        self._pool.close()

    def start(self, batch: Batch) -> Awaitable[list[ImageResult]]:
        self._busy = True
        return self._run(batch)

    async def _run(self, batch: Batch) -> list[ImageResult]:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._timeout, loop.run_in_executor, None, self._pool.close)
        try:
            results = await asyncio.wrap_future(self._pool.submit(batch))
        except (RunFailure, RuntimeError):  # RuntimeError: the pool is closed
            self.ready = False
            raise WorkerDied from None
        finally:
            self._busy = False
            timer.cancel()
        if isinstance(results, str):
            raise RunFailure(results)
        return results

    async def supervise(self, on_idle: Callable[[], object], on_replaced: Callable[[], object]) -> None:
        """Replace each process that ends."""
        while True:
            on_idle()
            with contextlib.suppress(WorkerDied, RunFailure):
                await self._warm_up(on_idle)
            await self._wait_for_end()
            log("inference worker died; it is replaced", logging.ERROR)
            await self._replace()
            on_replaced()

    async def _warm_up(self, on_idle: Callable[[], object]) -> None:
        """Run each batch size once while no request waits: oneDNN prepares itself for each, and that takes time."""
        for images in range(2, self._max_batch + 1):
            while self.ready and self._busy:
                await asyncio.sleep(0.01)
            await self.start(Batch([self._blank] * images))
            on_idle()

    async def _wait_for_end(self) -> None:
        sentinels, loop, ended = self._pool.sentinels, asyncio.get_running_loop(), asyncio.Event()

        def watch() -> None:
            connection.wait(sentinels)
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(ended.set)

        # No event loop of Windows can watch a process.
        threading.Thread(target=watch, daemon=True, name="watch worker").start()
        await ended.wait()

    async def _replace(self) -> None:
        while True:
            await asyncio.to_thread(self.kill)
            try:
                self._start()
                await asyncio.to_thread(self.wait_until_ready)
            except (PaddleResNetError, OSError) as error:  # OSError: no memory, or too many open files
                self.failed = True
                log("inference worker cannot be replaced; trying again", logging.ERROR, reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self.failed = False
                return
