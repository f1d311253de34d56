"""Giving a network's layers to oneDNN, and taking them back."""

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

Each ReLU of theirs follows one. A first block that activates before its convolutions has the identity in the place of
its `bn1`, as its input is activated already; elsewhere the identity has no ReLU behind it.
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

UNCHANGED = (
    stems.DeepStem,
    stems.WhiteningStem,
    blocks.BasicBlock,
    blocks.Bottleneck,
    preact.PreActBasicBlock,
    preact.PreActBottleneck,
    blocks.PlainBlock,
    blocks.ConvPoolBlock,
    nn.Sequential,
    nn.Identity,
)
"""They do not look into the layout."""

HEAD = ("avgpool", "flatten", "dropout", "fc")
"""The sublayers of a ResNet that `ChannelsLastResNet` gives what they are made for."""

ORIGINALS: dict[type[nn.Layer], type[nn.Layer]] = {new: old for old, new in REPLACEMENTS.items()}
ORIGINALS |= {layers.BatchNormReLU: nn.BatchNorm2D, layers.SyncBatchNormReLU: sync_batch_norm.SyncBatchNorm}


def accelerate(network: ImageClassifier, precision: layers.Precision = "float32") -> None:
    """Let oneDNN compute the network on the CPU, in place; input and output stay as they are.

    With `precision` bfloat16, what flows between the layers and back is rounded to 8 bits of mantissa; sums within a
    layer, statistics, parameters and their gradients stay float32, so the weights that an optimizer moves lose nothing.

    Parameters, buffers, their names and their order do not change: the state dict is saved and loaded as before, and an
    optimizer made before or after holds the same parameters. A copy (`copy.deepcopy`) is accelerated too. Ask
    `unavailable_reason` first. To export (`paddle.jit.save`), take a network that was not accelerated, or `restore` it.
    There are no second derivatives, and no second backward pass over one graph: with `retain_graph=True` Paddle
    crashes in it, as with every `PyLayer`.

    Raises:
        TypeError: the network has a layer that this package does not know; nothing was changed then.
    """
    _take_classes({layer: _replacement(name, layer) for name, layer in _image_layers(network)} | _fused(network))
    network.precision = precision


def restore(network: nn.Layer) -> None:
    """Undo `accelerate`; a network that was not accelerated stays as it is."""
    _take_classes({layer: ORIGINALS[type(layer)] for layer in _with_sublayers(network) if type(layer) in ORIGINALS})


def _replacement(name: str, layer: nn.Layer) -> type[nn.Layer]:
    kind = type(layer)
    if kind in UNCHANGED or kind in ORIGINALS:
        return kind
    if kind not in REPLACEMENTS or not _is_usual(layer):
        raise TypeError(f"{name or 'the network'}: no oneDNN layer takes the place of this {kind.__name__}")
    return REPLACEMENTS[kind]


def _is_usual(layer: nn.Layer) -> bool:
    """Whether it expects NCHW and, if it is a BatchNorm, has scale and shift and tells training from evaluation."""
    if isinstance(layer, nn.BatchNorm2D) and (
        layer.weight is None or layer.bias is None or batch_norm_settings(layer).use_global_stats is False
    ):
        return False
    if isinstance(layer, nn.MaxPool2D) and layer.return_mask:
        return False
    return data_format(layer) == "NCHW"


def _image_layers(network: ImageClassifier) -> list[tuple[str, nn.Layer]]:
    """Every layer that sees images, by name: all but the head's."""
    head = {id(getattr(network, name)) for name in HEAD if hasattr(network, name)}
    return [(name, layer) for name, layer in network.named_sublayers(include_self=True) if id(layer) not in head]


def _fused(network: ImageClassifier) -> dict[nn.Layer, type[nn.Layer]]:
    fused: dict[nn.Layer, type[nn.Layer]] = {}
    for place, layer in network.named_sublayers(include_self=True):
        for name in NORMALISATIONS_BEFORE_RELU.get(type(layer), ()):
            normalisation = getattr(layer, name)
            if not _is_rectified(layer, name):
                continue
            if isinstance(normalisation, nn.BatchNorm2D):
                shared = isinstance(normalisation, sync_batch_norm.SyncBatchNorm)
                fused[normalisation] = layers.SyncBatchNormReLU if shared else layers.BatchNormReLU
            elif not _is_activated_before(layer, name):
                raise TypeError(f"{place}.{name}: no BatchNorm, with which the ReLU behind it would be computed")
    return fused


def _is_activated_before(layer: nn.Layer, name: str) -> bool:
    """Whether the block's input comes activated, so that the BatchNorm of that name has no work there."""
    return isinstance(layer, preact.PreActBasicBlock | preact.PreActBottleneck) and name == "bn1"


def _is_rectified(layer: nn.Layer, name: str) -> bool:
    """Whether a ReLU stands behind the BatchNorm of that name: it may have been taken away."""
    return isinstance(getattr(layer, RELU_AFTER.get(name, "relu")), nn.ReLU)


def _with_sublayers(network: nn.Layer) -> list[nn.Layer]:
    return list(network.sublayers(include_self=True))


def _take_classes(classes: dict[nn.Layer, type[nn.Layer]]) -> None:
    for layer, kind in classes.items():
        layer.__class__ = kind


def is_accelerated(network: nn.Layer) -> bool:
    """Whether the network's layers are oneDNN's."""
    return isinstance(network, layers.ChannelsLastResNet)
