"""Gradient accumulation: a batch computed piece by piece, in the memory of one piece."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
from paddle import nn

from paddle_resnet import distributed, paddle_compat
from paddle_resnet.models.sync_batch_norm import SyncBatchNorm


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


class SynchronousModel(AccumulatingModel):
    """Averages the gradients over the processes between the backward pass and the optimizer's step.

    Each process has as many images of a batch, so the mean of their means is the mean over all images. What follows,
    clipping included, sees that one gradient; so weights and all that comes from them stay the same in all processes.

    `paddle.DataParallel`, which `paddle.Model` takes by itself, averages during each backward pass: once for each
    piece of an accumulated batch, and not when a network's layers compute their gradients elsewhere than it expects.
    """

    def __init__(self, network: nn.Layer, inputs: Any, labels: Any, piece: int) -> None:
        """Take what `AccumulatingModel` takes; `piece` is of this process's images."""
        with distributed.hide_world_size():
            super().__init__(network, inputs, labels, piece)

    def prepare(self, optimizer: Any = None, loss: Any = None, metrics: Any = None, amp_configs: Any = None) -> None:
        """Prepare as for a single process."""
        with distributed.hide_world_size():
            super().prepare(optimizer, loss, metrics, amp_configs)

    def train_batch(self, inputs: Any, labels: Any = None, update: bool = True) -> Any:
        """Compute this process's images, then take the step of all; the loss is the mean over all."""
        (loss,), metrics = super().train_batch(inputs, labels, update=False)
        distributed.all_reduce_mean([*self._gradients(), *_own_statistics(self.network)])
        self._take_step()
        whole = distributed.all_reduce_sum([float(loss)]).item() / distributed.world_size()
        return [np.array(whole)], metrics

    def _gradients(self) -> Iterator[paddle.Tensor]:
        for parameter in self.network.parameters():
            if not parameter.stop_gradient and parameter.grad is not None:
                yield parameter.grad

    def _take_step(self) -> None:
        scaler = paddle_compat.grad_scaler_of(self)
        if scaler is None:
            self._optimizer.step()
        else:
            scaler.step(self._optimizer)
            scaler.update()
        self.network.clear_gradients()


def _own_statistics(network: nn.Layer) -> Iterator[paddle.Tensor]:
    """Running statistics that each process has moved towards those of its own images."""
    for layer in network.sublayers(include_self=True):
        if (
            isinstance(layer, nn.BatchNorm1D | nn.BatchNorm2D)
            and not isinstance(layer, SyncBatchNorm)
            and layer.training
        ):
            yield layer._mean
            yield layer._variance


def scaled_learning_rate(learning_rate: float, rule: str, count: int) -> float:
    """Return the rate for batches `count` times as large as those the rate was chosen for.

    Args:
        learning_rate: of a single process.
        rule: ``"linear"`` (Goyal et al. 2017, arXiv:1706.02677, for SGD), ``"square_root"`` (Malladi et al. 2022,
            arXiv:2205.10287, for Adam) or ``"none"``.
        count: the processes.
    """
    factors = {"linear": float(count), "square_root": float(np.sqrt(count)), "none": 1.0}
    return learning_rate * factors[rule]
