"""The network in processes of its own, which decode the pictures too: encoded pictures in, scores out.

Decoding and computing keep Python's lock for a good part of their time (Paddle 3.3.1's `predictor.run` for all of it):
in the service's own process nothing would be received or answered meanwhile. And what a decoder makes of a hostile
picture, in time, memory or a crash, is not the service's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import signal
import socket
import struct
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BufferedRWPair

import numpy as np

from paddle_resnet.data.decode import decode_opened
from paddle_resnet.errors import RunFailure
from paddle_resnet.service.logs import log
from paddle_resnet.service.pictures import Verdict, decode
from paddle_resnet.service.settings import Settings

READY = b"ready"
ANSWER_HEAD = struct.Struct("<?I")
"""Whether scores follow, or the traceback of a call that failed; and of how many bytes."""


class Network:
    """`settings.streams` processes, each with the model loaded and every size of a batch tried.

    They start with this object; `wait_until_ready` waits for them, `open` is called on the event loop.
    """

    def __init__(self, settings: Settings, image_size: int, classes: int) -> None:
        self._classes = classes
        self._computers = [_Computer(settings, image_size) for _ in range(settings.streams)]

    @property
    def alive(self) -> bool:
        """False where a process has died and no other could take its place."""
        return not any(computer.broken for computer in self._computers)

    def wait_until_ready(self) -> None:
        """Wait until all processes answer.

        Raises:
            RunFailure: one did not start.
        """
        for computer in self._computers:
            computer.process.wait_until_ready()

    async def open(self) -> None:
        """Connect this event loop to the processes."""
        for computer in self._computers:
            await computer.open()

    async def answer(self, pictures: Sequence[bytes]) -> list[np.ndarray | Verdict]:
        """Give the scores of each picture, float32 ``[classes]``, or why it has none.

        The process with the least to do gets them; it does what it gets one after the other.

        Raises:
            RunFailure: the call failed, or its process died of it; another takes its place.
        """
        computer = min(self._computers, key=lambda each: each.calls)
        return _results(await computer.ask(pictures), len(pictures), self._classes)

    async def close(self) -> None:
        """End the processes; none computes any more."""
        for computer in self._computers:
            await computer.close()


class _Computer:
    """A process, and others after it if it dies."""

    def __init__(self, settings: Settings, image_size: int) -> None:
        self._make = partial(_Process, settings, image_size)
        self.process = self._make()
        self.calls = 0
        self.broken = False
        self._replacing = asyncio.Lock()
        self._replacement: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self.process.open(self._process_ended)

    async def ask(self, pictures: Sequence[bytes]) -> bytes:
        """Answer by this process or, if it dies before it comes to these pictures, by the next one."""
        self.calls += 1
        try:
            while True:
                process = self.process
                try:
                    return await process.ask(pictures)
                except _Died as died:
                    if died.computing:
                        raise RunFailure("a process that computes died") from None
                    await self._replace(process)
        finally:
            self.calls -= 1

    async def close(self) -> None:
        if self._replacement is not None:
            await asyncio.wait([self._replacement])
        await self.process.end()

    def _process_ended(self) -> None:
        """Replace it at once, whether or not somebody waits for it."""
        self._replacement = asyncio.get_running_loop().create_task(self._replace_in_time(self.process))

    async def _replace_in_time(self, dead: _Process) -> None:
        with contextlib.suppress(RunFailure):  # `broken` says so
            await self._replace(dead)

    async def _replace(self, dead: _Process) -> None:
        async with self._replacing:
            if self.process is not dead:  # somebody else has seen to it
                return
            log("a network process died, and is replaced", logging.ERROR)
            await dead.end()
            try:
                process = self._make()
                await asyncio.to_thread(process.wait_until_ready)
                await process.open(self._process_ended)
            except (RunFailure, OSError) as error:  # OSError: no memory, or too many files
                self.broken = True
                raise RunFailure(f"a process that computes could not be replaced: {error}") from None
            self.process, self.broken = process, False


class _Died(Exception):  # noqa: N818
    """The process is gone; `computing` says whether it was at work on the call."""

    def __init__(self, computing: bool) -> None:
        super().__init__()
        self.computing = computing


class _Process:
    """One process, and the socket to it."""

    def __init__(self, settings: Settings, image_size: int) -> None:
        context = multiprocessing.get_context("spawn")  # a copy of a process with threads would be broken
        self._socket, theirs = socket.socketpair()
        self._process = context.Process(target=_compute, args=(settings, image_size, theirs), daemon=True)
        self._process.start()
        theirs.close()  # so that its end is seen here
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._patience = settings.answer_seconds
        self._dead = False

    def wait_until_ready(self) -> None:
        try:
            ready = self._socket.recv(len(READY)) == READY
        except OSError:
            ready = False
        if not ready:
            raise RunFailure("a process that computes could not start; its message stands above")

    async def open(self, ended: Callable[[], None]) -> None:
        """Connect the event loop, and call `ended` when the process ends by itself."""
        self._socket.setblocking(False)
        self._streams = await asyncio.open_unix_connection(sock=self._socket)
        self._reading = asyncio.Lock()  # fair: calls read in the order in which they have written
        loop = asyncio.get_running_loop()

        def notice() -> None:
            loop.remove_reader(self._process.sentinel)
            self._dead = True
            ended()

        loop.add_reader(self._process.sentinel, notice)

    async def ask(self, pictures: Sequence[bytes]) -> bytes:
        """Let the process answer; it is killed if it computes longer than anybody waits for an answer.

        Raises:
            RunFailure: the call failed.
            _Died: the process did.
        """
        assert self._streams is not None
        reader, writer = self._streams
        if self._dead or writer.is_closing():
            raise _Died(computing=False)
        writer.writelines([_pack_lengths(pictures), *pictures])
        async with self._reading:
            if self._dead:
                raise _Died(computing=False)
            alarm = asyncio.get_running_loop().call_later(self._patience, self._process.kill)
            try:
                right, length = ANSWER_HEAD.unpack(await reader.readexactly(ANSWER_HEAD.size))
                answer = await reader.readexactly(length)
            except (EOFError, OSError):
                self._dead = True
                raise _Died(computing=True) from None
            finally:
                alarm.cancel()
        if not right:
            raise RunFailure(answer.decode("utf-8"))
        return answer

    async def end(self) -> None:
        """Let the process finish what it does, for as long as anybody would wait for that."""
        self._dead = True
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
        self._process.join(self._patience)
        self._process.kill()
        self._process.join()


def _pack_lengths(pictures: Sequence[bytes]) -> bytes:
    return struct.pack(f"<{1 + len(pictures)}I", len(pictures), *map(len, pictures))


def _read_pictures(stream: BufferedRWPair) -> list[bytes]:
    """What `_pack_lengths` announces; nothing at the end of the stream."""
    count = stream.read(4)
    if len(count) < 4:
        return []
    (images,) = struct.unpack("<I", count)
    return [stream.read(length) for length in struct.unpack(f"<{images}I", stream.read(4 * images))]


def _results(answer: bytes, images: int, classes: int) -> list[np.ndarray | Verdict]:
    """A verdict of each picture, a byte, and the scores of those that could be read."""
    verdicts = [Verdict(byte) for byte in answer[:images]]
    rows = iter(np.frombuffer(answer, np.float32, offset=images).reshape(-1, classes))
    return [next(rows) if verdict is Verdict.READ else verdict for verdict in verdicts]


def _compute(settings: Settings, image_size: int, connection: socket.socket) -> None:
    """What a process does until the other end of the connection is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they may be meant for all processes: accepted work is done first
        signal.signal(number, signal.SIG_IGN)
    from paddle_resnet import runtime

    runtime.import_paddle()
    from paddle_resnet.service.predictors import load

    with load(settings) as predictor, ThreadPoolExecutor(settings.decoders) as threads, connection:
        for images in range(1, settings.max_batch + 1):  # oneDNN prepares itself for each shape: time and memory
            predictor.scores(np.zeros((images, image_size, image_size, 3), np.uint8))
        connection.sendall(READY)
        # A thread more is of no use to one core, and costs as much as decoding a small picture does.
        each: Callable[..., Iterable[np.ndarray | Verdict]] = map if settings.decoders == 1 else threads.map

        size = predictor.config.input
        to_pixels = partial(decode_opened, resize=size.resize, image_size=size.image_size, name="a picture")

        def answer(pictures: list[bytes]) -> bytes:
            decoded = list(each(lambda data: decode(data, settings.max_pixels, to_pixels), pictures))
            verdicts = bytes(each if isinstance(each, Verdict) else Verdict.READ for each in decoded)
            readable = [each for each in decoded if not isinstance(each, Verdict)]
            if not readable:
                return verdicts
            return verdicts + predictor.scores(np.stack(readable)).astype(np.float32, copy=False).tobytes()

        with connection.makefile("rwb") as stream, contextlib.suppress(ConnectionError):
            while pictures := _read_pictures(stream):
                try:
                    right, data = True, answer(pictures)
                except Exception:
                    right, data = False, traceback.format_exc().encode("utf-8")
                stream.write(ANSWER_HEAD.pack(right, len(data)) + data)
                stream.flush()
