"""Evaluation of a whole split: metrics, report, plots."""

from paddle_resnet.evaluation.metrics import measure
from paddle_resnet.evaluation.report import (
    details_path,
    evaluate,
    measure_split,
    metrics_section,
    show_validation_mistakes,
    warn_of_few_images,
)
from paddle_resnet.evaluation.scorer import NetworkScorer, Scorer
from paddle_resnet.results import Evaluation

__all__ = [
    "Evaluation",
    "NetworkScorer",
    "Scorer",
    "details_path",
    "evaluate",
    "measure",
    "measure_split",
    "metrics_section",
    "show_validation_mistakes",
    "warn_of_few_images",
]
