"""Evaluation: a whole split measured, its report and its figures."""

from paddle_resnet.evaluation.measure import ClassResult, Evaluation, NetworkScorer, Scorer, measure
from paddle_resnet.evaluation.report import (
    details_path,
    evaluate_run,
    measure_split,
    metrics_section,
    show_validation_mistakes,
    warn_of_few_images,
)

__all__ = [
    "ClassResult",
    "Evaluation",
    "NetworkScorer",
    "Scorer",
    "details_path",
    "evaluate_run",
    "measure",
    "measure_split",
    "metrics_section",
    "show_validation_mistakes",
    "warn_of_few_images",
]
