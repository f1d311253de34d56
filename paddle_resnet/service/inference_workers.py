"""The service's side of the inference workers: batches in, results out, and dead workers replaced."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import socket
import threading
from collections.abc import Callable, Sequence
from multiprocessing import connection

from paddle_resnet.errors import PaddleResNetError, RunFailure, UsageError
from paddle_resnet.service.batcher import BATCHES_PER_WORKER, WorkerDied
from paddle_resnet.service.logs import log
from paddle_resnet.service.settings import Settings
from paddle_resnet.service.worker_process import (
    RESPONSE_HEAD,
    ImageResult,
    pack_request,
    receive,
    run_worker,
    unpack_results,
)

START_SECONDS = 300.0
MAX_RESTART_DELAY = 60.0
"""Seconds between two tries to start a worker."""


class InferenceWorkers:
    """`settings.streams` processes, each with the model loaded.

    They start with this object. `wait_until_ready` waits for them, `connect` is called on the event loop.
    """

    def __init__(self, settings: Settings, image_size: int, classes: int) -> None:
        self._sizes = image_size, classes
        self._workers = [_Worker(settings, image_size) for _ in range(settings.streams)]

    @property
    def ready(self) -> int:
        """How many workers take batches."""
        return sum(worker.ready for worker in self._workers)

    @property
    def healthy(self) -> bool:
        """False while a dead worker cannot be replaced."""
        return not any(worker.problem for worker in self._workers)

    @property
    def usable(self) -> bool:
        """False while no worker is ready, and none could be started."""
        return self.ready > 0 or self.healthy

    def wait_until_ready(self) -> str:
        """Wait until all workers are ready, and return the device that they use.

        Raises:
            UsageError, RunFailure: one did not start.
        """
        devices = [worker.wait_until_ready() for worker in self._workers]
        return devices[0]

    def kill(self) -> None:
        """End the workers at once."""
        for worker in self._workers:
            worker.kill()

    async def connect(self, on_replaced: Callable[[], object]) -> None:
        """Connect this event loop to the workers; `on_replaced` is called when a dead worker has a replacement."""
        for worker in self._workers:
            await worker.connect(on_replaced)

    async def run(self, images: Sequence[bytes], costly: bool = False) -> list[ImageResult]:
        """Decode and score a batch on the worker with the least to do.

        Args:
            images: encoded images.
            costly: it is one costly image. It is decoded in full, and its pixels come back too.

        Raises:
            RunFailure: the call failed.
            WorkerDied: the worker died; another takes its place.
        """
        ready = [worker for worker in self._workers if worker.ready]
        if not ready:
            raise WorkerDied(computing=False)
        data = await min(ready, key=lambda worker: worker.load).run(images, costly)
        return unpack_results(data, *self._sizes, costly)

    async def close(self) -> None:
        """End the workers. No batch is under way any more."""
        for worker in self._workers:
            await worker.close()


class _Worker:
    """One worker process, the socket to it, and its replacements."""

    def __init__(self, settings: Settings, image_size: int) -> None:
        self._arguments = settings, image_size
        self._timeout = settings.response_timeout
        self._sleep = asyncio.sleep
        self._tries = 0
        """Replacements since a process last returned a batch."""
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self.ready = False
        self.load = 0
        """Batches that it has; a costly image counts as many as a worker may have."""
        self.problem = ""
        """Why the last replacement failed."""
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # to fork a process with threads would break the copy
        ours, theirs = socket.socketpair()
        process = context.Process(target=run_worker, args=(*self._arguments, theirs), daemon=True)
        with theirs:  # closed here, so that this process notices when the worker closes it
            try:
                process.start()
            except OSError:
                ours.close()
                raise
        self._socket, self._process = ours, process

    def wait_until_ready(self) -> str:
        self._socket.settimeout(START_SECONDS)
        try:
            error, length = RESPONSE_HEAD.unpack(receive(self._socket, RESPONSE_HEAD.size))
            text = receive(self._socket, length).decode("utf-8", "replace")
        except TimeoutError:
            raise RunFailure(f"an inference worker was not ready within {START_SECONDS:g} s") from None
        except OSError:
            raise RunFailure("an inference worker died while it started; see its message above") from None
        if error:
            raise (UsageError if error == UsageError.exit_code else RunFailure)(text)
        return text

    def kill(self) -> None:
        self._process.kill()

    async def connect(self, on_replaced: Callable[[], object]) -> None:
        await self._open()
        self._supervisor = asyncio.get_running_loop().create_task(self._supervise(on_replaced))

    async def _open(self) -> None:
        self._socket.setblocking(False)
        self._streams = await asyncio.open_connection(sock=self._socket)
        self._reading = asyncio.Lock()  # fair: calls read in the order in which they wrote
        self.ready = True

    async def run(self, images: Sequence[bytes], costly: bool) -> bytes:
        """Send a batch and return the packed results. Kill the process if that takes longer than a client waits.

        Raises:
            RunFailure: the call failed.
            WorkerDied: the process died.
        """
        assert self._streams is not None
        reader, writer = self._streams
        if writer.is_closing():
            raise WorkerDied(computing=False)
        weight = BATCHES_PER_WORKER if costly else 1
        self.load += weight
        try:
            writer.writelines(pack_request(images, costly))
            async with self._reading:
                if not self.ready or self._streams != (reader, writer):
                    raise WorkerDied(computing=False)
                error, data = await self._read(reader)
        finally:
            self.load -= weight
        if error:
            raise RunFailure(data.decode("utf-8"))
        self._tries = 0
        return data

    async def _read(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        timer = asyncio.get_running_loop().call_later(self._timeout, self._process.kill)
        try:
            error, length = RESPONSE_HEAD.unpack(await reader.readexactly(RESPONSE_HEAD.size))
            return error, await reader.readexactly(length)
        except (EOFError, OSError):
            self.ready = False
            self._process.kill()  # it may have closed the connection alone, and is to be replaced
            raise WorkerDied(computing=True) from None
        finally:
            timer.cancel()

    async def _supervise(self, on_replaced: Callable[[], object]) -> None:
        """Replace each process that ends: at once, and then with a growing delay while none returns a batch."""
        while True:
            await self._wait_for_end()
            log("inference worker died; it is replaced", logging.ERROR)
            await self._end()
            while problem := await self._restart():
                if problem != self.problem:
                    log("inference worker cannot be replaced; trying again", logging.ERROR, reason=problem)
                self.problem = problem
            if self.problem:
                log("inference worker replaced after failures")
            self.problem = ""
            on_replaced()

    async def _wait_for_end(self) -> None:
        process, loop, ended = self._process, asyncio.get_running_loop(), asyncio.Event()

        def watch() -> None:
            connection.wait([process.sentinel])
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(ended.set)

        # No event loop of Windows can watch a process.
        threading.Thread(target=watch, daemon=True, name="watch worker").start()
        await ended.wait()

    async def _restart(self) -> str:
        """Start a process. Return why that failed, or an empty string."""
        await self._sleep(min(MAX_RESTART_DELAY, 2.0 ** min(self._tries - 1, 10)) if self._tries else 0.0)
        self._tries += 1
        try:
            self._start()
            await asyncio.to_thread(self.wait_until_ready)
            await self._open()
        except (PaddleResNetError, OSError) as error:  # OSError: no memory, or too many open files
            self._process.kill()
            await self._end()
            return str(error)
        return ""

    async def close(self) -> None:
        """Let the process finish what it does, for as long as a client would wait, then kill it."""
        if self._supervisor is not None:
            if not self.ready:
                self._process.kill()  # it may be starting
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
        await self._end()

    async def _end(self) -> None:
        self.ready = False
        if self._streams is None:
            self._socket.close()
        else:
            writer = self._streams[1]
            self._streams = None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        self._process.join(self._timeout)
        self._process.kill()
        self._process.join()
