"""Worker processes that do tasks ahead of the caller: results in order and in bounded memory, or as futures.

Threads are not enough for networks and images: Paddle Inference holds Python's interpreter lock while a network runs.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import ModuleType
from typing import Any, Generic, NamedTuple, TypeVar

from paddle_resnet import signals
from paddle_resnet.errors import PaddleResNetError, RunFailure

Task = TypeVar("Task")
Result = TypeVar("Result")

PROCESS_NAME = "pool worker"
TASKS_AHEAD = 2  # tasks sent to each process: one that it works on, and the next one


class WorkerPool(Generic[Task, Result]):
    """Processes that each call ``make(*arguments)`` once, and then the function it returns for each of their tasks.

    They start at once and get ready in the background. They end with the block, or when this process dies. Functions,
    tasks and results are pickled, so `make` and `prepare` are top-level functions of modules. The user's script is
    not run again in them, so it needs no ``if __name__ == "__main__"``. `prepare` is called first, before the module of
    `make` is imported.
    """

    def __init__(
        self,
        processes: int,
        make: Callable[..., Callable[[Task], Result]],
        *arguments: Any,
        prepare: Callable[[], object] | None = None,
        name: str = PROCESS_NAME,
    ) -> None:
        context = multiprocessing.get_context("spawn")  # spawned: a fork of a process with threads (Paddle's) may hang
        self._workers = []
        self._threads: ThreadPoolExecutor | None = None
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        if hasattr(signal, "pthread_sigmask"):
            # Before the processes: where Python starts it, it unblocks SIGINT and SIGTERM in the end.
            with signals.blocked():
                resource_tracker.ensure_running()
        with signals.blocked(), _without_main_module():
            for _ in range(processes):
                here, there = context.Pipe()
                process = context.Process(target=_work, name=name, args=(there, prepare), daemon=True)
                process.start()
                there.close()
                here.send((make, arguments))
                self._workers.append(_Worker(process, here))

    def __enter__(self) -> WorkerPool[Task, Result]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def kill(self) -> None:
        """End the processes, also in the middle of a task, and do not wait for their end: futures get a RunFailure."""
        for worker in self._workers:
            worker.process.kill()  # they have nothing to save, and Paddle prints a page of text on SIGTERM

    def close(self) -> None:
        """End the processes, also in the middle of a task, and free what they took."""
        self.kill()
        if self._threads is not None:
            # Before the connections are closed: a thread would write to whatever is opened next under the same number.
            # Waiting tasks are not cancelled: their futures get the RunFailure of a dead process at once.
            self._threads.shutdown()
        for worker in self._workers:
            worker.connection.close()
            worker.process.join()

    @property
    def alive(self) -> bool:
        """Whether no process has ended."""
        return all(worker.process.is_alive() for worker in self._workers)

    def wait_until_ready(self, seconds: float | None = None) -> None:
        """Wait until `make` has returned in each process, for none longer than `seconds`; errors as of `results`."""
        if self._threads is None:
            for worker in self._workers:
                worker.receive(seconds)
                self._idle.put(worker)
            # A thread for each process waits for its results, so that the process never waits for a reader.
            self._threads = ThreadPoolExecutor(len(self._workers), thread_name_prefix="worker")

    def results(self, tasks: Iterable[Task]) -> Iterator[Result]:
        """Do the tasks and yield their results in order; each goes to the next process that is free.

        Tasks are taken from their iterator when they are needed, `TASKS_AHEAD` for each process. The UsageError or
        RunFailure of a task is raised, and a RunFailure if a process died.
        """
        pending: deque[Future[Result]] = deque()
        for task in tasks:
            if len(pending) == TASKS_AHEAD * len(self._workers):
                yield pending.popleft().result()
            pending.append(self.submit(task))
        for future in pending:
            yield future.result()

    def submit(self, task: Task) -> Future[Result]:
        """Give a task to the next process that is free; errors of the future are those of `results`."""
        self.wait_until_ready()
        assert self._threads is not None
        return self._threads.submit(self._do, task)

    def _do(self, task: Task) -> Result:
        worker = self._idle.get()
        try:
            worker.send(task)
            result: Result = worker.receive()
            return result
        finally:
            self._idle.put(worker)


class _Worker(NamedTuple):
    process: Any
    connection: Any  # a Connection, or on Windows a PipeConnection

    def send(self, task: Any) -> None:
        try:
            self.connection.send(task)
        except OSError as error:
            raise self._died() from error

    def receive(self, seconds: float | None = None) -> Any:
        try:
            if seconds is not None and not self.connection.poll(seconds):
                raise RunFailure(f"a worker process was not ready within {seconds:g} s")
            result = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if isinstance(result, PaddleResNetError):
            raise result
        return result

    def _died(self) -> RunFailure:
        self.process.join(1)
        return RunFailure(
            f"a worker process ended (code {self.process.exitcode}), as when memory runs out: take fewer of them, or "
            "smaller batches"
        )


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """Hide the caller's script from multiprocessing, which would run it again in each new process."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _work(connection: Connection, prepare: Callable[[], object] | None) -> None:
    """Do the tasks that the connection brings, until its other end is closed."""
    signals.ignore_in_worker()
    try:
        if prepare is not None:
            prepare()
        make, arguments = connection.recv()
        do = make(*arguments)
        connection.send(None)
        while True:
            connection.send(do(connection.recv()))
    except PaddleResNetError as error:
        connection.send(error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
