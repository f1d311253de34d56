"""The process before paddle is imported (threads, BLAS path), and after: device and seeds.

Paddle as it comes runs on one thread, and the MKL inside it takes a slow path on AMD processors. Both are set by
environment variables that are read once, so they must stand before paddle is imported. What the user set is never
changed.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import os
import random
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError

CGROUP = Path("/sys/fs/cgroup")
CPU_TOPOLOGY = Path("/sys/devices/system/cpu")
DEVICE_NAMES = r"auto|cpu|gpu(:\d+)?"
CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class ProcessSetup:
    """What `prepare_process` found and chose."""

    threads: str
    blas_path: str
    paddle_was_imported: bool

    def __str__(self) -> str:
        line = f"threads {self.threads}; BLAS path {self.blas_path}"
        if self.paddle_was_imported:
            line += "; paddle was imported first, so these have no effect: import paddle_resnet before paddle"
        return line


_setup: ProcessSetup | None = None


def prepare_process() -> ProcessSetup:
    """Choose the number of threads and the BLAS path, once; what the user set stands."""
    global _setup
    if _setup is None:
        # Before paddle: 2.6 exports zlib's symbols, and Python's zlib, loaded after it, takes those and crashes.
        importlib.import_module("zlib")
        # Asked before anything is set: paddle sets OMP_NUM_THREADS itself when it is imported.
        already_imported = "paddle" in sys.modules
        _setup = ProcessSetup(
            threads=_choose("OMP_NUM_THREADS", str(physical_cores())),
            blas_path=_choose("MKL_DEBUG_CPU_TYPE", mkl_path(_read(CPU_INFO)), default="MKL's own choice"),
            paddle_was_imported=already_imported,
        )
    return _setup


def _choose(variable: str, value: str | None, default: str = "") -> str:
    """Set an environment variable unless the user did; say what holds and by whose choice."""
    if variable in os.environ:
        return f"{variable}={os.environ[variable]} (set by you)"
    if value is None:
        return default
    os.environ[variable] = value
    return f"{variable}={value}"


def physical_cores() -> int:
    """Count the physical cores this process may use: its affinity and its cgroup's limit respected; at least 1."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    cores = {_read(CPU_TOPOLOGY / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in allowed}
    quota = _cgroup_quota()
    return max(1, min(len(cores), int(quota)) if quota is not None else len(cores))


def _cgroup_quota() -> float | None:
    """How many processors' time the cgroup grants (version 2, then 1), or None without a limit."""
    quota, _, period = _read(CGROUP / "cpu.max").partition(" ")
    if not quota:
        quota = _read(CGROUP / "cpu/cpu.cfs_quota_us")
        period = _read(CGROUP / "cpu/cpu.cfs_period_us")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def mkl_path(cpu_info: str) -> str | None:
    """Return the MKL_DEBUG_CPU_TYPE that helps: AMD with AVX-512 "7", AMD with AVX2 "5", otherwise None."""
    vendor = re.search(r"^vendor_id\s*:\s*(\S+)", cpu_info, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.*)$", cpu_info, re.MULTILINE)
    if not vendor or vendor.group(1) != "AuthenticAMD" or not flags:
        return None
    features = set(flags.group(1).split())
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= features:
        return "7"
    return "5" if {"avx2", "fma"} <= features else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def import_paddle() -> None:
    """Import paddle without its chatter about OMP_NUM_THREADS (a warning meant for OpenBLAS builds) and ccache."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        import paddle  # noqa: F401


def select_device(name: str = "auto") -> str:
    """Make `name` (auto, cpu, gpu, gpu:<i>) Paddle's current device; return it as Paddle names it ("cpu", "gpu:0").

    Raises:
        UsageError: no such device, or a GPU was asked for, and this Paddle or this machine has none of that number.
    """
    if not re.fullmatch(DEVICE_NAMES, name):
        raise UsageError(f"device {name}: expected auto, cpu, gpu or gpu:<number>")
    import paddle

    has_gpu_build = paddle.device.is_compiled_with_cuda()
    gpus = paddle.device.cuda.device_count() if has_gpu_build else 0
    reason = "no GPU was found" if has_gpu_build else "the installed Paddle is the CPU build"
    if name == "auto":
        chosen = "gpu:0" if gpus else "cpu"
        if not gpus:
            _say_once(f"device auto: running on the CPU ({reason})")
    else:
        chosen = "gpu:0" if name == "gpu" else name
    if chosen != "cpu" and int(chosen.removeprefix("gpu:")) >= gpus:
        found = reason if gpus == 0 else f"the last of the {gpus} found is gpu:{gpus - 1}"
        raise UsageError(f"device {name}: {found}; use device cpu, or auto to take what is there")
    paddle.device.set_device(chosen)
    return chosen


@functools.cache
def _say_once(line: str) -> None:
    logger.info(line)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and paddle: what random state of theirs is used, is used from here."""
    import numpy as np
    import paddle

    random.seed(seed)
    np.random.seed(seed)
    paddle.seed(seed)
