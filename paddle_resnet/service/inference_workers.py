"""The network in processes of its own, which decode the pictures too: encoded pictures in, scores out.

Decoding and computing keep Python's lock for a good part of their time (Paddle 3.3.1's `predictor.run` for all of it):
in the service's own process nothing would be received or answered meanwhile. And what a decoder makes of a hostile
picture, in time, memory or a crash, is not the service's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import multiprocessing
import signal
import socket
import struct
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BufferedRWPair
from itertools import repeat

import numpy as np

from paddle_resnet.errors import PaddleResNetError, RunFailure
from paddle_resnet.images.decode import decode_pil_image
from paddle_resnet.inference.predictor import predict_batch
from paddle_resnet.service.batcher import AT_ONCE, WorkerDied
from paddle_resnet.service.logs import json_output, log
from paddle_resnet.service.pictures import Result, Verdict, decode
from paddle_resnet.service.settings import Settings

ANSWER_HEAD = struct.Struct("<?I")
"""Whether an answer follows (at the start: an empty one), or why there is none; and of how many bytes."""
QUESTION_HEAD = struct.Struct("<?I")
"""Whether it is a costly picture, and how many pictures there are."""
START_SECONDS = 300.0
LONGEST_DELAY = 60.0
"""Seconds between two tries to start a process."""
BATCH_SECONDS = 0.3
"""Of decoding, after which a batch is computed without the pictures that have not been begun."""


class Network:
    """`settings.streams` processes, each with the model loaded and every size of a batch tried.

    They start with this object; `wait_until_ready` waits for them, `open` is called on the event loop.
    """

    def __init__(self, settings: Settings, image_size: int, classes: int) -> None:
        self._sizes = image_size, classes
        self._computers = [_Computer(settings, image_size) for _ in range(settings.streams)]

    @property
    def live(self) -> int:
        """How many processes can be asked."""
        return sum(computer.ready for computer in self._computers)

    @property
    def whole(self) -> bool:
        """False where a process has died and no other could take its place so far."""
        return not any(computer.problem for computer in self._computers)

    @property
    def alive(self) -> bool:
        """False where none can be asked, and none could be started."""
        return self.live > 0 or self.whole

    def wait_until_ready(self) -> None:
        """Wait until all processes answer.

        Raises:
            RunFailure: one did not start.
        """
        for computer in self._computers:
            if computer.process is not None:
                computer.process.wait_until_ready()

    async def open(self, changed: Callable[[], object], restarted: Callable[[], object]) -> None:
        """Connect this event loop to the processes.

        Args:
            changed: is called when `live` has changed.
            restarted: is called when a process has taken another's place.
        """
        for computer in self._computers:
            await computer.open(changed, restarted)

    async def answer(self, pictures: Sequence[bytes], costly: bool = False) -> list[Result]:
        """Give what comes of each picture.

        The process with the least to do gets them; it does what it gets one after the other.

        Args:
            pictures: the files.
            costly: decode it (it is one) however long it takes within the limits, and give its pixels too.

        Raises:
            RunFailure: the call failed.
            WorkerDied: its process did, and another takes its place.
        """
        live = [computer for computer in self._computers if computer.ready]
        if not live:
            raise WorkerDied(computing=False)
        answer = await min(live, key=lambda each: each.load).ask(pictures, costly)
        return unpack_results(answer, len(pictures), *self._sizes, costly)

    async def close(self) -> None:
        """End the processes; none computes any more."""
        for computer in self._computers:
            await computer.close()


class _Computer:
    """A process, and others after it if it dies."""

    def __init__(self, settings: Settings, image_size: int) -> None:
        self._make = partial(_Process, settings, image_size)
        self._sleep = asyncio.sleep
        self.process: _Process | None = self._make()
        """None while another is on its way."""
        self.load = 0
        """Batches that it has; a costly picture counts as many as it is given at once."""
        self.problem = ""
        """Why there is no process, if there was one that could not be replaced."""
        self._tries = 0
        self._starting: _Process | None = None
        self._replacement: asyncio.Task[None] | None = None
        self._changed: Callable[[], object] = lambda: None
        self._restarted: Callable[[], object] = lambda: None

    @property
    def ready(self) -> bool:
        return self.process is not None and not self.process.dead

    async def open(self, changed: Callable[[], object], restarted: Callable[[], object]) -> None:
        self._changed, self._restarted = changed, restarted
        if self.process is not None:
            await self.process.open(self._process_ended)

    async def ask(self, pictures: Sequence[bytes], costly: bool) -> bytes:
        assert self.process is not None
        weight = AT_ONCE if costly else 1
        self.load += weight
        try:
            answer = await self.process.ask(pictures, costly)
        finally:
            self.load -= weight
        self._tries = 0
        return answer

    async def close(self) -> None:
        if self._replacement is not None and not self._replacement.done():
            if self._starting is not None:
                self._starting.kill()
            self._replacement.cancel()
            await asyncio.wait([self._replacement])
        for process in (self._starting, self.process):
            if process is not None:
                await process.end()

    def _process_ended(self) -> None:
        """Replace it at once, whether or not somebody waits for it."""
        dead, self.process = self.process, None
        log("a network process died, and is replaced", logging.ERROR)
        self._replacement = asyncio.get_running_loop().create_task(self._replace(dead))

    async def _replace(self, dead: _Process | None) -> None:
        """Start processes until one is ready, at once and then less and less often while none has answered."""
        if dead is not None:
            await dead.end()
        while True:
            await self._sleep(min(LONGEST_DELAY, 2.0 ** (self._tries - 1)) if self._tries else 0.0)
            self._tries += 1
            if not (problem := await self._start()):
                break
            if problem != self.problem:
                log("a network process cannot be replaced; it is tried again", logging.ERROR, reason=problem)
            self.problem = problem
        if self.problem:
            log("a network process is replaced at last")
        self.problem = ""
        self._restarted()
        self._changed()

    async def _start(self) -> str:
        """Start a process; return why that failed, or nothing."""
        try:
            self._starting = self._make()
            await asyncio.to_thread(self._starting.wait_until_ready)
            await self._starting.open(self._process_ended)
        except (RunFailure, OSError) as error:  # OSError: no memory, or too many files
            failed, self._starting = self._starting, None
            if failed is not None:
                failed.kill()
                await failed.end()
            return str(error)
        self.process, self._starting = self._starting, None
        return ""


class _Process:
    """One process, and the socket to it."""

    def __init__(self, settings: Settings, image_size: int) -> None:
        context = multiprocessing.get_context("spawn")  # a copy of a process with threads would be broken
        self._socket, theirs = socket.socketpair()
        self._process = context.Process(target=_compute, args=(settings, image_size, theirs), daemon=True)
        try:
            self._process.start()
        except OSError:
            self._socket.close()
            raise
        finally:
            theirs.close()  # so that its end is seen here
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._patience = settings.answer_seconds
        self.dead = False

    def wait_until_ready(self) -> None:
        self._socket.settimeout(START_SECONDS)
        try:
            right, length = ANSWER_HEAD.unpack(self._receive(ANSWER_HEAD.size))
            reason = self._receive(length).decode("utf-8", "replace")
        except TimeoutError:
            right, reason = False, f"a process that computes was not ready within {START_SECONDS:g} s"
        except (OSError, struct.error):
            right, reason = False, "a process that computes ended while it started; its message stands above"
        if not right:
            raise RunFailure(reason)

    def _receive(self, length: int) -> bytes:
        return self._socket.recv(length, socket.MSG_WAITALL) if length else b""

    async def open(self, ended: Callable[[], None]) -> None:
        """Connect the event loop, and call `ended` when the process ends by itself."""
        self._socket.setblocking(False)
        self._streams = await asyncio.open_unix_connection(sock=self._socket)
        self._reading = asyncio.Lock()  # fair: calls read in the order in which they have written
        loop = asyncio.get_running_loop()

        def notice() -> None:
            loop.remove_reader(self._process.sentinel)
            self.dead = True
            ended()

        loop.add_reader(self._process.sentinel, notice)

    async def ask(self, pictures: Sequence[bytes], costly: bool) -> bytes:
        """Let the process answer; it is killed if it computes longer than anybody waits for an answer.

        Raises:
            RunFailure: the call failed.
            WorkerDied: the process did.
        """
        assert self._streams is not None
        reader, writer = self._streams
        if self.dead or writer.is_closing():
            raise WorkerDied(computing=False)
        writer.writelines([pack_lengths(pictures, costly), *pictures])
        async with self._reading:
            if self.dead:
                raise WorkerDied(computing=False)
            alarm = asyncio.get_running_loop().call_later(self._patience, self._process.kill)
            try:
                right, length = ANSWER_HEAD.unpack(await reader.readexactly(ANSWER_HEAD.size))
                answer = await reader.readexactly(length)
            except (EOFError, OSError):
                self.dead = True
                self._process.kill()  # where it has closed its connection alone: another is to take its place
                raise WorkerDied(computing=True) from None
            finally:
                alarm.cancel()
        if not right:
            raise RunFailure(answer.decode("utf-8"))
        return answer

    def kill(self) -> None:
        self._process.kill()

    async def end(self) -> None:
        """Let the process finish what it does, for as long as anybody would wait for that."""
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
        self._process.join(self._patience)
        self._process.kill()
        self._process.join()


def pack_lengths(pictures: Sequence[bytes], costly: bool) -> bytes:
    """What is sent to a process ahead of the pictures."""
    return QUESTION_HEAD.pack(costly, len(pictures)) + struct.pack(f"<{len(pictures)}I", *map(len, pictures))


def read_pictures(stream: BufferedRWPair) -> tuple[list[bytes], bool]:
    """What `pack_lengths` announces, and whether it is costly; no pictures at the end of the stream."""
    head = stream.read(QUESTION_HEAD.size)
    if len(head) < QUESTION_HEAD.size:
        return [], False
    costly, images = QUESTION_HEAD.unpack(head)
    return [stream.read(length) for length in struct.unpack(f"<{images}I", stream.read(4 * images))], costly


def pack_results(results: Sequence[Result], costly: bool) -> bytes:
    """Verdicts (a byte each), seconds (float32), the scores of what was read, and of a costly picture its pixels."""
    read = [each for each in results if each.scores is not None]
    arrays = [np.array([each.seconds for each in results], np.float32)]
    arrays += [np.asarray(each.scores, np.float32) for each in read]
    arrays += [each.pixels for each in read if costly and each.pixels is not None]
    return bytes(each.verdict for each in results) + b"".join(array.tobytes() for array in arrays)


def unpack_results(answer: bytes, images: int, image_size: int, classes: int, costly: bool) -> list[Result]:
    """Read what `pack_results` wrote."""
    verdicts = [Verdict(byte) for byte in answer[:images]]
    read = verdicts.count(Verdict.READ)
    seconds = np.frombuffer(answer, np.float32, images, offset=images).tolist()
    rows = iter(np.frombuffer(answer, np.float32, read * classes, offset=5 * images).reshape(read, classes))
    shape = (read, image_size, image_size, 3)
    shown = np.frombuffer(answer, np.uint8, offset=5 * images + 4 * read * classes) if costly else None
    pixels = iter(() if shown is None else shown.reshape(shape))
    return [
        Result(verdict, next(rows), next(pixels, None)) if verdict is Verdict.READ else Result(verdict, seconds=cost)
        for verdict, cost in zip(verdicts, seconds, strict=True)
    ]


def compute(
    pictures: Sequence[bytes],
    decode_one: Callable[[bytes], Result],
    scores: Callable[[np.ndarray], np.ndarray],
    each: Callable[..., Iterable[Result]] = map,
    clock: Callable[[], float] = time.monotonic,
) -> list[Result]:
    """Decode the pictures of a batch, and compute those that were read.

    What has not been begun after `BATCH_SECONDS` is left for `Verdict.LATER`: the batches behind this one wait too.
    """
    end = clock() + BATCH_SECONDS

    def decode_in_time(numbered: tuple[int, bytes]) -> Result | np.ndarray:
        number, data = numbered
        result = decode_one(data) if number == 0 or clock() < end else Result(Verdict.LATER)
        return result if result.pixels is None else result.pixels

    def to_results(images: np.ndarray) -> Iterable[Result]:
        return map(Result, repeat(Verdict.READ), scores(images), images)

    return predict_batch(enumerate(pictures), decode_in_time, to_results, each)


@json_output()
def _compute(settings: Settings, image_size: int, connection: socket.socket) -> None:
    """What a process does until the other end of the connection is closed."""
    # They may be meant for all processes: accepted work is done first.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    from paddle_resnet import runtime

    runtime.import_paddle()
    from paddle_resnet.service.settings import load_predictor

    try:
        predictor = load_predictor(settings)
    except PaddleResNetError as error:
        reason = str(error).encode("utf-8", "replace")
        connection.sendall(ANSWER_HEAD.pack(False, len(reason)) + reason)
        return
    with predictor, ThreadPoolExecutor(settings.decoders) as threads, connection:
        for images in range(1, settings.max_batch + 1):  # oneDNN prepares itself for each shape: time and memory
            predictor.scores(np.zeros((images, image_size, image_size, 3), np.uint8))
        connection.sendall(ANSWER_HEAD.pack(True, 0))
        # A thread more is of no use to one core, and costs as much as decoding a small picture does.
        each: Callable[..., Iterable[Result]] = map if settings.decoders == 1 else threads.map

        size = predictor.config.input
        to_pixels = partial(decode_pil_image, resize=size.resize, image_size=size.image_size, name="a picture")
        decode_one = partial(
            decode, max_pixels=settings.max_pixels, to_pixels=to_pixels, seconds=settings.picture_seconds
        )
        with connection.makefile("rwb") as stream, contextlib.suppress(ConnectionError):
            while (question := read_pictures(stream))[0]:
                pictures, costly = question
                try:
                    results = compute(pictures, partial(decode_one, light=not costly), predictor.scores, each)
                    right, data = True, pack_results(results, costly)
                except Exception:
                    right, data = False, traceback.format_exc().encode("utf-8")
                stream.write(ANSWER_HEAD.pack(right, len(data)) + data)
                stream.flush()
                if costly:
                    give_memory_back()


def give_memory_back() -> None:
    """Return to the system what large pictures and bodies took: glibc keeps tens of megabytes of it for the next."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
