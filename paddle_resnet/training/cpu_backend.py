"""Memory that one training step frees stays with the process, for the next step to use."""

from __future__ import annotations

import ctypes
import os
from typing import Literal, TypeAlias

from paddle_resnet import onednn
from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError
from paddle_resnet.models import ImageClassifier
from paddle_resnet.onednn import library

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


Backend: TypeAlias = Literal["auto", "onednn", "native"]
Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]


def use_cpu_backend(network: ImageClassifier, backend: Backend, device: str, precision: Precision = "float32") -> None:
    """Give the network's layers to oneDNN, in place, where `backend` and the machine allow it; say which it is.

    On a GPU nothing changes.

    Raises:
        UsageError: oneDNN or bfloat16 was asked for by name and cannot be used; the line says why.
    """
    if device != "cpu":
        return
    keep_freed_memory()
    if backend == "native":
        reason: str | None = "asked for"
    else:
        reason = onednn.unavailable_reason(device) or _accelerate(network, _best(precision))
        if reason is None:
            logger.info("CPU backend: oneDNN %s, %s", library.description(), network.precision)
            return
        if backend == "onednn":
            raise UsageError(f"train.cpu_backend onednn: {reason}; use auto or native")
    if precision == "bfloat16":
        raise UsageError(f"train.cpu_precision bfloat16 needs the oneDNN backend, but it is not used, as {reason}")
    logger.info("CPU backend: Paddle's own operators, as %s", reason)


def _best(precision: Precision) -> onednn.Precision:
    reason = onednn.bfloat16_unavailable_reason()
    if precision == "bfloat16" and reason is not None:
        raise UsageError(f"train.cpu_precision bfloat16: {reason}; use auto or float32")
    return "float32" if precision == "float32" or reason is not None else "bfloat16"


def _accelerate(network: ImageClassifier, precision: onednn.Precision) -> str | None:
    """Give the layers to oneDNN; where one has no counterpart there, change nothing and say so."""
    try:
        onednn.accelerate(network, precision)
    except TypeError as error:
        return str(error)
    return None
