"""Gradient accumulation: a batch computed piece by piece, in the memory of one piece."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
from paddle import nn


class AccumulatingModel(paddle.Model):
    """Takes one step for each batch it is given, with the mean of the gradients of its pieces.

    For the mean over a batch's images as the loss, that is the whole batch's gradient, if no image looks at another one
    (BatchNorm does: its statistics are each piece's). As a batch is one step, whatever counts steps needs no care:
    schedule, moving average, curves, checkpoints. `paddle.Model` itself sums, ``fit(accumulate_grad_batches=k)``: the
    steps are k times as large.
    """

    def __init__(self, network: nn.Layer, inputs: Any, labels: Any, piece: int) -> None:
        """Take what `paddle.Model` takes, and the images of a piece."""
        super().__init__(network, inputs, labels)
        self._piece = piece

    def prepare(self, optimizer: Any = None, loss: Any = None, metrics: Any = None, amp_configs: Any = None) -> None:
        """Prepare as `paddle.Model` does; the loss has to be a mean over images."""
        self._shared_loss = SharedLoss(loss)
        super().prepare(optimizer, self._shared_loss, metrics, amp_configs)

    def train_batch(self, inputs: Any, labels: Any = None, update: bool = True) -> Any:
        """Compute the pieces of ``[n, ...]`` tensors one after the other, then take the step; the loss is the mean."""
        images = len(inputs[0])
        if images <= self._piece:
            self._shared_loss.share = 1.0
            return super().train_batch(inputs, labels, update)
        loss = 0.0
        for first in range(0, images, self._piece):
            piece = slice(first, first + self._piece)
            self._shared_loss.share = len(inputs[0][piece]) / images
            values, metrics = super().train_batch(
                [each[piece] for each in inputs], [each[piece] for each in labels], update and piece.stop >= images
            )
            loss += self._shared_loss.share * float(values[0])
        return [np.array(loss)], metrics


class SharedLoss(nn.Layer):
    """A loss whose gradient is `share` of what it would be; its value stays."""

    def __init__(self, loss: nn.Layer) -> None:
        super().__init__()
        self.loss = loss
        self.share = 1.0

    def forward(self, *arguments: paddle.Tensor) -> paddle.Tensor:
        """Return the loss of `arguments`."""
        loss = self.loss(*arguments)
        return loss if self.share == 1 else loss.detach() + (loss - loss.detach()) * self.share
