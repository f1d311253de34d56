"""The process before paddle is imported (threads, BLAS path), and after: device and seeds.

By default, Paddle runs on one thread, and the MKL inside it takes a slow path on AMD processors. Environment variables
change both. They are read once, so they must be set before paddle is imported. A variable that the user set is never
changed.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import io
import logging
import os
import random
import re
import sys
import threading
import warnings
from dataclasses import dataclass, replace

from paddle_resnet import distributed, paddle_compat, signals
from paddle_resnet.errors import UsageError, require_count
from paddle_resnet.system import machine
from paddle_resnet.system import threads as openmp
from paddle_resnet.system.machine import physical_cores

DEVICE_NAMES = r"auto|cpu|gpu(:\d+)?"
MOST_THREADS = 256

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGEST_BLOCK = 1 << 30  # bytes of the largest block on malloc's heap; larger blocks are mapped by the system each time
KEPT_AT_MOST = (1 << 31) - 1  # free bytes at the end of the heap above which malloc returns memory to the system
ALLOCATOR_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "LD_PRELOAD", "GLIBC_TUNABLES")
"""Environment variables with which users choose an allocator or its settings."""


@dataclass(frozen=True)
class Setting:
    """An environment variable that Paddle's libraries read once."""

    variable: str
    value: str | None  # None: it is not set
    origin: str  # where the value comes from, in words for the log
    preset: bool = False  # the variable was set already, and is unchanged

    def __str__(self) -> str:
        return self.origin if self.value is None else f"{self.variable}={self.value} ({self.origin})"


@dataclass(frozen=True)
class ProcessSetup:
    """The settings that `prepare_process` found or chose."""

    threads: Setting
    blas_threads: Setting
    blas_path: Setting
    paddle_was_imported: bool
    dynamic_forbidden: bool = False  # OMP_DYNAMIC was set, and is not any more

    def __str__(self) -> str:
        blas_threads = f", for BLAS {self.blas_threads}" if self.blas_threads.preset else ""
        line = f"threads {self.threads}{blas_threads}; BLAS path {self.blas_path}"
        if self.dynamic_forbidden:
            line += "; OMP_DYNAMIC is set to false, as training would never end with it"
        if self.paddle_was_imported:
            line += (
                "; paddle was imported first, so the BLAS path may come too late: import paddle_resnet before paddle"
            )
        return line


_setup: ProcessSetup | None = None
_importing = threading.Lock()


def prepare(threads: int | None = None, *, log: bool = True) -> ProcessSetup:
    """Import paddle without its warnings, with the right threads and BLAS path, and show this package's log lines.

    `import paddle_resnet` has chosen one thread a physical core and MKL's fast path. This call is for another number of
    threads, and for log lines and progress in a notebook or script; the commands begin with it.

        >>> import paddle_resnet
        >>> setup = paddle_resnet.prepare(threads=2)
        >>> setup.threads.value
        '2'

    Args:
        threads: of Paddle's and oneDNN's operations; None: those in use.
        log: print log lines on standard output. Without it, `logging.getLogger("paddle_resnet")` has them.

    Returns:
        The settings in use, and where they come from; `str` of it is a line.

    Raises:
        UsageError: `threads` is not from 1 to 256, or this Paddle's threads cannot be changed any more.
    """
    global _setup
    setup = prepare_process()
    if threads is not None:
        require_count("threads", threads, MOST_THREADS)
        if "paddle" in sys.modules and not openmp.can_change():
            raise UsageError(f"threads {threads}: paddle is imported already; set OMP_NUM_THREADS before its import")
        os.environ["OMP_NUM_THREADS"] = str(threads)
        _setup = setup = replace(setup, threads=Setting("OMP_NUM_THREADS", str(threads), "set by you", preset=True))
    import_paddle()
    ignore_paddle_warnings()
    if threads is not None:
        openmp.use(threads)
    if log:
        from paddle_resnet import console

        console.show_log_lines()
    return setup


def prepare_process() -> ProcessSetup:
    """Set the number of threads and the BLAS path, once; variables that the user set stay."""
    global _setup
    if _setup is None:
        # Before paddle: 2.6 exports zlib's symbols, and Python's zlib would use those and crash.
        importlib.import_module("zlib")
        # Paddle sets OMP_NUM_THREADS itself when it is imported.
        already_imported = "paddle" in sys.modules
        by = "set by you, or by paddle as it was imported" if already_imported else "set by you"
        path, own = mkl_path(machine.processor()), "MKL's own choice"
        _setup = ProcessSetup(
            dynamic_forbidden=_forbid_dynamic_threads(),
            threads=_thread_setting(by),
            # MKL reads its own variable first; oneDNN and Paddle's operators do not read it.
            blas_threads=_choose("MKL_NUM_THREADS", None, "as many as elsewhere", by),
            blas_path=_choose("MKL_DEBUG_CPU_TYPE", path, "MKL's fast path on this AMD processor" if path else own, by),
            paddle_was_imported=already_imported,
        )
        if already_imported and distributed.launched().world_size == 1:
            _mend_late_import(_setup)
    return _setup


def _mend_late_import(setup: ProcessSetup) -> None:
    """Use the chosen threads though paddle was imported first, where its OpenMP is known, and say so."""
    cores, number = physical_cores(), thread_count(setup.threads)
    if setup.threads.preset or cores == 1 or number is None:
        return
    logger = logging.getLogger("paddle_resnet")  # `console.logger`, which needs rich
    if openmp.can_change():
        openmp.use(number)
        logger.warning("paddle was imported before paddle_resnet, with 1 thread: it uses %d from now on", number)
    else:
        logger.warning(
            "warning: paddle was imported before paddle_resnet, and uses 1 thread: import paddle_resnet first"
        )


def _forbid_dynamic_threads() -> bool:
    """Unset OMP_DYNAMIC; return whether it was set.

    With it OpenMP may start fewer threads than a oneDNN primitive was compiled for, whose barrier then waits for ever.
    """
    if os.environ.get("OMP_DYNAMIC", "").strip().lower() not in ("true", "1", "yes", "on", "t", "y"):
        return False
    os.environ["OMP_DYNAMIC"] = "false"
    return True


def _thread_setting(by: str) -> Setting:
    variable, sharing = "OMP_NUM_THREADS", distributed.launched().local_world_size
    origin = "the cores this process may use"
    if sharing > 1:
        origin = f"its share of the cores, of {sharing} processes"
    # Paddle's import sets it, in the launcher, or to 1 in this process before this package was imported.
    by_paddle = sharing > 1 or ("paddle" in sys.modules and os.environ.get(variable) == "1")
    if by_paddle and not distributed.set_by_user(variable):
        os.environ.pop(variable, None)
    setting = _choose(variable, str(max(1, physical_cores() // sharing)), origin, by)
    if thread_count(setting) is None:
        return replace(setting, origin=f"{by}; not a number of threads, so Paddle takes 1")
    return setting


def thread_count(setting: Setting) -> int | None:
    """Return the number of threads of a setting; None if its value is not one."""
    digits = (setting.value or "").strip()
    return int(digits) if digits.isdecimal() and int(digits) > 0 else None


def default_threads() -> int:
    """Return OMP_NUM_THREADS, which `prepare_process` sets unless the user did; the first of a list."""
    prepare_process()
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else physical_cores()


def _choose(variable: str, value: str | None, origin: str, by: str) -> Setting:
    """Set an environment variable unless it is set; return its value and origin."""
    if variable in os.environ:
        return Setting(variable, os.environ[variable], by, preset=True)
    if value is not None:
        os.environ[variable] = value
    return Setting(variable, value, origin)


def mkl_path(processor: machine.Processor) -> str | None:
    """Return the fastest MKL_DEBUG_CPU_TYPE: "7" for AMD with AVX-512, "5" for AMD with AVX2, otherwise None."""
    if processor.vendor != "AuthenticAMD":
        return None
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= processor.features:
        return "7"
    return "5" if {"avx2", "fma"} <= processor.features else None


def keep_freed_memory() -> bool:
    """Let glibc's ``malloc`` keep freed memory for the next step; return whether it does.

    By default it returns large blocks, such as a batch of feature maps or a decoded photograph, to the system, and then
    faults thousands of zeroed pages in again. Settings in the environment (`ALLOCATOR_VARIABLES`) have precedence.
    """
    if os.name == "nt" or any(name in os.environ for name in ALLOCATOR_VARIABLES):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT_AT_MOST))


def release_memory() -> None:
    """Return freed memory to the system: glibc keeps tens of megabytes of large images and models for the next."""
    trim = None if os.name == "nt" else getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def import_paddle() -> None:
    """Import paddle without its warnings about OMP_NUM_THREADS (meant for OpenBLAS builds) and ccache.

    Signals are blocked meanwhile: paddle sets a handler of its own in C, which prints pages of text.
    """
    with _importing, signals.blocked():
        if sys.modules.get("paddle") is None:
            with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                import paddle  # noqa: F401
        signals.restore_handlers()


def ignore_paddle_warnings() -> None:
    """Hide the warnings of Paddle about its own code: `paddle.Model` copies batches, BatchNorm trains."""
    warnings.filterwarnings("ignore", "To copy construct from a tensor", UserWarning)
    warnings.filterwarnings("ignore", "When training, we now always track", UserWarning)


def select_device(name: str = "auto") -> str:
    """Make what `resolve_device` returns Paddle's current device, and return it."""
    device = resolve_device(name)
    import paddle

    paddle.device.set_device(device)
    return device


def resolve_device(name: str = "auto") -> str:
    """Return the device that `name` (auto, cpu, gpu, gpu:<i>) means, as Paddle names it ("cpu", "gpu:0").

    Each of several launched processes gets the GPU that the launcher gave it. Only a Paddle for GPUs is imported.

    Raises:
        UsageError: the name is unknown; or this Paddle or this machine has no such GPU; or a GPU was named, and there
            are several processes.
    """
    if not re.fullmatch(DEVICE_NAMES, str(name)):
        raise UsageError(f"device {name}: expected auto, cpu, gpu or gpu:<number>")
    if name == "cpu":
        return name
    gpus, reason = _count_gpus()
    own = f"gpu:{distributed.local_gpu()}"
    if name.startswith("gpu:") and distributed.launched().world_size > 1:
        raise UsageError(f"device {name}: each of several processes has its own; use gpu, and the launcher's --gpus")
    if name == "auto":
        chosen = own if gpus else "cpu"
        if not gpus:
            _log_once(f"device auto: running on the CPU ({reason})")
    else:
        chosen = own if name == "gpu" else name
    if chosen != "cpu" and int(chosen.removeprefix("gpu:")) >= gpus:
        found = reason if gpus == 0 else f"the last of the {gpus} found is gpu:{gpus - 1}"
        raise UsageError(f"device {name}: {found}; use device cpu, or auto")
    return chosen


def _count_gpus() -> tuple[int, str]:
    """Return how many GPUs Paddle can use here, and the reason if there are none."""
    folder = paddle_compat.paddle_folder()
    if folder is None:
        return 0, "Paddle is not installed"
    if "paddle" in sys.modules or not paddle_compat.is_cpu_build(folder):
        import_paddle()
        import paddle

        if paddle.device.is_compiled_with_cuda():
            return paddle.device.cuda.device_count(), "no GPU was found"
    return 0, "the installed Paddle is the CPU build"


@functools.cache
def _log_once(line: str) -> None:
    from paddle_resnet.console import logger  # needs rich, without which a process can still be prepared and examined

    logger.info(line)


def seed_everything(seed: int) -> None:
    """Seed the global random generators of Python, numpy and paddle."""
    import numpy as np
    import paddle

    random.seed(seed)
    np.random.seed(seed)
    paddle.seed(seed)
