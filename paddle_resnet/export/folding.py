"""A network made ready to be exported: the same function with fewer operations.

What a network needs only while it learns is put into its convolutions, in double precision: BatchNorm, whose running
statistics are constants by now, and the division by the pixels' deviation. The zero-padded shortcut becomes a 1x1
convolution that copies channels, as every inference library fuses a convolution with the addition behind it and none
does so with a slice and a concatenation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import paddle
from paddle import nn

from paddle_resnet import paddle_compat
from paddle_resnet.data import Normalize
from paddle_resnet.models.blocks import ZeroPadShortcut

LEVELS = 255


class DeployedClassifier(nn.Layer):
    """Uint8 `[N, S, S, 3]` to probabilities `[N, classes]`: what `evaluation.Classifier` computes, of a folded network.

    Args:
        network: from float32 `[N, 3, S, S]`, pixels less `levels`, to logits.
        levels: what is subtracted from the pixels, one for each channel, 0..255.
        image_size: S.
        flip: answer with the mean over an image and its mirror image.
    """

    def __init__(self, network: nn.Layer, levels: np.ndarray, image_size: int, *, flip: bool = False) -> None:
        super().__init__()
        self.network = network
        self.flip = flip
        self._hold("levels", levels.astype(np.float32).reshape(-1, 1, 1))
        # Columns by their places: a single operation in every library.
        self._hold("mirror", np.arange(image_size - 1, -1, -1))

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Return the class probabilities of raw pixels."""
        inputs = images.astype("float32").transpose([0, 3, 1, 2]) - self.levels
        if not self.flip:
            return nn.functional.softmax(self.network(inputs), axis=-1)
        both = paddle.concat([inputs, inputs.index_select(self.mirror, axis=3)])
        probabilities = nn.functional.softmax(self.network(both), axis=-1)
        return probabilities.reshape([2, -1, probabilities.shape[-1]]).mean(axis=0)

    def _hold(self, name: str, values: np.ndarray) -> None:
        """Keep a constant; by a name of its own, as Paddle numbers tensors through the whole process."""
        tensor = paddle.to_tensor(values)
        tensor.name = f"deployed_{name}"
        self.register_buffer(name, tensor, persistable=False)


def fold(network: nn.Layer, normalize: Normalize, image_size: int, *, flip: bool, one_level: bool = False) -> nn.Layer:
    """Change `network`, in place, into a `DeployedClassifier` of the same answers.

    A BatchNorm stays where something else stands between it and a convolution before it, as in pre-activation blocks.

    Args:
        network: from float32 `[N, 3, S, S]` to logits; it is of no other use afterwards.
        normalize: what stands before it.
        image_size: S.
        flip: see `DeployedClassifier`.
        one_level: subtract one whole level from all channels, so that a quantised network takes pixels as they are.
            The channels' own means go into the first bias, which is right for every pixel but those beyond the
            border: they count as that level, a few levels from their channel's mean.
    """
    network.eval()
    with paddle.utils.unique_name.guard("deployed_"):
        graph = _trace(network, image_size)
        for convolution, batch_norm in graph.batch_norms:
            _fold_batch_norm(convolution, batch_norm)
            _replace(network, batch_norm, nn.Identity())
        for shortcut, channels in graph.shortcuts:
            _replace(network, shortcut, _as_convolution(shortcut, channels))
        levels = _fold_normalization(graph.first, normalize, one_level)
        classifier = DeployedClassifier(network, levels, image_size, flip=flip)
    classifier.eval()
    return classifier


@dataclass
class _Graph:
    """What an image meets: the first convolution, convolutions with their BatchNorm, shortcuts with their channels."""

    first: nn.Conv2D
    batch_norms: list[tuple[nn.Conv2D, nn.BatchNorm2D]] = field(default_factory=list)
    shortcuts: list[tuple[ZeroPadShortcut, int]] = field(default_factory=list)


@paddle.no_grad()
def _trace(network: nn.Layer, image_size: int) -> _Graph:
    """Watch an image pass: a BatchNorm belongs to a convolution if it alone takes that one's output."""
    # Tensors are known by their id, so all of them are kept alive.
    made_by: list[tuple[nn.Layer, paddle.Tensor]] = []
    taken_by: dict[int, list[nn.Layer]] = defaultdict(list)
    with _watched(network, made_by, taken_by):
        image = paddle.zeros([1, 3, image_size, image_size])
        network(image)
    first = next(layer for layer in taken_by[id(image)] if isinstance(layer, nn.Conv2D))
    graph = _Graph(first)
    for layer, output in made_by:
        takers = taken_by[id(output)]
        if isinstance(layer, nn.Conv2D) and len(takers) == 1 and isinstance(takers[0], nn.BatchNorm2D):
            graph.batch_norms.append((layer, takers[0]))
        elif isinstance(layer, ZeroPadShortcut):
            graph.shortcuts.append((layer, output.shape[1] - layer.new_channels))
    return graph


@contextmanager
def _watched(
    network: nn.Layer, made_by: list[tuple[nn.Layer, paddle.Tensor]], taken_by: dict[int, list[nn.Layer]]
) -> Iterator[None]:
    """Note who takes and who makes each tensor, of the layers that hold no others."""

    def before(layer: nn.Layer, inputs: tuple[paddle.Tensor, ...]) -> None:
        for tensor in inputs:
            taken_by[id(tensor)].append(layer)

    def after(layer: nn.Layer, inputs: tuple[paddle.Tensor, ...], output: paddle.Tensor) -> None:
        made_by.append((layer, output))

    hooks = []
    for layer in network.sublayers():
        if not list(layer.children()):
            hooks += [layer.register_forward_pre_hook(before), layer.register_forward_post_hook(after)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _fold_batch_norm(convolution: nn.Conv2D, batch_norm: nn.BatchNorm2D) -> None:
    """``scale * (w * x + b - mean) + shift``, of the running statistics, as one convolution."""
    mean, variance, weight, bias = (
        tensor.numpy().astype(np.float64)
        for tensor in (batch_norm._mean, batch_norm._variance, batch_norm.weight, batch_norm.bias)
    )
    scale = weight / np.sqrt(variance + paddle_compat.batch_norm_settings(batch_norm).epsilon)
    _set(convolution, _weight(convolution) * scale[:, None, None, None], (_bias(convolution) - mean) * scale + bias)


def _fold_normalization(first: nn.Conv2D, normalize: Normalize, one_level: bool) -> np.ndarray:
    """Let the first convolution divide by the deviation; return the levels that are still to be subtracted."""
    means = LEVELS * np.array(normalize.mean)
    weight = _weight(first) / (LEVELS * np.array(normalize.std)).reshape(1, -1, 1, 1)
    levels = np.full(len(means), np.rint(means.mean())) if one_level else means
    _set(first, weight, _bias(first) + np.einsum("ochw,c->o", weight, levels - means))
    return levels


def _as_convolution(shortcut: ZeroPadShortcut, channels: int) -> nn.Conv2D:
    """A 1x1 convolution that copies each channel, and makes the new ones of nothing."""
    made = channels + shortcut.new_channels
    convolution = nn.Conv2D(channels, made, 1, stride=shortcut.stride, bias_attr=False)
    convolution.weight.set_value(np.eye(made, channels, dtype=np.float32)[:, :, None, None])
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
