"""The loss that is minimised."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.nn import functional


class SmoothedCrossEntropy(nn.Layer):
    """Cross-entropy against ``(1 - e)`` on the class plus ``e / K`` on each of the K classes.

    Label smoothing of Szegedy et al. 2016, section 7, as PyTorch's ``CrossEntropyLoss(label_smoothing=e)`` has it.
    Paddle 3.3.1's own fails on class indices: its ``label_smooth`` has no int64 kernel.
    """

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(
        self,
        logits: paddle.Tensor,
        labels: paddle.Tensor,
        partners: paddle.Tensor | None = None,
        shares: paddle.Tensor | None = None,
    ) -> paddle.Tensor:
        """Return the mean over the batch: logits float ``[N, K]``, labels int64 ``[N, 1]``.

        Mixed images (`data.mixing`) come with their partners' labels int64 ``[N, 1]`` and the shares of their own
        float ``[N, 1]``: the loss is ``share * CE(labels) + (1 - share) * CE(partners)`` then, of each image.
        """
        loss = mixed_cross_entropy(logits, labels, partners, shares).mean()
        if self.smoothing == 0:
            return loss
        uniform = -functional.log_softmax(logits, axis=1).mean()
        return (1 - self.smoothing) * loss + self.smoothing * uniform


def mixed_cross_entropy(
    logits: paddle.Tensor,
    labels: paddle.Tensor,
    partners: paddle.Tensor | None = None,
    shares: paddle.Tensor | None = None,
) -> paddle.Tensor:
    """Return each image's cross-entropy, ``[N, 1]``: against both classes by their shares, where images are mixed."""
    own = functional.cross_entropy(logits, labels, reduction="none")
    if partners is None or shares is None:
        return own
    shares = shares.astype(own.dtype)
    return shares * own + (1 - shares) * functional.cross_entropy(logits, partners, reduction="none")
