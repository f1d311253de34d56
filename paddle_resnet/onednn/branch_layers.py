"""Layers that only some networks have, on ``[N, H, W, C]``, float32 or bfloat16."""

from __future__ import annotations

import paddle
from paddle import nn

from paddle_resnet.models import preact, stochastic_depth
from paddle_resnet.onednn import plain_functions
from paddle_resnet.onednn.layers import in_float32, natively, suits


class Add(preact.Add):
    """``x + shortcut`` at the end of a block that activates first."""

    def forward(self, x: paddle.Tensor, shortcut: paddle.Tensor) -> paddle.Tensor:
        """Add two tensors of one shape."""
        if not suits(x):
            return super().forward(x, shortcut)
        return plain_functions.add(x, shortcut, share_gradient=True)


class StochasticDepth(stochastic_depth.StochasticDepth):
    """A residual branch that is dropped for some images."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """``[N, H, W, C]`` to the same shape."""
        return in_float32(super().forward, x)


class Dropout(nn.Dropout):
    """Dropout between convolutions."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Any shape to the same shape."""
        return in_float32(super().forward, x)


class AveragePool(nn.AvgPool2D):
    """Average-pooling."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Take each window's mean: ``[N, H, W, C]`` to ``[N, H', W', C]``."""
        return natively(super().forward, x)
