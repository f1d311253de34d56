"""`accelerate` a network: let oneDNN compute its layers on a CPU, where the machine and the network allow it."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import paddle
from paddle import nn

from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError, require_one_of, shown
from paddle_resnet.models import blocks, preact, stems, sync_batch_norm
from paddle_resnet.models.classifier import ImageClassifier
from paddle_resnet.models.resnet import ResNet
from paddle_resnet.onednn import layers, library, recorded_step
from paddle_resnet.onednn.availability import bfloat16_unavailable_reason, unavailable_reason
from paddle_resnet.paddle_compat import batch_norm_settings, data_format
from paddle_resnet.runtime import keep_freed_memory

Backend: TypeAlias = Literal["auto", "onednn", "native"]
Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]

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
HEAD_LAYERS = {nn.AdaptiveAvgPool2D, nn.Flatten, nn.Dropout, nn.Linear}
NAN_CHECK = "FLAGS_check_nan_inf"
"""Paddle then also checks memory that is allocated for oneDNN's results, before these are in it."""
recorded_step.RECORDABLE |= {*ORIGINALS, *UNCHANGED, *HEAD_LAYERS}


def accelerate(
    network: ImageClassifier, backend: Backend = "auto", device: str | None = None, precision: Precision = "float32"
) -> ImageClassifier:
    """Let oneDNN train the network on a CPU, in place, and keep the memory of a step for the next one; return it.

    On a GPU, on a machine without oneDNN, and of a network with layers of its own, nothing changes; a log line says
    what computes and why. Parameters, state dict, input and output stay as they are, so that `paddle.Model`, optimizers
    and `paddle.save` work as before. Call `paddle_resnet.onednn.restore(network)` before `paddle.jit.save`.

        >>> import paddle_resnet
        >>> network = paddle_resnet.accelerate(paddle_resnet.create_model("resnet20", num_classes=10))
        >>> import paddle
        >>> tuple(network(paddle.zeros([2, 3, 32, 32])).shape)
        (2, 10)

    Args:
        network: a network of `create_model`.
        backend: ``"auto"``; ``"onednn"`` is an error where it cannot be used; ``"native"`` keeps Paddle's operators.
        device: where it is trained, ``"cpu"`` or ``"gpu:0"``; None: Paddle's current device.
        precision: of activations: ``"float32"``, ``"bfloat16"``, or ``"auto"``: bfloat16 where the processor has it.

    Raises:
        UsageError: `backend` "onednn" or `precision` "bfloat16" cannot be used here, or there is no such one.
    """
    if not isinstance(network, nn.Layer):
        raise UsageError(f"expected a network of create_model, got {shown(type(network).__name__)}")
    require_one_of("backend", backend, get_args(Backend))
    require_one_of("precision", precision, get_args(Precision))
    device = paddle.get_device() if device is None else device
    if device != "cpu":
        return network
    keep_freed_memory()
    if backend == "native":
        reason: str | None = "asked for"
    else:
        reason = unavailable_reason(device) or _try_to_replace(network, _supported(precision))
        if reason is None:
            logger.info("CPU backend: oneDNN %s, %s", library.description(), network.precision)
            return network
        if backend == "onednn":
            raise UsageError(f"train.cpu_backend onednn: {reason}; use auto or native")
    if precision == "bfloat16":
        raise UsageError(f"train.cpu_precision bfloat16 needs the oneDNN backend, but it is not used, as {reason}")
    logger.info("CPU backend: Paddle's own operators, as %s", reason)
    return network


def _supported(precision: Precision) -> layers.Precision:
    reason = bfloat16_unavailable_reason()
    if precision == "bfloat16" and reason is not None:
        raise UsageError(f"train.cpu_precision bfloat16: {reason}; use auto or float32")
    return "float32" if precision == "float32" or reason is not None else "bfloat16"


def _try_to_replace(network: ImageClassifier, precision: layers.Precision) -> str | None:
    """Replace the layers; if that is of no use or one has no counterpart, change nothing and return the reason."""
    if paddle.get_flags(NAN_CHECK)[NAN_CHECK]:
        return f"{NAN_CHECK} is set, which checks Paddle's own operators only"
    try:
        replace_layers(network, precision)
    except TypeError as error:
        return str(error)
    return None


def accelerate_evaluation(network: ImageClassifier) -> None:
    """Let oneDNN compute a network that is only evaluated, in float32, where machine and network allow it."""
    if unavailable_reason() is None:
        _try_to_replace(network, "float32")


def replace_layers(network: ImageClassifier, precision: layers.Precision = "float32") -> None:
    """Replace the network's layers by those of oneDNN, in place; input and output stay as they are.

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
    head = {id(getattr(network, name)) for name in HEAD if hasattr(network, name)}
    layers_of_images = [each for each in network.named_sublayers(include_self=True) if id(each[1]) not in head]
    replacements = {layer: _replacement_class(name, layer) for name, layer in layers_of_images}
    _set_classes(replacements | _fused_classes(network))
    network.precision = precision


def restore(network: nn.Layer) -> None:
    """Undo `replace_layers`; a network that was not accelerated stays as it is."""
    if isinstance(network, layers.ChannelsLastResNet):
        recorded_step.forget(network)
    replaced = [layer for layer in network.sublayers(include_self=True) if type(layer) in ORIGINALS]
    _set_classes({layer: ORIGINALS[type(layer)] for layer in replaced})


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
