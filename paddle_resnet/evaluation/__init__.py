"""Evaluation of a whole split: metrics, report, plots."""

from paddle_resnet.evaluation.metrics import measure
from paddle_resnet.evaluation.report import (
    NamedSplit,
    choose_threshold,
    details_path,
    evaluate,
    measure_split,
    metrics_section,
    most_confused,
    other_pictures,
    show_validation_mistakes,
    split_of,
    warn_of_few_images,
)
from paddle_resnet.evaluation.scorer import NetworkScorer, Scorer
from paddle_resnet.results import Evaluation

__all__ = [
    "Evaluation",
    "NamedSplit",
    "NetworkScorer",
    "Scorer",
    "choose_threshold",
    "details_path",
    "evaluate",
    "measure",
    "measure_split",
    "metrics_section",
    "most_confused",
    "other_pictures",
    "show_validation_mistakes",
    "split_of",
    "warn_of_few_images",
]
