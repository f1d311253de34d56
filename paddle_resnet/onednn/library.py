"""Find and load the oneDNN library inside Paddle's wheel, with or without Paddle itself."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

from paddle_resnet.paddle_compat import library_folder
from paddle_resnet.system import threads

MAJOR_VERSION = 3
AVX2 = 0x7
AVX512 = 0x27
BFLOAT16 = 0xE7

ISA_NAMES = {
    0x0: "generic",
    0x1: "SSE4.1",
    0x3: "AVX",
    0x7: "AVX2",
    0xF: "AVX2-VNNI",
    0x1F: "AVX2-VNNI-2",
    0x27: "AVX512",
    0x67: "AVX512-VNNI",
    0xE7: "AVX512-BF16",
    0x1EF: "AVX512-FP16",
    0xFEF: "AMX",
    0x1FEF: "AMX-FP16",
}
"""oneDNN's ``dnnl_cpu_isa_t``: the bits of each value include those of the instruction sets it extends."""

ISA_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that limit oneDNN's instruction set, in the order of their precedence."""


class Version(ctypes.Structure):
    """A version of oneDNN: the beginning of ``dnnl_version_t``."""

    _fields_ = (("major", ctypes.c_int), ("minor", ctypes.c_int), ("patch", ctypes.c_int))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


def library_path() -> Path:
    """Return the path of the library, whether or not the installed Paddle has one of this major version.

    Paddle's wheels for Windows name it by its earlier name, and those for macOS hold none.
    """
    return library_folder() / ("mkldnn.dll" if os.name == "nt" else f"libdnnl.so.{MAJOR_VERSION}")


@functools.cache
def load() -> ctypes.CDLL:
    """Load the library, once. If Paddle has loaded it already, this is the same copy.

    Raises:
        OSError: it is missing, or cannot be loaded.
    """
    threads.load()
    return ctypes.CDLL(str(library_path()))


def version() -> Version:
    """Return the version of the loaded library."""
    function = load().dnnl_version
    function.restype = ctypes.POINTER(Version)
    return function().contents


def instruction_set() -> int:
    """Return the widest instruction set that oneDNN uses here, a key of `ISA_NAMES` (or a newer one's bits)."""
    function = load().dnnl_get_effective_cpu_isa
    function.restype = ctypes.c_int
    return int(function())


def instruction_set_name() -> str:
    """Return the name of `instruction_set`, for example ``"AVX2"``."""
    value = instruction_set()
    return ISA_NAMES.get(value, hex(value))


def description() -> str:
    """Return version and instruction set, for example ``"3.6.2, AVX512-BF16"``."""
    return f"{version()}, {instruction_set_name()}"
