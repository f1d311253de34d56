"""Who computes the network's layers while it trains on the CPU (oneDNN or Paddle's operators), and in what numbers."""

from __future__ import annotations

from typing import Literal, TypeAlias

from paddle_resnet import onednn
from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError
from paddle_resnet.models import ImageClassifier
from paddle_resnet.onednn import library
from paddle_resnet.training.heap import keep_freed_memory

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
