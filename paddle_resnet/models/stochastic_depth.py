"""Stochastic depth: in training, residual branches are dropped at random (Huang et al. 2016)."""

from __future__ import annotations

import paddle
from paddle import nn


class StochasticDepth(nn.Layer):
    """Drop a residual branch with a probability, each sample for itself; the identity in evaluation.

    As torchvision's ``StochasticDepth(mode="row")``: kept branches are divided by the probability of keeping them.
    The paper (https://arxiv.org/abs/1603.09382, equations 2 and 5) drops a block for the whole batch, and multiplies by
    that probability in evaluation instead: the expectation is the same.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """``[N, ...]`` to the same shape: each of the N is zero or divided by ``1 - probability``."""
        if not self.training or self.probability == 0.0:
            return x
        kept = 1.0 - self.probability
        shape = [x.shape[0]] + [1] * (x.ndim - 1)
        return x * (paddle.bernoulli(paddle.full(shape, kept)) / kept).astype(x.dtype)

    def extra_repr(self) -> str:
        """The probability, in the network's printed form."""
        return f"probability={self.probability:g}"


def stochastic_depth(probability: float) -> nn.Layer:
    """Make the layer at a residual branch's end: the identity where nothing is dropped."""
    return StochasticDepth(probability) if probability else nn.Identity()


def linear_decay(blocks: int, last: float) -> list[float]:
    """Drop probabilities of the blocks in order: from near 0 to `last`, the paper's equation 4."""
    return [last * (number / blocks) for number in range(1, blocks + 1)]
