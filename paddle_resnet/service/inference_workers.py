"""The service's side of the inference workers: batches in, results out, and dead workers replaced."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import socket
import struct
from collections.abc import Callable, Sequence
from functools import partial

from paddle_resnet.errors import RunFailure
from paddle_resnet.service.batcher import BATCHES_PER_WORKER, WorkerDied
from paddle_resnet.service.logs import log
from paddle_resnet.service.settings import Settings
from paddle_resnet.service.worker_process import (
    RESPONSE_HEAD,
    ImageResult,
    pack_request_head,
    run_worker,
    unpack_results,
)

START_SECONDS = 300.0
MAX_RESTART_DELAY = 60.0
"""Seconds between two tries to start a worker."""


class InferenceWorkers:
    """`settings.streams` processes, each with the model loaded and each batch size tried once.

    They start with this object. `wait_until_ready` waits for them, `connect` is called on the event loop.
    """

    def __init__(self, settings: Settings, image_size: int, classes: int) -> None:
        self._sizes = image_size, classes
        self._slots = [_WorkerSlot(settings, image_size) for _ in range(settings.streams)]

    @property
    def ready(self) -> int:
        """How many workers take batches."""
        return sum(slot.ready for slot in self._slots)

    @property
    def healthy(self) -> bool:
        """False while a dead worker cannot be replaced."""
        return not any(slot.problem for slot in self._slots)

    @property
    def usable(self) -> bool:
        """False while no worker is ready, and none could be started."""
        return self.ready > 0 or self.healthy

    def wait_until_ready(self) -> None:
        """Wait until all workers are ready.

        Raises:
            RunFailure: one did not start.
        """
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.wait_until_ready()

    async def connect(self, on_replaced: Callable[[], object]) -> None:
        """Connect this event loop to the workers; `on_replaced` is called when a dead worker has a replacement."""
        for slot in self._slots:
            await slot.connect(on_replaced)

    async def run(self, images: Sequence[bytes], costly: bool = False) -> list[ImageResult]:
        """Decode and score a batch on the worker with the least to do.

        Args:
            images: encoded images.
            costly: it is one costly image. It is decoded in full, and its pixels come back too.

        Raises:
            RunFailure: the call failed.
            WorkerDied: the worker died; another takes its place.
        """
        ready = [slot for slot in self._slots if slot.ready]
        if not ready:
            raise WorkerDied(computing=False)
        data = await min(ready, key=lambda slot: slot.load).run(images, costly)
        return unpack_results(data, *self._sizes, costly)

    async def close(self) -> None:
        """End the workers. No batch is under way any more."""
        for slot in self._slots:
            await slot.close()


class _WorkerSlot:
    """One worker, and its replacements."""

    def __init__(self, settings: Settings, image_size: int) -> None:
        self._make_worker = partial(_Worker, settings, image_size)
        self._sleep = asyncio.sleep
        self.worker: _Worker | None = self._make_worker()
        """None while a replacement starts."""
        self.load = 0
        """Batches that it has; a costly image counts as many as a worker may have."""
        self.problem = ""
        """Why the last replacement failed."""
        self._tries = 0
        """Replacements since a worker last returned a batch."""
        self._starting: _Worker | None = None
        self._replacement: asyncio.Task[None] | None = None
        self._on_replaced: Callable[[], object] = lambda: None

    @property
    def ready(self) -> bool:
        return self.worker is not None and not self.worker.dead

    async def connect(self, on_replaced: Callable[[], object]) -> None:
        self._on_replaced = on_replaced
        if self.worker is not None:
            await self.worker.connect(self._on_death)

    async def run(self, images: Sequence[bytes], costly: bool) -> bytes:
        assert self.worker is not None
        weight = BATCHES_PER_WORKER if costly else 1
        self.load += weight
        try:
            data = await self.worker.run(images, costly)
        finally:
            self.load -= weight
        self._tries = 0
        return data

    async def close(self) -> None:
        if self._replacement is not None and not self._replacement.done():
            if self._starting is not None:
                self._starting.kill()
            self._replacement.cancel()
            await asyncio.wait([self._replacement])
        for worker in (self._starting, self.worker):
            if worker is not None:
                await worker.close()

    def _on_death(self) -> None:
        dead, self.worker = self.worker, None
        log("inference worker died; it is replaced", logging.ERROR)
        self._replacement = asyncio.get_running_loop().create_task(self._replace(dead))

    async def _replace(self, dead: _Worker | None) -> None:
        """Start workers until one is ready: at once, and then with a growing delay while none returns a batch."""
        if dead is not None:
            await dead.close()
        while True:
            await self._sleep(min(MAX_RESTART_DELAY, 2.0 ** (self._tries - 1)) if self._tries else 0.0)
            self._tries += 1
            if not (problem := await self._start()):
                break
            if problem != self.problem:
                log("inference worker cannot be replaced; trying again", logging.ERROR, reason=problem)
            self.problem = problem
        if self.problem:
            log("inference worker replaced after failures")
        self.problem = ""
        self._on_replaced()

    async def _start(self) -> str:
        """Start a worker. Return why that failed, or an empty string."""
        try:
            self._starting = self._make_worker()
            await asyncio.to_thread(self._starting.wait_until_ready)
            await self._starting.connect(self._on_death)
        except (RunFailure, OSError) as error:  # OSError: no memory, or too many open files
            failed, self._starting = self._starting, None
            if failed is not None:
                failed.kill()
                await failed.close()
            return str(error)
        self.worker, self._starting = self._starting, None
        return ""


class _Worker:
    """One worker process, and the socket to it."""

    def __init__(self, settings: Settings, image_size: int) -> None:
        context = multiprocessing.get_context("spawn")  # to fork a process with threads would break the copy
        self._socket, theirs = socket.socketpair()
        self._process = context.Process(target=run_worker, args=(settings, image_size, theirs), daemon=True)
        try:
            self._process.start()
        except OSError:
            self._socket.close()
            raise
        finally:
            theirs.close()  # so that this process notices when the worker closes it
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._timeout = settings.response_timeout
        self.dead = False

    def wait_until_ready(self) -> None:
        self._socket.settimeout(START_SECONDS)
        try:
            ok, length = RESPONSE_HEAD.unpack(self._receive(RESPONSE_HEAD.size))
            reason = self._receive(length).decode("utf-8", "replace")
        except TimeoutError:
            ok, reason = False, f"an inference worker was not ready within {START_SECONDS:g} s"
        except (OSError, struct.error):
            ok, reason = False, "an inference worker died while it started; see its message above"
        if not ok:
            raise RunFailure(reason)

    def _receive(self, length: int) -> bytes:
        return self._socket.recv(length, socket.MSG_WAITALL) if length else b""

    async def connect(self, on_death: Callable[[], None]) -> None:
        """Connect the event loop, and call `on_death` when the process ends by itself."""
        self._socket.setblocking(False)
        self._streams = await asyncio.open_unix_connection(sock=self._socket)
        self._reading = asyncio.Lock()  # fair: calls read in the order in which they wrote
        loop = asyncio.get_running_loop()

        def notice() -> None:
            loop.remove_reader(self._process.sentinel)
            self.dead = True
            on_death()

        loop.add_reader(self._process.sentinel, notice)

    async def run(self, images: Sequence[bytes], costly: bool) -> bytes:
        """Send a batch and return the packed results. Kill the worker if that takes longer than a client waits.

        Raises:
            RunFailure: the call failed.
            WorkerDied: the worker died.
        """
        assert self._streams is not None
        reader, writer = self._streams
        if self.dead or writer.is_closing():
            raise WorkerDied(computing=False)
        writer.writelines([pack_request_head(images, costly), *images])
        async with self._reading:
            if self.dead:
                raise WorkerDied(computing=False)
            timer = asyncio.get_running_loop().call_later(self._timeout, self._process.kill)
            try:
                ok, length = RESPONSE_HEAD.unpack(await reader.readexactly(RESPONSE_HEAD.size))
                data = await reader.readexactly(length)
            except (EOFError, OSError):
                self.dead = True
                self._process.kill()  # it may have closed the connection alone, and is to be replaced
                raise WorkerDied(computing=True) from None
            finally:
                timer.cancel()
        if not ok:
            raise RunFailure(data.decode("utf-8"))
        return data

    def kill(self) -> None:
        self._process.kill()

    async def close(self) -> None:
        """Let the process finish what it does, for as long as a client would wait, then kill it."""
        self.dead = True
        if self._streams is None:
            self._socket.close()
        else:
            asyncio.get_running_loop().remove_reader(self._process.sentinel)
            writer = self._streams[1]
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        self._process.join(self._timeout)
        self._process.kill()
        self._process.join()
