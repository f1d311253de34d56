"""The network in processes of its own.

Paddle 3.3.1's `predictor.run` keeps Python's lock while it computes: in the service's own process nothing would be
received, decoded or answered meanwhile, and two threads would compute one after the other.
"""

from __future__ import annotations

import logging
import multiprocessing
import queue
import signal
import traceback
from multiprocessing.connection import Connection

import numpy as np

from paddle_resnet.errors import RunFailure
from paddle_resnet.service.logs import log
from paddle_resnet.service.settings import Settings

READY = b"ready"
FAILED = b""
"""Stands before the traceback of a call that failed; scores are never empty."""


class Network:
    """`settings.streams` processes, each with the model loaded and every size of a batch tried.

    Raises:
        RunFailure: one did not start.
    """

    def __init__(self, settings: Settings, image_size: int, classes: int) -> None:
        self._settings = settings
        self._shape = (-1, image_size, image_size, 3)
        self._classes = classes
        self._idle: queue.SimpleQueue[_Computer] = queue.SimpleQueue()
        computers = [_Computer(settings, self._shape) for _ in range(settings.streams)]
        for computer in computers:
            computer.wait_until_ready()
            self._idle.put(computer)

    def scores(self, batch: np.ndarray) -> np.ndarray:
        """Uint8 ``[N, S, S, 3]`` to float32 ``[N, classes]``, from any thread; others run meanwhile.

        Raises:
            RunFailure: the call failed, or its process died; another takes its place.
        """
        computer = self._idle.get()
        try:
            return computer.ask(batch).reshape(len(batch), self._classes)
        except (EOFError, OSError):
            log("a network process died, and is replaced", logging.ERROR)
            computer.end()
            computer = _Computer(self._settings, self._shape)
            computer.wait_until_ready()
            raise RunFailure("a process that computes died") from None
        finally:
            self._idle.put(computer)

    def close(self) -> None:
        """End the processes, when each has answered."""
        for _ in range(self._settings.streams):
            self._idle.get().end()


class _Computer:
    """One process, and the pipe to it."""

    def __init__(self, settings: Settings, shape: tuple[int, ...]) -> None:
        context = multiprocessing.get_context("spawn")  # a copy of a process with threads would be broken
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_compute, args=(settings, shape, theirs), daemon=True)
        self._process.start()
        theirs.close()  # so that its end is seen here

    def wait_until_ready(self) -> None:
        try:
            ready = self._pipe.recv_bytes() == READY
        except (EOFError, OSError):
            ready = False
        if not ready:
            raise RunFailure("a process that computes could not start; its message stands above")

    def ask(self, batch: np.ndarray) -> np.ndarray:
        self._pipe.send_bytes(batch.tobytes())
        answer = self._pipe.recv_bytes()
        if answer == FAILED:
            raise RunFailure(self._pipe.recv_bytes().decode("utf-8"))
        return np.frombuffer(answer, np.float32)

    def end(self) -> None:
        self._pipe.close()
        self._process.join()


def _compute(settings: Settings, shape: tuple[int, ...], pipe: Connection) -> None:
    """What a process does until the other end of the pipe is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they may be meant for all processes: accepted work is done first
        signal.signal(number, signal.SIG_IGN)
    from paddle_resnet import runtime

    runtime.import_paddle()
    from paddle_resnet.service.predictors import load

    with load(settings) as predictor:
        for images in range(1, settings.max_batch + 1):  # oneDNN prepares itself for each shape: time and memory
            predictor.scores(np.zeros((images, *shape[1:]), np.uint8))
        pipe.send_bytes(READY)
        while True:
            try:
                batch = np.frombuffer(pipe.recv_bytes(), np.uint8).reshape(shape)
            except (EOFError, OSError):
                return
            try:
                answer = predictor.scores(batch)
            except Exception:
                pipe.send_bytes(FAILED)
                pipe.send_bytes(traceback.format_exc().encode("utf-8"))
            else:
                pipe.send_bytes(np.ascontiguousarray(answer, np.float32).tobytes())
