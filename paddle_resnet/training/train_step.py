"""The training step: a batch computed in micro-batches, and gradients averaged over the ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
from paddle import nn

from paddle_resnet import distributed
from paddle_resnet.models.sync_batch_norm import SyncBatchNorm
from paddle_resnet.paddle_compat import grad_scaler_of
from paddle_resnet.training.optim.loss import SmoothedCrossEntropy


class TrainStepModel(paddle.Model):
    """A `paddle.Model` whose batch is one optimizer step, computed in micro-batches that fit the memory.

    The step's gradient is the mean over the batch's images, or over their weights, if the loss is such a mean and no
    image affects another. (BatchNorm's statistics are those of each micro-batch.) `paddle.Model` itself, by
    ``fit(accumulate_grad_batches=k)``, sums the gradients of k batches, and its callbacks count batches instead of
    steps.

    Each rank computes its images of the batch. The gradients are averaged over the ranks between the backward pass and
    the optimizer, so that clipping, weights and optimizer states are the same in all. `paddle.DataParallel`, which
    `paddle.Model` uses by itself, averages in each backward pass, and not at all where layers such as oneDNN's compute
    gradients their own way.
    """

    def __init__(self, network: nn.Layer, inputs: Any, labels: Any, micro_batch: int) -> None:
        """Take what `paddle.Model` takes, and this rank's images of a micro-batch."""
        with distributed.hide_world_size():
            super().__init__(network, inputs, labels)
        self._micro_batch = micro_batch

    def prepare(self, optimizer: Any = None, loss: Any = None, metrics: Any = None, amp_configs: Any = None) -> None:
        self._scaled_loss = ScaledLoss(loss)
        with distributed.hide_world_size():
            super().prepare(optimizer, self._scaled_loss, metrics, amp_configs)

    def train_batch(self, inputs: Any, labels: Any = None, update: bool = True) -> Any:
        """Take one step on tensors ``[n, ...]``; return ``[mean loss]`` and the metrics."""
        images, done, loss = len(inputs[0]), 0, 0.0
        weight = self._weight(labels)
        several = distributed.world_size() > 1
        update = update and not several  # otherwise after the all-reduce
        if several and not isinstance(weight, int):  # otherwise the same in all ranks
            weight = distributed.all_reduce_sum([weight]).item() / distributed.world_size()
        for some_inputs, some_labels in self._micro_batches(inputs, labels):
            done += len(some_inputs[0])
            self._scaled_loss.scale = self._weight(some_labels) / weight
            (value, *_), metrics = super().train_batch(some_inputs, some_labels, update and done == images)
            loss += self._scaled_loss.scale * float(value)
        if several:
            trained = (each for each in self.network.parameters() if not each.stop_gradient and each.grad is not None)
            distributed.all_reduce_mean([*(each.grad for each in trained), *_rank_statistics(self.network)])
            self._take_step()
            loss = distributed.all_reduce_sum([loss]).item() / distributed.world_size()
        return [np.array(loss)], metrics

    def _weight(self, labels: list[paddle.Tensor]) -> float:
        loss = self._scaled_loss.loss
        return loss.total_weight(*labels) if isinstance(loss, SmoothedCrossEntropy) else len(labels[0])

    def _micro_batches(self, inputs: Any, labels: Any) -> Iterator[tuple[Any, Any]]:
        images, size = len(inputs[0]), self._micro_batch
        if images <= size:  # a slice would copy the batch
            yield inputs, labels
            return
        for start in range(0, images, size):
            yield [each[start : start + size] for each in inputs], [each[start : start + size] for each in labels]

    def _take_step(self) -> None:
        scaler = grad_scaler_of(self)
        if scaler is None:
            self._optimizer.step()
        else:
            scaler.step(self._optimizer)
            scaler.update()
        self.network.clear_gradients()


class ScaledLoss(nn.Layer):
    """A loss whose gradient is multiplied by `scale`; its value is not."""

    def __init__(self, loss: nn.Layer) -> None:
        super().__init__()
        self.loss = loss
        self.scale = 1.0

    def forward(self, *arguments: paddle.Tensor) -> paddle.Tensor:
        loss = self.loss(*arguments)
        return loss if self.scale == 1 else loss.detach() + (loss - loss.detach()) * self.scale


def _rank_statistics(network: nn.Layer) -> Iterator[paddle.Tensor]:
    """Yield the running statistics that each rank has updated by its own images."""
    for layer in network.sublayers(include_self=True):
        if (
            isinstance(layer, nn.BatchNorm1D | nn.BatchNorm2D)
            and not isinstance(layer, SyncBatchNorm)
            and layer.training
        ):
            yield layer._mean
            yield layer._variance


def scaled_learning_rate(learning_rate: float, rule: str, world_size: int) -> float:
    """Return the learning rate for batches `world_size` times as large.

    `rule` is ``"linear"`` (Goyal et al. 2017, arXiv:1706.02677, for SGD), ``"square_root"`` (Malladi et al. 2022,
    arXiv:2205.10287, for Adam) or ``"none"``.
    """
    factors = {"linear": float(world_size), "square_root": float(np.sqrt(world_size)), "none": 1.0}
    return learning_rate * factors[rule]
