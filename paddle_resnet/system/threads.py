"""The number of threads of OpenMP, which oneDNN, MKL and Paddle's operators share, while the process runs.

A parallel operation ends when its last thread does. With as many threads as cores, another program on one of the cores
therefore delays every operation, and OpenMP's waiting threads yield their core to that program for a whole time slice.
Beside one busy program on one of two cores, two threads trained at a tenth of the speed of one (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import perf_counter, sleep

from paddle_resnet.paddle_compat import library_folder
from paddle_resnet.system import machine

LIBRARIES = ("libiomp5.so", "libiomp5md.dll")
"""OpenMP inside Paddle's wheels for Linux and Windows; those for macOS have none."""
OPENMP_OF_WINDOWS = "vcomp140.dll"
"""Which oneDNN uses in Paddle's wheels for Windows, beside the one inside, which MKL and Paddle's operators use."""

SECONDS = 0.3  # time that a measurement gives each number of threads, after one unmeasured call
LEAST_CALLS = 2
LEAST_GAIN = 1.15  # another number of threads is taken if it is faster by this factor, as measurements differ by chance
SHARE = 50  # the work lasts at least this many times as long as a measurement before the next one
SHARE_OF_CHANGE = 10  # the same where other programs have begun or ended since: their cores differ by `CHANGE`
CHANGE = 0.5
LEAST_LOAD = 0.1  # cores: where other programs use fewer, all cores are taken without a measurement
LEAST_WATCH = 0.25
"""Seconds. Systems count the time of processors in steps of 10 to 16 ms, so a shorter watch would see chance."""


class OtherPrograms:
    """How many cores the machine's other programs use. A pool of processes and the process that started it are one."""

    def __init__(self) -> None:
        self._before = self._read()
        self._cores: float | None = None

    def cores(self) -> float:
        """Return the cores that they have used on average since the last look, or since this object was made.

        The first look waits for `LEAST_WATCH` seconds. After a later one the same value is returned for so long.
        """
        passed = perf_counter() - self._before[0]
        if passed < LEAST_WATCH:
            if self._cores is not None:
                return self._cores
            sleep(LEAST_WATCH - passed)
        before, self._before = self._before, self._read()
        seconds, busy, own = (now - then for now, then in zip(self._before, before, strict=True))
        self._cores = max(0.0, busy - own) / seconds
        return self._cores

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """Return the time, and the seconds of all processors that were busy and of this program's processes."""
        import psutil  # the doctor needs this module where packages are missing

        times = psutil.cpu_times()
        busy = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
        parent = multiprocessing.parent_process()
        first, own = psutil.Process(parent.pid if parent and parent.is_alive() else None), 0.0
        for process in (first, *first.children(recursive=True)):
            with suppress(psutil.Error):  # it has ended meanwhile
                own += sum(process.cpu_times()[:4])  # user and system, of itself and of children that have ended
        return perf_counter(), busy, own


@functools.cache
def _openmp() -> list[ctypes.CDLL]:
    folder = library_folder()
    found = [str(folder / name) for name in LIBRARIES if (folder / name).is_file()]
    if os.name == "nt":
        found.append(OPENMP_OF_WINDOWS)
    # oneDNN names GNU's OpenMP as its own. Where Paddle has not loaded both, it finds this one because it is global.
    mode = ctypes.DEFAULT_MODE if "paddle" in sys.modules else ctypes.RTLD_GLOBAL
    return [ctypes.CDLL(name, mode) for name in found]


def load() -> None:
    """Load OpenMP, so that oneDNN uses it whether Paddle is imported before, afterwards or not at all."""
    _openmp()


def can_change() -> bool:
    """Return whether this Paddle's OpenMP is known, so that the number of threads can be changed."""
    return bool(_openmp())


def count() -> int:
    """Return the number of threads that the calling thread's operations use; 1 where OpenMP is not known."""
    return max([get() for get in _counters()], default=1)


@functools.cache
def _counters() -> list[Callable[[], int]]:
    return [library.omp_get_max_threads for library in _openmp()]


def use(number: int) -> None:
    """Let the operations that the calling thread starts use `number` threads from now on."""
    for library in _openmp():
        library.omp_set_num_threads(number)


def candidates(cores: int) -> list[int]:
    """Return the numbers of threads worth measuring: all cores first, one fewer, half of them, and one."""
    return list(dict.fromkeys(n for n in (cores, cores - 1, cores // 2, 1) if n > 0))


def with_count(number: int, work: Callable[[], object]) -> Callable[[], None]:
    """Return a function that does `work` with this number of threads, which stays in use."""

    def do() -> None:
        use(number)
        work()

    return do


def fastest(works: Mapping[int, Callable[[], object]]) -> tuple[int, dict[int, float]]:
    """Measure the same work with each number of threads, by turns, so that a change of the load meets them all.

    One call of a work is measured many times. The first number wins unless another is faster by `LEAST_GAIN`.

    Returns:
        The best number, and the seconds of a call by number.
    """
    taken: dict[int, list[float]] = {number: [] for number in works}
    for work in works.values():
        work()
    while any(sum(seconds) < SECONDS or len(seconds) < LEAST_CALLS for seconds in taken.values()):
        for number, seconds in taken.items():
            turn_ends = perf_counter() + SECONDS / 3
            while not seconds or perf_counter() < turn_ends:
                started = perf_counter()
                works[number]()
                seconds.append(perf_counter() - started)
    means = {number: sum(seconds) / len(seconds) for number, seconds in taken.items()}
    best = next(iter(means))
    for number, mean in means.items():
        if mean * LEAST_GAIN < means[best]:
            best = number
    return best, means


class ThreadChooser:
    """The number of threads of a long work, chosen anew as other programs come and go.

    The first one of `numbers` (`candidates`) is taken while no other program is busy; `number` is the one to use.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers
        self._most = self.number = numbers[0]
        self._others = OtherPrograms()
        self._load = 0.0  # of the last measurement, or none since
        self._measured_at: float | None = None
        self._cost = 0.0

    def choose(self, clock: float, measure: Callable[[int], tuple[int, dict[int, float]]]) -> str:
        """Choose `number`; return a line for the log if it changed, and otherwise an empty one.

        Args:
            clock: seconds of the work so far, from any beginning.
            measure: returns what `fastest` does; called if it is time for it, with the number to try first, which
                leaves the other programs their cores.
        """
        load = self._others.cores()
        if load < LEAST_LOAD:
            self._load = load
            return self.take(self._most, f" (other programs use {load:.2f} cores)")
        share = SHARE if abs(load - self._load) < CHANGE else SHARE_OF_CHANGE
        if self._measured_at is not None and clock < self._measured_at + share * self._cost:
            return ""
        started = perf_counter()
        left = max(1, self._most - round(load))
        best, seconds = measure(max(number for number in self._numbers if number <= left))
        self._load, self._measured_at, self._cost = load, clock, perf_counter() - started
        shares = ", ".join(f"{number}: {seconds[best] / seconds[number]:.2f}" for number in sorted(seconds))
        return self.take(best, f" (relative speeds {shares})")

    def take(self, number: int, why: str = "") -> str:
        """Set `number`; return what `choose` does."""
        if number == self.number:
            return ""
        line = f"threads: {number} instead of {self.number}{why}"
        self.number = number
        return line


def usable() -> list[int]:
    """Return the `candidates` of this process."""
    return candidates(machine.physical_cores())
