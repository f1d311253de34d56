"""The machine as this process sees it: its processor, and the cores and memory it may use.

Read from files of the Linux kernel, elsewhere by psutil where it is installed. Unknown values are None or empty.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

CPU_INFO = Path("/proc/cpuinfo")
CPU_TOPOLOGY = Path("/sys/devices/system/cpu")
MEMORY_INFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
CGROUPS_OF_PROCESS = Path("/proc/self/cgroup")


class Processor(NamedTuple):
    """The vendor (``"AuthenticAMD"``), the model's name, and features by the kernel's names (``"avx2"``)."""

    vendor: str
    model: str
    features: frozenset[str]


def processor() -> Processor:
    """Return this machine's processor; unknown values are empty."""
    text = _read(CPU_INFO)

    def first(key: str) -> str:
        found = re.search(rf"^{key}\s*:[^\S\n]*(.*)$", text, re.MULTILINE)
        return found.group(1).strip() if found else ""

    return Processor(first("vendor_id"), first("model name") or platform.processor(), frozenset(first("flags").split()))


class Cores(NamedTuple):
    """Numbers of physical cores: the hyper-threads of one core count once."""

    machine: int
    affinity: int  # cores this process may run on (taskset, a batch system)
    quota: float | None
    """Processors' worth of time that its control groups grant (a container's limit); None without a limit."""

    @property
    def usable(self) -> int:
        """How many threads can have a core of their own; at least 1."""
        return self.affinity if self.quota is None else max(1, min(self.affinity, int(self.quota)))


def cores() -> Cores:
    """Count the cores of the machine, and those that this process may use."""
    if not hasattr(os, "sched_getaffinity"):
        return _cores_by_psutil()
    # The hyper-threads of a processor's core identify that core.
    topology = (f"cpu{cpu}/topology/thread_siblings_list" for cpu in os.sched_getaffinity(0))
    affinity = len({_read(CPU_TOPOLOGY / file) or file for file in topology})
    machine = len({_read(path) for path in CPU_TOPOLOGY.glob("cpu*/topology/thread_siblings_list")})
    return Cores(max(machine, affinity), affinity, _cpu_quota())


def _cores_by_psutil() -> Cores:
    processors, psutil = os.cpu_count() or 1, _psutil()
    if psutil is None:
        return Cores(processors, processors, None)
    physical = psutil.cpu_count(logical=False) or processors
    allowed = psutil.Process().cpu_affinity() if hasattr(psutil.Process, "cpu_affinity") else range(processors)
    return Cores(physical, max(1, min(physical, len(allowed))), None)


def _psutil() -> Any:
    """Return the module, or None in an environment without it, which the doctor may examine."""
    try:
        import psutil
    except ModuleNotFoundError:
        return None
    return psutil


def physical_cores() -> int:
    """Count the physical cores this process may use: its affinity and its control groups' limits respected."""
    return cores().usable


def free_memory() -> int | None:
    """Return the bytes of memory that this process may still allocate, or None if unknown.

    The whole limit of a control group counts as free: what it uses is mostly the cache of files.
    """
    available = re.search(r"^MemAvailable:\s*(\d+) kB$", _read(MEMORY_INFO), re.MULTILINE)
    bounds = [1024 * int(available.group(1))] if available else []
    if not MEMORY_INFO.exists() and (psutil := _psutil()) is not None:
        bounds.append(psutil.virtual_memory().available)
    for folder in _control_groups("memory"):
        limits = (_read(folder / name) for name in ("memory.max", "memory.limit_in_bytes"))
        bounds += [int(limit) for limit in limits if limit.isdecimal()]
    return min(bounds, default=None)


def _cpu_quota() -> float | None:
    quotas = []
    for folder in _control_groups("cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")  # version 2
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")  # version 1
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _control_groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group and of all groups around it, of version 2 and 1.

    A container may see its own group as the root, whatever path the kernel gives: the roots are always included.
    """
    for line in ("0::/", f"0:{controller}:/", *_read(CGROUPS_OF_PROCESS).splitlines()):
        _, controllers, group = line.split(":", 2)
        if not controllers:
            roots = (CGROUP, CGROUP / "unified")
        elif controller in controllers.split(","):
            roots = (CGROUP / controller, CGROUP / controllers)
        else:
            continue
        inner = Path(group.lstrip("/"))
        for root in roots:
            yield from (root / folder for folder in (inner, *inner.parents))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
