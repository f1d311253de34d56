"""Memory that one training step frees stays with the process, for the next step to use."""

from __future__ import annotations

import ctypes
import os

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

LARGEST_BLOCK = 1 << 30
"""Bytes of the largest block that comes from the heap; larger ones are asked of the system each time."""

KEPT_AT_MOST = (1 << 31) - 1
"""Bytes that stay at the heap's end, free, before the system gets them back."""

USERS_OWN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "LD_PRELOAD", "GLIBC_TUNABLES")
"""Environment variables by which a user chooses an allocator or its settings."""


def keep_freed_memory() -> bool:
    """Let glibc's ``malloc`` keep what is freed, and tell whether it does.

    As it comes, it returns blocks as large as a batch of feature maps to the system, which then hands out zeroed pages
    again at their first touch, thousands in every step. What the user set in the environment stays.
    """
    if any(name in os.environ for name in USERS_OWN):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT_AT_MOST))
