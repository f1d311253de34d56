"""The training loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional

from paddle_resnet.config import TrainConfig
from paddle_resnet.errors import UsageError, shown
from paddle_resnet.images import Indices

LARGEST_LOSS = 64.0  # Paddle's `cross_entropy` on a CPU: its softmax is at least ``exp(-64)`` of the largest class


class SmoothedCrossEntropy(nn.Layer):
    """Cross-entropy against ``(1 - e)`` on the true class plus ``e / K`` on each of the K classes.

    Label smoothing of Szegedy et al. 2016, section 7, as PyTorch's ``CrossEntropyLoss(label_smoothing=e)``. Paddle
    3.3.1's ``label_smooth`` has no int64 kernel and fails on class indices.

    With `class_weights` ``[K]``, each class's term of an image is multiplied by the weight of that class, and the mean
    is over the weights of the images' classes, as PyTorch's ``CrossEntropyLoss(weight=...)``. A mixed image has the
    mixture of both classes' weights.
    """

    def __init__(self, smoothing: float, class_weights: np.ndarray | None = None) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.class_weights = None if class_weights is None else paddle.to_tensor(class_weights, "float32")

    def forward(
        self,
        logits: paddle.Tensor,
        labels: paddle.Tensor,
        partner_labels: paddle.Tensor | None = None,
        lam: paddle.Tensor | None = None,
    ) -> paddle.Tensor:
        """Return the mean over the batch; arguments as of `mixed_cross_entropy`."""
        if self.class_weights is not None:
            weighted = self._weighted_targets(labels, partner_labels, lam)
            smoothed = (1 - self.smoothing) * weighted + self.smoothing / logits.shape[1] * self.class_weights
            losses = -functional.log_softmax(logits.astype("float32"), axis=1) * smoothed
            return losses.sum() / weighted.sum()
        loss = mixed_cross_entropy(logits, labels, partner_labels, lam).mean()
        if self.smoothing == 0:
            return loss
        uniform = -functional.log_softmax(logits, axis=1).mean()
        return (1 - self.smoothing) * loss + self.smoothing * uniform

    def total_weight(
        self, labels: paddle.Tensor, partner_labels: paddle.Tensor | None = None, lam: paddle.Tensor | None = None
    ) -> float:
        """Return what the mean divides by: the number of images, or the sum of their weights."""
        if self.class_weights is None:
            return len(labels)
        return float(self._weighted_targets(labels, partner_labels, lam).sum())

    def _weighted_targets(
        self, labels: paddle.Tensor, partner_labels: paddle.Tensor | None, lam: paddle.Tensor | None
    ) -> paddle.Tensor:
        """Return the target of each image and class times the weight of the class, float32 ``[n, K]``."""
        assert self.class_weights is not None
        classes = len(self.class_weights)
        targets = functional.one_hot(labels.flatten(), classes)
        if partner_labels is not None and lam is not None:
            targets = lam * targets + (1 - lam) * functional.one_hot(partner_labels.flatten(), classes)
        return targets * self.class_weights


def class_weights(train: TrainConfig, labels: Indices, classes: Sequence[str]) -> np.ndarray | None:
    """Return the weight of each class in the loss, float64 ``[K]``; None for equal ones.

    "balanced" is ``N / (K n)`` of a class with n of the N training `labels`, so that the mean over the images is 1.

    Raises:
        UsageError: the config has another number of weights than there are `classes`, or one has no images.
    """
    if train.class_weights == "none":
        return None
    if train.class_weights == "balanced":
        counts = np.bincount(labels, minlength=len(classes))
        if not counts.all():
            raise UsageError(f"train.class_weights: no training image of {shown(classes[int(counts.argmin())])}")
        weights = len(labels) / (len(classes) * counts)
    else:
        weights = np.array(train.class_weights)
        if len(weights) != len(classes):
            named = shown(", ".join(classes), 200)
            raise UsageError(f"train.class_weights: {len(weights)} weights for {len(classes)} classes: {named}")
    return weights


def mixed_cross_entropy(
    logits: paddle.Tensor,
    labels: paddle.Tensor,
    partner_labels: paddle.Tensor | None = None,
    lam: paddle.Tensor | None = None,
    cross_entropy: Callable[..., paddle.Tensor] = functional.cross_entropy,
) -> paddle.Tensor:
    """Return each image's cross-entropy, float ``[n, 1]``.

    Args:
        logits: float ``[n, classes]``.
        labels: int64 ``[n, 1]``.
        partner_labels: of mixup and CutMix, the classes of the images mixed in, int64 ``[n, 1]``.
        lam: the part of each image itself, float ``[n, 1]``: the loss is ``lam * CE(labels) + (1 - lam) *
            CE(partner_labels)``.
        cross_entropy: of each image against one class.
    """
    own = cross_entropy(logits, labels, reduction="none")
    if partner_labels is None or lam is None:
        return own
    lam = lam.astype(own.dtype)
    return lam * own + (1 - lam) * cross_entropy(logits, partner_labels, reduction="none")


def unclipped_cross_entropy(logits: paddle.Tensor, labels: paddle.Tensor, reduction: str = "none") -> paddle.Tensor:
    """Return what `functional.cross_entropy` does for each image, but the true loss beyond `LARGEST_LOSS`."""
    losses = functional.cross_entropy(logits, labels, reduction=reduction)
    if float(losses.max()) < LARGEST_LOSS:
        return losses
    shifted = logits - logits.max(axis=1, keepdim=True)
    true = shifted.exp().sum(axis=1, keepdim=True).log() - paddle.take_along_axis(shifted, labels, 1)
    return paddle.where(losses < LARGEST_LOSS, losses, true)
