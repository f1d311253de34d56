"""A whitening stem's first weights come from training images."""

from __future__ import annotations

import numpy as np
import paddle

from paddle_resnet.data import Normalize, Split
from paddle_resnet.data.host_pixels import centre_view
from paddle_resnet.models import ImageClassifier
from paddle_resnet.models.stems import WhiteningStem

IMAGES = 500
"""So many give 480,000 patches at 32x32, whose second moments no longer depend on which images they are."""


def whiten_stem(network: ImageClassifier, split: Split, resize: int, image_size: int, normalize: Normalize) -> None:
    """Let a new network's whitening stem, if it has one, start from images of `split` as evaluation sees them."""
    stem = getattr(network, "conv1", None)
    if not isinstance(stem, WhiteningStem):
        return
    # Spread, as a folder's images stand class by class.
    chosen = np.linspace(0, len(split) - 1, min(IMAGES, len(split)), dtype=np.int64)
    stem.whiten(normalize(paddle.to_tensor(centre_view(split.batch(chosen), resize, image_size))))
