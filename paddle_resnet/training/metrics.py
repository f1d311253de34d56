"""Cross-entropy and top-1 of training and validation, as means over images."""

from __future__ import annotations

import numpy as np
import paddle

from paddle_resnet import distributed
from paddle_resnet.training.optim.loss import mixed_cross_entropy


class TrainMetrics(paddle.metric.Metric):
    """Mean cross-entropy (without label smoothing) and top-1 over the images of an epoch, of all ranks.

    `paddle.Model` itself reports the loss of the last batch only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def name(self) -> list[str]:
        return ["cross_entropy", "top1"]

    def reset(self) -> None:
        self._loss = 0.0
        self._correct = 0
        self._samples = 0

    def state_dict(self) -> dict[str, float]:
        return {"loss": self._loss, "correct": self._correct, "samples": self._samples}

    def set_state_dict(self, state: dict[str, float]) -> None:
        self._loss, self._correct, self._samples = state["loss"], int(state["correct"]), int(state["samples"])

    def compute(
        self,
        logits: paddle.Tensor,
        labels: paddle.Tensor,
        partner_labels: paddle.Tensor | None = None,
        lam: paddle.Tensor | None = None,
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Return each image's loss and whether it is classified correctly, both ``[n]``; labels are int64 ``[n, 1]``.

        The class of a mixed image (`data.augment.mixing`) is that of its larger part.
        """
        with paddle.no_grad():
            losses = mixed_cross_entropy(logits.astype("float32"), labels, partner_labels, lam).flatten()
            if partner_labels is not None and lam is not None:
                labels = paddle.where(lam >= 0.5, labels, partner_labels)
            return losses, logits.argmax(axis=1) == labels.flatten()

    def update(self, losses: np.ndarray, correct: np.ndarray) -> list[float]:
        """Add a batch, all ranks' images; return `accumulate()`."""
        loss, right, samples = distributed.all_reduce_sum([losses.sum(dtype=np.float64), correct.sum(), len(losses)])
        self._loss += float(loss)
        self._correct += int(right)
        self._samples += int(samples)
        return self.accumulate()

    def accumulate(self) -> list[float]:
        samples = max(1, self._samples)
        return [self._loss / samples, self._correct / samples]
