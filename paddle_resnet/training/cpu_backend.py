"""How a CPU computes a training: by oneDNN or by Paddle's operators, in which precision, and with which malloc."""

from __future__ import annotations

from typing import Literal, TypeAlias

from paddle_resnet import onednn
from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError
from paddle_resnet.models import ImageClassifier
from paddle_resnet.onednn import library
from paddle_resnet.runtime import keep_freed_memory

Backend: TypeAlias = Literal["auto", "onednn", "native"]
Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]


def use_cpu_backend(network: ImageClassifier, backend: Backend, device: str, precision: Precision = "float32") -> None:
    """Replace the network's layers by oneDNN's, in place, if `backend` and the machine allow it; log which it is.

    On a GPU nothing changes.

    Raises:
        UsageError: `backend` "onednn" or `precision` "bfloat16" cannot be used here.
    """
    if device != "cpu":
        return
    keep_freed_memory()
    if backend == "native":
        reason: str | None = "asked for"
    else:
        reason = onednn.unavailable_reason(device) or _accelerate(network, _supported(precision))
        if reason is None:
            logger.info("CPU backend: oneDNN %s, %s", library.description(), network.precision)
            return
        if backend == "onednn":
            raise UsageError(f"train.cpu_backend onednn: {reason}; use auto or native")
    if precision == "bfloat16":
        raise UsageError(f"train.cpu_precision bfloat16 needs the oneDNN backend, but it is not used, as {reason}")
    logger.info("CPU backend: Paddle's own operators, as %s", reason)


def _supported(precision: Precision) -> onednn.Precision:
    reason = onednn.bfloat16_unavailable_reason()
    if precision == "bfloat16" and reason is not None:
        raise UsageError(f"train.cpu_precision bfloat16: {reason}; use auto or float32")
    return "float32" if precision == "float32" or reason is not None else "bfloat16"


def _accelerate(network: ImageClassifier, precision: onednn.Precision) -> str | None:
    """Replace the layers; if one has no counterpart in oneDNN, change nothing and return the reason."""
    try:
        onednn.accelerate(network, precision)
    except TypeError as error:
        return str(error)
    return None
