"""Who computes the network's layers while it trains on the CPU: oneDNN, or Paddle's own operators."""

from __future__ import annotations

from typing import Literal

from paddle_resnet import onednn
from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError
from paddle_resnet.models import ResNet


def use_cpu_backend(network: ResNet, backend: Literal["auto", "onednn", "native"], device: str) -> None:
    """Give the network's layers to oneDNN, in place, where `backend` and the machine allow it; say which it is.

    On a GPU nothing changes.

    Raises:
        UsageError: oneDNN was asked for by name and cannot be used; the line says why.
    """
    if device != "cpu":
        return
    if backend == "native":
        logger.info("CPU backend: Paddle's own operators, as asked for")
        return
    reason = onednn.unavailable_reason(device)
    if reason is None:
        onednn.accelerate(network)
        logger.info("CPU backend: oneDNN")
    elif backend == "onednn":
        raise UsageError(f"train.cpu_backend onednn: {reason}; use auto or native")
    else:
        logger.info("CPU backend: Paddle's own operators, as %s", reason)
