"""`create_model`: a network by its name."""

from __future__ import annotations

from pathlib import Path

import paddle

from paddle_resnet.errors import UsageError
from paddle_resnet.models.registry import model_entry
from paddle_resnet.models.resnet import ResNet
from paddle_resnet.models.weights import load_pretrained


def create_model(
    name: str, num_classes: int | None = None, *, in_channels: int = 3, pretrained: str | Path | None = None
) -> ResNet:
    """Make a network of `list_models()`.

    Two networks of one name have the same parameter names, so that an optimizer's saved state fits any of them; do not
    give two of them to one optimizer.

    Args:
        name: the network's name, for example ``"resnet20"``.
        num_classes: outputs of the head; None: the design's own (1,000 for ImageNet's, 10 for CIFAR's).
        in_channels: channels of the images.
        pretrained: None for new weights, ``"imagenet"`` for the official ones, or the path of a ``.pdparams`` file.
            With another number of classes the head stays new; `load_pretrained` reports what was loaded.

    Raises:
        UsageError: an unknown name, a number below 1, or weights that are missing, damaged or of another architecture.
    """
    entry = model_entry(name)
    if num_classes is None:
        num_classes = entry.num_classes
    for argument, number in (("num_classes", num_classes), ("in_channels", in_channels)):
        if number < 1:
            raise UsageError(f"{argument}: expected a number of at least 1, got {number}")
    # Paddle numbers parameters through the whole process and keys an optimizer's state by these names.
    with paddle.utils.unique_name.guard():
        network = entry.build(num_classes, in_channels)
    if pretrained is not None:
        load_pretrained(network, name, pretrained)
    return network
