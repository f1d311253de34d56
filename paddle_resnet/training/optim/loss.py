"""The training loss."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.nn import functional


class SmoothedCrossEntropy(nn.Layer):
    """Cross-entropy against ``(1 - e)`` on the true class plus ``e / K`` on each of the K classes.

    Label smoothing of Szegedy et al. 2016, section 7, as PyTorch's ``CrossEntropyLoss(label_smoothing=e)``. Paddle
    3.3.1's ``label_smooth`` has no int64 kernel and fails on class indices.
    """

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(
        self,
        logits: paddle.Tensor,
        labels: paddle.Tensor,
        partner_labels: paddle.Tensor | None = None,
        lam: paddle.Tensor | None = None,
    ) -> paddle.Tensor:
        """Return the mean over the batch; arguments as of `mixed_cross_entropy`."""
        loss = mixed_cross_entropy(logits, labels, partner_labels, lam).mean()
        if self.smoothing == 0:
            return loss
        uniform = -functional.log_softmax(logits, axis=1).mean()
        return (1 - self.smoothing) * loss + self.smoothing * uniform


def mixed_cross_entropy(
    logits: paddle.Tensor,
    labels: paddle.Tensor,
    partner_labels: paddle.Tensor | None = None,
    lam: paddle.Tensor | None = None,
) -> paddle.Tensor:
    """Return each image's cross-entropy, float ``[n, 1]``.

    Args:
        logits: float ``[n, classes]``.
        labels: int64 ``[n, 1]``.
        partner_labels: of mixup and CutMix, the classes of the images mixed in, int64 ``[n, 1]``.
        lam: the part of each image itself, float ``[n, 1]``: the loss is ``lam * CE(labels) + (1 - lam) *
            CE(partner_labels)``.
    """
    own = functional.cross_entropy(logits, labels, reduction="none")
    if partner_labels is None or lam is None:
        return own
    lam = lam.astype(own.dtype)
    return lam * own + (1 - lam) * functional.cross_entropy(logits, partner_labels, reduction="none")
