"""What the worker pool's tests give it to do: a module of its own, as each process imports it (and not paddle)."""

from __future__ import annotations

import os
import signal
import time

from paddle_resnet.errors import UsageError


def slow_square(offset):
    """The later a task, the sooner it is done: an order that came from the processes would be turned round."""

    def square(task):
        time.sleep(0.02 * (4 - task % 4))
        return os.getpid(), task * task + offset

    return square


def exit_at(number):
    def work(task):
        if task == number:
            os._exit(7)
        return task

    return work


def refuse():
    raise UsageError("not this model")


def as_long(size):
    """Answers with as many bytes as it is told to."""
    return lambda task: bytes(size)


def blocked_signals():
    """Answers with the signals that the process blocks."""
    return lambda task: sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
