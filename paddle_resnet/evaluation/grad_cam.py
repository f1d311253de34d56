"""Grad-CAM: which positions of an image raise the score of a class (Selvaraju et al. 2017, arXiv:1610.02391)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional

from paddle_resnet.errors import UsageError, did_you_mean
from paddle_resnet.models import ImageClassifier


def grad_cam(
    network: ImageClassifier, images: paddle.Tensor, classes: Sequence[int] | np.ndarray, layer: str | None = None
) -> np.ndarray:
    """Compute a map for each image: how much each position of a layer's output raises the score of a class.

    With the layer's output A (K channels of H' x W' positions) and the class's logit y, equations 1 and 2::

        w_k = mean over the positions of dy / dA_k
        map = ReLU(sum over k of w_k A_k)

    The logit is used, not its softmax. The maps are as large as the layer's output; `enlarge` resizes them to the
    images. Their scale depends on the network: compare positions within a map, not values between layers.

    Args:
        network: one of Paddle's own layers (oneDNN's have another layout). Its parameters and its mode stay the same.
        images: normalised input of the network, ``[N, C, H, W]``.
        classes: a class for each image.
        layer: a layer by its name in the state dict, such as ``"layer2"`` or ``"layer3.0.conv1"``; None for the
            input of the head, the activated output of the last stage.

    Returns:
        The maps ``[N, H', W']``, not negative.

    Raises:
        UsageError: the network lacks a class or the layer, or the layer's output is not ``[N, channels, H, W]``.
    """
    wanted = np.asarray(classes, np.int64)
    if wanted.shape != (len(images),):
        raise UsageError(f"classes: expected one for each of the {len(images)} images, got shape {list(wanted.shape)}")
    if len(wanted) and not 0 <= wanted.min() <= wanted.max() < network.num_classes:
        raise UsageError(f"classes: expected numbers from 0 to {network.num_classes - 1}, got {wanted.tolist()}")
    was_training = network.training
    network.eval()  # running statistics: no image's map depends on the others in the batch
    try:
        output, logits = _output_and_logits(network, images, layer)
        score = (logits * functional.one_hot(paddle.to_tensor(wanted), network.num_classes).astype(logits.dtype)).sum()
        (gradient,) = paddle.grad([score], [output])
    finally:
        if was_training:
            network.train()
    weights = gradient.mean([2, 3], keepdim=True)
    return functional.relu((weights * output).sum(1)).numpy()


def enlarge(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize maps ``[N, H', W']`` bilinearly to ``[N, height, width]``."""
    larger = functional.interpolate(paddle.to_tensor(maps[:, np.newaxis]), size=[height, width], mode="bilinear")
    return larger.numpy()[:, 0]


def heat_map(network: ImageClassifier, normalize: nn.Layer, pixels: np.ndarray, label: int, size: int) -> np.ndarray:
    """Return the map of one uint8 image ``[S, S, 3]`` as float32 ``[size, size]`` with a maximum of 1, or all 0."""
    heat = enlarge(grad_cam(network, normalize(paddle.to_tensor(pixels[np.newaxis])), [label]), size, size)[0]
    return heat / max(float(heat.max()), 1e-12)


def _output_and_logits(
    network: ImageClassifier, images: paddle.Tensor, layer: str | None
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Return a layer's output and the logits computed from it, in one autograd graph."""
    images = images.detach()
    images.stop_gradient = False  # so that gradients flow even if all earlier layers are frozen
    if layer is None:
        features = network.forward_features(images)
        return features, network.forward_head(features)
    layers = dict(network.named_sublayers())
    if layer not in layers:
        raise UsageError(f'no layer "{layer}"{did_you_mean(layer, list(layers))}; the stages are {network.stage_names}')
    outputs: list[paddle.Tensor] = []

    def keep(layer: nn.Layer, inputs: tuple[paddle.Tensor, ...], output: paddle.Tensor) -> None:
        outputs.append(output)

    hook = layers[layer].register_forward_post_hook(keep)
    try:
        logits = network(images)
    finally:
        hook.remove()
    if len(outputs) != 1 or not isinstance(outputs[0], paddle.Tensor) or outputs[0].ndim != 4:
        raise UsageError(f"layer {layer}: expected one output of shape [N, channels, H, W]")
    return outputs[0], logits
