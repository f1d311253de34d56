"""A trained network folded for export: the same function with fewer operations.

BatchNorm (its running statistics are constants after training) and the division by the pixels' standard deviation go
into the convolutions, in double precision. A zero-padded shortcut becomes a 1x1 convolution that copies channels:
inference libraries fuse a convolution with the addition after it, but not a slice and a concatenation.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import paddle
from paddle import nn

from paddle_resnet import paddle_compat
from paddle_resnet.data import Normalize
from paddle_resnet.evaluation.scorer import SINGLE_VIEW, Views
from paddle_resnet.models.blocks import ZeroPadShortcut

PIXEL_MAX = 255


class FoldedClassifier(nn.Layer):
    """From uint8 `[N, S, S, 3]` to probabilities `[N, classes]`: `evaluation.NetworkScorer` for a folded network.

    The `network` is from float32 `[N, 3, S, S]`, pixels minus the channels' `mean` in 0..255, to logits. The result is
    the mean over the `views`. `image_size` is S.
    """

    def __init__(self, network: nn.Layer, mean: np.ndarray, image_size: int, views: Views) -> None:
        super().__init__()
        self.network = network
        self.views = views
        self._hold("levels", mean.astype(np.float32).reshape(-1, 1, 1))
        self._hold("shares", np.array(views.shares, np.float32).reshape(-1, 1, 1))
        # Which pixel comes to each place of a view, and whether one does: an index and a product are single operations
        # in every library, and paddle2onnx's padding and slices gave other pixels.
        places = np.arange(image_size**2).reshape(1, image_size, image_size, 1)
        for number, (place, inside) in enumerate(zip(views.of(places), views.of(np.ones_like(places)), strict=True)):
            if number > 0:  # the first is the image
                self._hold(f"places_{number}", place.reshape(-1))
                self._hold(f"inside_{number}", inside.reshape(-1).astype(np.float32))

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        pixels = images.astype("float32").transpose([0, 3, 1, 2])
        count = len(self.views.shares)
        if count == 1:
            return nn.functional.softmax(self.network(pixels - self.levels), axis=-1)
        copies = paddle.concat([pixels, *(self._copy(pixels, number) for number in range(1, count))])
        probabilities = nn.functional.softmax(self.network(copies - self.levels), axis=-1)
        return (probabilities.reshape([count, -1, probabilities.shape[-1]]) * self.shares).sum(axis=0)

    def _copy(self, pixels: paddle.Tensor, number: int) -> paddle.Tensor:
        """Return a view of pixels `[N, 3, S, S]`; `number` counts in the order of `Views.of`."""
        height, width = pixels.shape[2:]
        moved = pixels.reshape([-1, pixels.shape[1], height * width])
        moved = moved.index_select(getattr(self, f"places_{number}"), axis=2)
        if self.views.shift:
            moved = moved * getattr(self, f"inside_{number}")
        return moved.reshape([-1, pixels.shape[1], height, width])

    def _hold(self, name: str, values: np.ndarray) -> None:
        """Register a constant under a fixed name, as Paddle numbers tensors through the whole process."""
        tensor = paddle.to_tensor(values)
        tensor.name = f"deployed_{name}"
        self.register_buffer(name, tensor, persistable=False)


def fold(
    network: nn.Layer, normalize: Normalize, image_size: int, views: Views = SINGLE_VIEW, *, shared_mean: bool = False
) -> FoldedClassifier:
    """Change `network`, in place, into a `FoldedClassifier` with the same probabilities.

    It is from float32 `[N, 3, S, S]`, normalised by `normalize`, to logits; `image_size` is S. A BatchNorm that does
    not follow a convolution directly stays, as in pre-activation blocks.

    With `shared_mean` the same whole number is subtracted from all channels, so that quantisation keeps pixels as they
    are. The difference to each channel's mean goes into the first bias. This is exact except for the padding around the
    image, which counts as that number instead of the channel's mean.
    """
    network.eval()
    with paddle.utils.unique_name.guard("deployed_"):
        graph = _trace(network, image_size)
        for convolution, batch_norm in graph.batch_norms:
            _fold_batch_norm(convolution, batch_norm)
            _replace(network, batch_norm, nn.Identity())
        for shortcut, channels in graph.shortcuts:
            _replace(network, shortcut, _as_convolution(shortcut, channels))
        mean = _fold_normalization(graph.first, normalize, shared_mean)
        classifier = FoldedClassifier(network, mean, image_size, views)
    classifier.eval()
    return classifier


@dataclass
class _Graph:
    """The first convolution, convolutions with their BatchNorm, and shortcuts with their input channels."""

    first: nn.Conv2D
    batch_norms: list[tuple[nn.Conv2D, nn.BatchNorm2D]] = field(default_factory=list)
    shortcuts: list[tuple[ZeroPadShortcut, int]] = field(default_factory=list)


@paddle.no_grad()
def _trace(network: nn.Layer, image_size: int) -> _Graph:
    """Run an image through the network: a BatchNorm belongs to a convolution if it is the only layer that takes it."""
    outputs: list[tuple[nn.Layer, paddle.Tensor]] = []  # holds the tensors, as a freed one's id may be used again
    consumers: dict[int, list[nn.Layer]] = defaultdict(list)

    def record_inputs(layer: nn.Layer, inputs: tuple[paddle.Tensor, ...]) -> None:
        for tensor in inputs:
            consumers[id(tensor)].append(layer)

    def record_output(layer: nn.Layer, inputs: tuple[paddle.Tensor, ...], output: paddle.Tensor) -> None:
        outputs.append((layer, output))

    leaves = [layer for layer in network.sublayers() if not list(layer.children())]
    hooks = [layer.register_forward_pre_hook(record_inputs) for layer in leaves]
    hooks += [layer.register_forward_post_hook(record_output) for layer in leaves]
    image = paddle.zeros([1, 3, image_size, image_size])
    try:
        network(image)
    finally:
        for hook in hooks:
            hook.remove()
    graph = _Graph(next(layer for layer in consumers[id(image)] if isinstance(layer, nn.Conv2D)))
    for layer, output in outputs:
        following = consumers[id(output)]
        if isinstance(layer, nn.Conv2D) and len(following) == 1 and isinstance(following[0], nn.BatchNorm2D):
            graph.batch_norms.append((layer, following[0]))
        elif isinstance(layer, ZeroPadShortcut):
            graph.shortcuts.append((layer, output.shape[1] - layer.new_channels))
    return graph


def _fold_batch_norm(convolution: nn.Conv2D, batch_norm: nn.BatchNorm2D) -> None:
    """Compute ``scale * (w * x + b - mean) + shift``, with the running statistics, as one convolution."""
    mean, variance, weight, bias = (
        tensor.numpy().astype(np.float64)
        for tensor in (batch_norm._mean, batch_norm._variance, batch_norm.weight, batch_norm.bias)
    )
    scale = weight / np.sqrt(variance + paddle_compat.batch_norm_settings(batch_norm).epsilon)
    _set(convolution, _weight(convolution) * scale[:, None, None, None], (_bias(convolution) - mean) * scale + bias)


def _fold_normalization(first: nn.Conv2D, normalize: Normalize, shared_mean: bool) -> np.ndarray:
    """Let the first convolution divide by the standard deviation; return the means that remain to be subtracted."""
    means = PIXEL_MAX * np.array(normalize.mean)
    weight = _weight(first) / (PIXEL_MAX * np.array(normalize.std)).reshape(1, -1, 1, 1)
    subtracted = np.full(len(means), np.rint(means.mean())) if shared_mean else means
    _set(first, weight, _bias(first) + np.einsum("ochw,c->o", weight, subtracted - means))
    return subtracted


def _as_convolution(shortcut: ZeroPadShortcut, channels: int) -> nn.Conv2D:
    """Return a 1x1 convolution that copies each channel and leaves the new ones zero."""
    out_channels = channels + shortcut.new_channels
    convolution = nn.Conv2D(channels, out_channels, 1, stride=shortcut.stride, bias_attr=False)
    convolution.weight.set_value(np.eye(out_channels, channels, dtype=np.float32)[:, :, None, None])
    return convolution


def _weight(convolution: nn.Conv2D) -> np.ndarray:
    return convolution.weight.numpy().astype(np.float64)


def _bias(convolution: nn.Conv2D) -> np.ndarray:
    if convolution.bias is None:
        return np.zeros(convolution.weight.shape[0])
    return convolution.bias.numpy().astype(np.float64)


def _set(convolution: nn.Conv2D, weight: np.ndarray, bias: np.ndarray) -> None:
    convolution.weight.set_value(weight.astype(np.float32))
    if convolution.bias is None:
        convolution.bias = convolution.create_parameter([len(bias)], is_bias=True)
    convolution.bias.set_value(bias.astype(np.float32))


def _replace(network: nn.Layer, layer: nn.Layer, other: nn.Layer) -> None:
    for parent in network.sublayers(include_self=True):
        for name, child in parent.named_children():
            if child is layer:
                parent.add_sublayer(name, other)
                return
