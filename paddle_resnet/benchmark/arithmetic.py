"""How much a network computes."""

from __future__ import annotations

import paddle
from paddle import nn

TRAINING_PASSES = 3
"""The forward product, and in the backward pass one for the images' gradient and one for the weights'."""


def multiply_accumulates(network: nn.Layer, size: int) -> int:
    """Count those of the convolutions and the linear layers for one image ``[3, size, size]``, forward."""
    counts: list[int] = []

    def count(layer: nn.Layer, _: object, result: paddle.Tensor) -> None:
        # Every output value is a product of one row of the weight, whatever the kernel's shape.
        outputs = result.shape[-1] if isinstance(layer, nn.Linear) else result.shape[1]
        counts.append(result.size // outputs * layer.weight.size)

    hooks = [
        layer.register_forward_post_hook(count)
        for layer in network.sublayers()
        if isinstance(layer, nn.Conv2D | nn.Linear)
    ]
    training = network.training
    network.eval()
    with paddle.no_grad():
        network(paddle.zeros([1, 3, size, size]))
    if training:
        network.train()
    for hook in hooks:
        hook.remove()
    return sum(counts)


def training_operations(network: nn.Layer, size: int) -> int:
    """Floating-point operations of one image in training: a multiply-accumulate is two, and there are three passes."""
    return 2 * TRAINING_PASSES * multiply_accumulates(network, size)
