"""What VisualDL shows of each step beyond the run's own curves, as a config asks for it."""

from __future__ import annotations

from paddle.callbacks import Callback

from paddle_resnet.config import TrainConfig
from paddle_resnet.models import ImageClassifier
from paddle_resnet.training.histograms import Histograms
from paddle_resnet.training.part_rates import PartRates, parts_of_a_rate
from paddle_resnet.training.visual_dl import VisualDLLog


def watching_callbacks(train: TrainConfig, network: ImageClassifier, visual_dl: VisualDLLog) -> list[Callback]:
    """Make them; they stand behind what freezes parts of the network."""
    callbacks: list[Callback] = []
    parts = parts_of_a_rate(network, train)
    if len(parts) > 1:
        callbacks.append(PartRates(parts, visual_dl))
    if train.histogram_steps is not None:
        callbacks.append(Histograms(network, train.histogram_steps, visual_dl))
    return callbacks
