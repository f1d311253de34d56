"""`accelerate` a network: replace its layers by those of oneDNN, and `restore` them."""

from __future__ import annotations

from paddle import nn

from paddle_resnet.models import blocks, preact, stems, sync_batch_norm
from paddle_resnet.models.classifier import ImageClassifier
from paddle_resnet.models.resnet import ResNet
from paddle_resnet.onednn import layers
from paddle_resnet.paddle_compat import batch_norm_settings, data_format

NORMALISATIONS_BEFORE_RELU: dict[type[nn.Layer], tuple[str, ...]] = {
    ResNet: ("bn1", "final_bn"),
    stems.DeepStem: ("1", "4"),
    stems.WhiteningStem: ("1",),
    blocks.BasicBlock: ("bn1",),
    blocks.Bottleneck: ("bn1", "bn2"),
    preact.PreActBasicBlock: ("bn1", "bn2"),
    preact.PreActBottleneck: ("bn1", "bn2", "bn3"),
    blocks.PlainBlock: ("bn1", "bn2"),
    blocks.ConvPoolBlock: ("bn1",),
}
"""The BatchNorm layers that are followed by a ReLU, in the layers whose `forward` is known.

Every ReLU in them follows one of these. The first pre-activation block of a network has an identity as its `bn1`, since
its input is activated already.
"""

RELU_AFTER = {"final_bn": "final_relu", "1": "2", "4": "5"}
"""The ReLU that follows a BatchNorm of those names; `relu` after all others."""

REPLACEMENTS: dict[type[nn.Layer], type[nn.Layer]] = {
    nn.Conv2D: layers.Convolution,
    nn.BatchNorm2D: layers.BatchNorm,
    sync_batch_norm.SyncBatchNorm: layers.SyncBatchNorm,
    nn.ReLU: layers.FusedReLU,
    nn.MaxPool2D: layers.MaxPool,
    nn.AvgPool2D: layers.AveragePool,
    blocks.Fork: layers.Fork,
    blocks.AddReLU: layers.AddReLU,
    blocks.ZeroPadShortcut: layers.ZeroPadShortcut,
    preact.Add: layers.Add,
    blocks.StochasticDepth: layers.StochasticDepth,
    nn.Dropout: layers.Dropout,
    ResNet: layers.ChannelsLastResNet,
}

UNCHANGED = {*NORMALISATIONS_BEFORE_RELU, nn.Sequential, nn.Identity} - {ResNet}
"""Layers whose own `forward` does not depend on the layout."""

HEAD = ("avgpool", "flatten", "dropout", "fc")
"""The sublayers of a ResNet that `ChannelsLastResNet` calls with float32 and the usual layout."""

ORIGINALS: dict[type[nn.Layer], type[nn.Layer]] = {new: old for old, new in REPLACEMENTS.items()}
ORIGINALS |= {layers.BatchNormReLU: nn.BatchNorm2D, layers.SyncBatchNormReLU: sync_batch_norm.SyncBatchNorm}


def accelerate(network: ImageClassifier, precision: layers.Precision = "float32") -> None:
    """Let oneDNN compute the network on the CPU, in place; input and output stay as they are.

    With `precision` bfloat16, activations and their gradients are rounded to 8 bits of mantissa between layers. Sums
    within a layer, statistics, parameters and their gradients stay float32, so the weights lose no precision.

    Parameters, buffers, their names and their order do not change: the state dict is saved and loaded as before, and an
    optimizer made before or after holds the same parameters. A copy (`copy.deepcopy`) is accelerated too. Call
    `unavailable_reason` first. To export (`paddle.jit.save`), take a network that was not accelerated, or `restore` it.
    There are no second derivatives, and no second backward pass over one graph: with `retain_graph=True` Paddle
    crashes in it, as with every `PyLayer`.

    Raises:
        TypeError: the network has a layer that this package does not know; the network is unchanged then.
    """
    _set_classes(
        {layer: _replacement_class(name, layer) for name, layer in _image_layers(network)} | _fused_classes(network)
    )
    network.precision = precision


def restore(network: nn.Layer) -> None:
    """Undo `accelerate`; a network that was not accelerated stays as it is."""
    _set_classes(
        {
            layer: ORIGINALS[type(layer)]
            for layer in list(network.sublayers(include_self=True))
            if type(layer) in ORIGINALS
        }
    )


def _replacement_class(name: str, layer: nn.Layer) -> type[nn.Layer]:
    kind = type(layer)
    if kind in UNCHANGED or kind in ORIGINALS:
        return kind
    if kind not in REPLACEMENTS or not _is_supported(layer):
        raise TypeError(f"{name or 'the network'}: no oneDNN layer takes the place of this {kind.__name__}")
    return REPLACEMENTS[kind]


def _is_supported(layer: nn.Layer) -> bool:
    """Return whether oneDNN's layer can replace it.

    It takes NCHW; a BatchNorm has scale and shift, and uses the running statistics in evaluation.
    """
    if isinstance(layer, nn.BatchNorm2D) and (
        layer.weight is None or layer.bias is None or batch_norm_settings(layer).use_global_stats is False
    ):
        return False
    if isinstance(layer, nn.MaxPool2D) and layer.return_mask:
        return False
    return data_format(layer) == "NCHW"


def _image_layers(network: ImageClassifier) -> list[tuple[str, nn.Layer]]:
    """Return all layers but those of the head, by name."""
    head = {id(getattr(network, name)) for name in HEAD if hasattr(network, name)}
    return [(name, layer) for name, layer in network.named_sublayers(include_self=True) if id(layer) not in head]


def _fused_classes(network: ImageClassifier) -> dict[nn.Layer, type[nn.Layer]]:
    fused: dict[nn.Layer, type[nn.Layer]] = {}
    for path, layer in network.named_sublayers(include_self=True):
        for name in NORMALISATIONS_BEFORE_RELU.get(type(layer), ()):
            normalisation = getattr(layer, name)
            if not isinstance(getattr(layer, RELU_AFTER.get(name, "relu")), nn.ReLU):
                continue
            # The input of such a block may be activated already.
            may_be_identity = isinstance(layer, preact.PreActBasicBlock | preact.PreActBottleneck) and name == "bn1"
            if isinstance(normalisation, nn.BatchNorm2D):
                shared = isinstance(normalisation, sync_batch_norm.SyncBatchNorm)
                fused[normalisation] = layers.SyncBatchNormReLU if shared else layers.BatchNormReLU
            elif not may_be_identity:
                raise TypeError(f"{path}.{name}: not a BatchNorm, and the ReLU after it is computed with one")
    return fused


def _set_classes(classes: dict[nn.Layer, type[nn.Layer]]) -> None:
    for layer, kind in classes.items():
        layer.__class__ = kind
