"""The machine: processor, memory, disk, and GPUs that the driver lists."""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from paddle_resnet.doctor.section import Section
from paddle_resnet.errors import UsageError
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
