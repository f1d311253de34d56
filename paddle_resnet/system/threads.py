"""The number of threads of OpenMP, which oneDNN, MKL and Paddle's operators share, while the process runs.

A parallel operation ends when its last thread does. With as many threads as cores, another program on one of the cores
therefore delays every operation, and OpenMP's waiting threads yield their core to that program for a whole time slice.
Beside one busy program on one of two cores, two threads trained at a tenth of the speed of one (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, process_time

from paddle_resnet.system import machine

LIBRARIES = ("libiomp5.so", "libiomp5md.dll")
"""OpenMP inside Paddle's wheels for Linux and Windows; those for macOS have none."""

SECONDS = 0.3
"""Time that a measurement gives each number of threads, after one unmeasured call."""
LEAST_CALLS = 2
LEAST_GAIN = 1.03
"""Another number of threads is taken if it is faster by this factor, as measurements differ by chance."""


class OtherPrograms:
    """How many cores the machine's other programs use."""

    def __init__(self) -> None:
        self._before = self._read()

    def cores(self) -> float:
        """Return the cores that they have used on average since the last call, or since this object was made."""
        before, self._before = self._before, self._read()
        seconds, busy, own = (now - then for now, then in zip(self._before, before, strict=True))
        return max(0.0, busy - own) / seconds if seconds > 0 else 0.0

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """Return the time, and the seconds of all processors that were busy and of this process."""
        import psutil  # the doctor needs this module where packages are missing

        times = psutil.cpu_times()
        busy = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
        return perf_counter(), busy, process_time()


@functools.cache
def _openmp() -> ctypes.CDLL | None:
    import paddle

    folder = Path(paddle.__file__).parent / "libs"
    found = [folder / name for name in LIBRARIES if (folder / name).is_file()]
    return ctypes.CDLL(str(found[0])) if found else None


def can_change() -> bool:
    """Return whether this Paddle's OpenMP is known, so that the number of threads can be changed."""
    return _openmp() is not None


def count() -> int:
    """Return the number of threads that the calling thread's operations use; 1 where OpenMP is not known."""
    library = _openmp()
    return 1 if library is None else int(library.omp_get_max_threads())


def use(number: int) -> None:
    """Let the operations that the calling thread starts use `number` threads from now on."""
    library = _openmp()
    if library is not None:
        library.omp_set_num_threads(number)


def candidates(cores: int) -> list[int]:
    """Return the numbers of threads worth measuring: all cores first, one fewer, half of them, and one."""
    return list(dict.fromkeys(n for n in (cores, cores - 1, cores // 2, 1) if n > 0))


def fastest(work: Callable[[], object], numbers: Sequence[int]) -> tuple[int, dict[int, float]]:
    """Measure `work` with each number of threads, by turns, so that a change of the load meets them all.

    Args:
        work: one call of it is measured many times.
        numbers: of threads; the first one wins unless another is faster by `LEAST_GAIN`.

    Returns:
        The best number, which is in use from then on, and the seconds of a call by number.
    """
    taken: dict[int, list[float]] = {number: [] for number in numbers}
    for number in numbers:
        use(number)
        work()
    while any(sum(seconds) < SECONDS or len(seconds) < LEAST_CALLS for seconds in taken.values()):
        for number, seconds in taken.items():
            use(number)
            turn_ends = perf_counter() + SECONDS / 3
            while not seconds or perf_counter() < turn_ends:
                started = perf_counter()
                work()
                seconds.append(perf_counter() - started)
    means = {number: sum(seconds) / len(seconds) for number, seconds in taken.items()}
    best = numbers[0]
    for number in numbers[1:]:
        if means[number] * LEAST_GAIN < means[best]:
            best = number
    use(best)
    return best, means


def usable() -> list[int]:
    """Return the `candidates` of this process."""
    return candidates(machine.physical_cores())
