"""A PaddlePaddle ResNet toolkit: the networks, their training and their deployment.

Importing this package prepares the process for Paddle (threads, BLAS path), so import it before paddle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paddle_resnet import runtime

__version__ = "0.1.0"
__all__ = ["create_model", "list_models"]

# Before the first import of paddle: its BLAS reads these variables once.
runtime.prepare_process()

if TYPE_CHECKING:
    from paddle_resnet.models import create_model, list_models


def __getattr__(name: str) -> Any:
    """Import the networks, and with them paddle, at their first use."""
    if name in __all__:
        from paddle_resnet import models

        return getattr(models, name)
    raise AttributeError(f"module 'paddle_resnet' has no attribute {name!r}")
