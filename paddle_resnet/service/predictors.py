"""The predictor that the settings ask for."""

from __future__ import annotations

from paddle_resnet.deploy import Predictor
from paddle_resnet.service.settings import Settings


def load(settings: Settings) -> Predictor:
    """Load the exported model.

    Raises:
        UsageError, RunFailure: it cannot be loaded.
    """
    return Predictor(
        settings.model,
        device=settings.device,
        precision=settings.precision,
        backend=settings.backend,
        threads=settings.threads,
        batch_size=settings.max_batch,
        digest=settings.digest,
    )


def pin(settings: Settings, predictor: Predictor) -> Settings:
    """Have all other processes load the model that this one has loaded, or none."""
    return settings.model_copy(update={"digest": predictor.config.digest()})
