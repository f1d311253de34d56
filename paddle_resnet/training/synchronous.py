"""One step of several processes: each computes its share of the batch, and all take the same step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
from paddle import nn

from paddle_resnet import processes
from paddle_resnet.models.sync_batch_norm import SyncBatchNorm
from paddle_resnet.training.accumulation import AccumulatingModel


class SynchronousModel(AccumulatingModel):
    """Averages the gradients over the processes between the backward pass and the optimizer's step.

    Each process has as many images of a batch, so the mean of their means is the mean over all images. What follows,
    clipping included, sees that one gradient; so weights and all that comes from them stay the same in all processes.

    `paddle.DataParallel`, which `paddle.Model` takes by itself, averages during each backward pass: once for each
    piece of an accumulated batch, and not when a network's layers compute their gradients elsewhere than it expects.
    """

    def __init__(self, network: nn.Layer, inputs: Any, labels: Any, piece: int) -> None:
        """Take what `AccumulatingModel` takes; `piece` is of this process's images."""
        with processes.unseen():
            super().__init__(network, inputs, labels, piece)

    def prepare(self, optimizer: Any = None, loss: Any = None, metrics: Any = None, amp_configs: Any = None) -> None:
        """Prepare as for a single process."""
        with processes.unseen():
            super().prepare(optimizer, loss, metrics, amp_configs)

    def train_batch(self, inputs: Any, labels: Any = None, update: bool = True) -> Any:
        """Compute this process's images, then take the step of all; the loss is the mean over all."""
        (loss,), metrics = super().train_batch(inputs, labels, update=False)
        processes.average([*self._gradients(), *_own_statistics(self.network)])
        self._take_step()
        whole = processes.total([float(loss)]).item() / processes.count()
        return [np.array(whole)], metrics

    def _gradients(self) -> Iterator[paddle.Tensor]:
        for parameter in self.network.parameters():
            if not parameter.stop_gradient and parameter.grad is not None:
                yield parameter.grad

    def _take_step(self) -> None:
        scaler = getattr(self, "_scaler", None)  # there is one with mixed precision alone
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
