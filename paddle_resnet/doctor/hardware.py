"""The machine, its processor, memory, disk and GPUs; and this process: its cores, threads and BLAS path."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from paddle_resnet import runtime
from paddle_resnet.doctor.section import Section
from paddle_resnet.errors import UsageError, counted
from paddle_resnet.paths import home_folder
from paddle_resnet.system import machine

GIGABYTE = 10**9
LITTLE_MEMORY = 2 * GIGABYTE
LITTLE_DISK = 1 * GIGABYTE

FEATURES = {
    "avx2": "AVX2",
    "fma": "FMA",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX512-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "avx512_fp16": "AVX512-FP16",
    "amx_bf16": "AMX-BF16",
}
"""The processor's features that matter for speed: names of the kernel, and usual names."""


def examine_hardware() -> Section:
    """Examine the machine; sizes are in bytes."""
    section = Section("machine")
    section.add("platform", platform.platform())
    processor = machine.processor()
    section.add("CPU", processor.model or "unknown")
    features = [name for flag, name in FEATURES.items() if flag in processor.features]
    section.add("CPU features", ", ".join(features) or "none of AVX2 or newer", features)
    free = machine.free_memory()
    if free is None:
        section.add("free memory", "unknown")
    else:
        section.add("free memory", f"{free / GIGABYTE:.1f} GB", free)
        remedy = "close other programs, or train with a smaller -o train.batch_size"
        _advise_if_little(section, free, LITTLE_MEMORY, "memory are free", remedy)
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    section.add("free disk", f"{free / GIGABYTE:.1f} GB for runs in this folder", free)
    remedy = "free some space, or write runs elsewhere with -o output=FOLDER"
    _advise_if_little(section, free, LITTLE_DISK, f"disk are free in {here}", remedy)
    _home(section)
    return section


def _advise_if_little(section: Section, free: int, little: int, what: str, remedy: str) -> None:
    if free < little:
        section.advice.append(f"only {free / GIGABYTE:.1f} GB of {what}: {remedy}")


def _home(section: Section) -> None:
    try:
        home = home_folder()
    except UsageError as error:
        section.add("home", "unknown", {"writable": False})
        section.advice.append(str(error))
        return
    writable = _is_writable(home)
    section.add("home", f"{home} ({'writable' if writable else 'not writable'})", {"writable": writable})
    if not writable:
        section.advice.append(
            f"the home folder {home} is not writable, and downloaded data and weights are kept there: set HOME to a "
            "folder that is"
        )


def _is_writable(folder: Path) -> bool:
    """Write a file: permissions do not show a read-only file system."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def driver_sees_gpu() -> bool:
    """Return whether NVIDIA's driver lists a GPU for this process."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return False
    try:
        listing = subprocess.run([command, "-L"], capture_output=True, text=True, errors="replace", timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "GPU " in listing.stdout


SLOWING = {"KMP_BLOCKTIME": "0", "OMP_WAIT_POLICY": "passive"}
"""These let waiting threads sleep, which then wake too late for a network's short operations (half the speed)."""


def examine_process() -> Section:
    """Examine what `runtime.prepare_process` found and chose."""
    section = Section("process")
    setup, cores = runtime.prepare_process(), machine.cores()
    quota = "no limit of time" if cores.quota is None else f"time for {cores.quota:g} granted by its control group"
    section.add(
        "cores",
        f"{cores.usable} usable: {cores.machine} in the machine, {cores.affinity} allowed by affinity, {quota}",
        {"usable": cores.usable, **cores._asdict()},
    )
    section.add("threads", str(setup.threads), setup.threads.value)
    if setup.blas_threads.preset:
        section.add("BLAS threads", str(setup.blas_threads), setup.blas_threads.value)
    section.add("BLAS path", str(setup.blas_path))
    section.advice += _about_cores(cores) + _about_threads(setup, cores.usable) + _about_blas_path(setup)
    section.advice += [
        f"{variable}={value} is set, which may halve the speed of training: unset it"
        for variable, value in SLOWING.items()
        if os.environ.get(variable, "").lower() == value
    ]
    if setup.paddle_was_imported:
        section.advice.append(
            "paddle was imported before paddle_resnet, too early for the BLAS path: import paddle_resnet first"
        )
    return section


def _about_cores(cores: machine.Cores) -> list[str]:
    advice = []
    if cores.affinity < cores.machine:
        advice.append(
            f"affinity allows {cores.affinity} of the machine's {cores.machine} cores: start without taskset, or ask "
            "the batch system for more"
        )
    if cores.quota is not None and cores.usable < cores.affinity:
        advice.append(
            f"the control group grants the time of {cores.quota:g} of {cores.affinity} cores: raise the container's "
            "CPU limit (docker run --cpus)"
        )
    return advice


def _about_threads(setup: runtime.ProcessSetup, usable: int) -> list[str]:
    advice = []
    for setting in (setup.threads, setup.blas_threads):
        if not setting.preset:
            continue
        threads = runtime.thread_count(setting)
        if threads is None:
            advice.append(f"{setting.variable}={setting.value} is not a number of threads: unset it")
        elif threads < usable and not setup.paddle_was_imported:
            advice.append(f"{setting.variable}={threads} is set, but {usable} cores are free to this process: unset it")
        elif threads > usable:
            advice.append(
                f"{setting.variable}={threads} is set, but this process has {counted(usable, 'core')}: unset it"
            )
    return advice


def _about_blas_path(setup: runtime.ProcessSetup) -> list[str]:
    setting, best = setup.blas_path, runtime.mkl_path(machine.processor())
    if not setting.preset or setting.value == best:
        return []
    better = "MKL chooses best itself" if best is None else f"{best} is the fast one"
    return [f"{setting.variable}={setting.value} is set, and on this processor {better}: unset it"]
