"""The service's side of the inference workers: batches in, results out, and dead workers replaced."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable

import numpy as np

from paddle_resnet.errors import RunFailure
from paddle_resnet.service.settings import Settings
from paddle_resnet.service.telemetry import configure_logging, log
from paddle_resnet.service.worker_process import Batch, ImageResult, make_worker
from paddle_resnet.worker_pool import WorkerPool

LOOK_SECONDS = 0.1  # between two looks at whether a worker lives, and whether it is idle and can be warmed up
LOAD_SECONDS = 600.0
"""After which a worker that loads the model is taken for one that hangs. TensorRT compiles a model for minutes."""
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0)  # between tries to replace a worker, the first at once; the last from then on


class WorkerDied(Exception):  # noqa: N818 (the name says what happened)
    """The worker that had a batch is gone."""


class InferenceWorkers:
    """`settings.streams` processes with the model of `digest`, started here; `connect` is called before `run`."""

    def __init__(self, settings: Settings, digest: str, image_size: int) -> None:
        self._workers = [_Worker(settings, digest, image_size) for _ in range(settings.streams)]
        self._supervisors: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> int:
        """How many workers live."""
        return sum(worker.ready for worker in self._workers)

    @property
    def idle(self) -> int:
        """How many workers wait for a batch. It looks at their processes, so that no batch goes to a dead one."""
        for worker in self._workers:
            worker.look()
        return sum(worker.idle for worker in self._workers)

    @property
    def usable(self) -> bool:
        """False while no worker lives, and the last try to start one failed."""
        return self.ready > 0 or not any(worker.failed for worker in self._workers)

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
        self._settings, self._digest = settings, digest
        self._blank = np.zeros((image_size, image_size, 3), np.uint8)
        self.ready = False  # it has loaded the model, and was alive at the last look
        self.failed = False  # the last try to replace it failed
        self._busy = False
        self._start()

    @property
    def idle(self) -> bool:
        return self.ready and not self._busy

    def look(self) -> None:
        """See whether its process has ended."""
        self.ready = self.ready and self._pool.alive

    def _start(self) -> None:
        self._pool: WorkerPool[Batch, list[ImageResult] | str] = WorkerPool(
            1, make_worker, self._settings, self._digest, prepare=configure_logging, name="inference worker"
        )

    def wait_until_ready(self) -> None:
        self._pool.wait_until_ready(LOAD_SECONDS)
        self.ready = True

    def kill(self) -> None:
        self.ready = False
        self._pool.close()

    def start(self, batch: Batch) -> Awaitable[list[ImageResult]]:
        self._busy = True
        return self._run(batch)

    async def _run(self, batch: Batch) -> list[ImageResult]:
        timer = asyncio.get_running_loop().call_later(self._settings.response_timeout, self._pool.kill)
        try:
            results = await asyncio.wrap_future(self._pool.submit(batch))
        except (RunFailure, RuntimeError):  # RuntimeError: the pool is closed, or no thread can start
            self.ready = False
            raise WorkerDied from None
        finally:
            self._busy = False
            timer.cancel()
        if isinstance(results, str):
            raise RunFailure(results)
        return results

    async def supervise(self, on_idle: Callable[[], object], on_replaced: Callable[[], object]) -> None:
        """Replace each process that ends, for ever."""
        while True:
            on_idle()
            await self._warm_up(on_idle)
            while self.ready:
                await asyncio.sleep(LOOK_SECONDS)
                self.look()
            log("inference worker died; it is replaced", logging.ERROR)
            await self._replace()
            on_replaced()

    async def _warm_up(self, on_idle: Callable[[], object]) -> None:
        """Run each batch size once while no request waits: oneDNN prepares itself for each, and that takes time."""
        for images in range(2, self._settings.max_batch + 1):
            while self._busy:
                await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.start(Batch([self._blank] * images))
            except (WorkerDied, RunFailure):
                return
            on_idle()

    async def _replace(self) -> None:
        """Start a process until one is ready. It may also die while it loads, and must come back all the same."""
        for seconds in itertools.chain(RETRY_SECONDS, itertools.repeat(RETRY_SECONDS[-1])):
            try:
                await asyncio.to_thread(self.kill)
                self._start()
                await asyncio.to_thread(self.wait_until_ready)
            except Exception as error:  # no memory, no thread, too many open files, another model, a dead process
                self.failed = True
                reason = f"{type(error).__name__}: {error}"
                log("inference worker cannot be replaced", logging.ERROR, reason=reason, again_in_seconds=seconds)
                await asyncio.sleep(seconds)
            else:
                self.failed = False
                return
