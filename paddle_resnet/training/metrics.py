"""Cross-entropy and top-1 as means over samples, for `paddle.Model`."""

from __future__ import annotations

import numpy as np
import paddle

from paddle_resnet import distributed
from paddle_resnet.training.optim.loss import mixed_cross_entropy


class SampleMeans(paddle.metric.Metric):
    """Mean cross-entropy (without label smoothing) and top-1 over all samples of an epoch.

    `paddle.Model` itself reports the last batch's loss, whatever its size. Where several processes train together, the
    sums are over the images of all of them, the same in each.
    """

    state_name = "SampleMeans"

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def name(self) -> list[str]:
        """Names of the two values, as they stand in the callbacks' logs."""
        return ["cross_entropy", "top1"]

    def reset(self) -> None:
        """Forget all samples."""
        self._loss = 0.0
        self._correct = 0
        self._samples = 0

    def state_dict(self) -> dict[str, float]:
        """The sums so far."""
        return {"loss": self._loss, "correct": self._correct, "samples": self._samples}

    def set_state_dict(self, state: dict[str, float]) -> None:
        """Go on from these sums."""
        self._loss, self._correct, self._samples = state["loss"], int(state["correct"]), int(state["samples"])

    def compute(
        self,
        logits: paddle.Tensor,
        labels: paddle.Tensor,
        partners: paddle.Tensor | None = None,
        shares: paddle.Tensor | None = None,
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Return each sample's loss and whether it is right, both ``[n]``; labels are int64 ``[n, 1]``.

        A mixed image (`data.mixing`) is right where the answer is the class of the larger share.
        """
        with paddle.no_grad():
            losses = mixed_cross_entropy(logits.astype("float32"), labels, partners, shares).flatten()
            if partners is not None and shares is not None:
                labels = paddle.where(shares >= 0.5, labels, partners)
            return losses, logits.argmax(axis=1) == labels.flatten()

    def update(self, losses: np.ndarray, correct: np.ndarray) -> list[float]:
        """Count a batch in; of several processes, that of each."""
        loss, right, samples = distributed.all_reduce_sum([losses.sum(dtype=np.float64), correct.sum(), len(losses)])
        self._loss += float(loss)
        self._correct += int(right)
        self._samples += int(samples)
        return self.accumulate()

    def accumulate(self) -> list[float]:
        """Return the two means so far."""
        samples = max(1, self._samples)
        return [self._loss / samples, self._correct / samples]
