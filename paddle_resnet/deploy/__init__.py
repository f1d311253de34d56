"""Deployment: a trained network exported for Paddle Inference and ONNX Runtime, and the predictor that answers.

Exporting is imported when it is first asked for: a process that only answers needs nothing of what trains and measures.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from paddle_resnet.deploy.inference_config import Backend, InferenceConfig, Precision
from paddle_resnet.deploy.predictor import Answer, Prediction, Predictor

if TYPE_CHECKING:
    from paddle_resnet.deploy.export import ExportReport, export_run

__all__ = [
    "Answer",
    "Backend",
    "ExportReport",
    "InferenceConfig",
    "Precision",
    "Prediction",
    "Predictor",
    "export_run",
]


def __getattr__(name: str) -> Any:
    """Import the module of a name, and keep what it gave."""
    if name not in ("ExportReport", "export_run"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.export"), name)
    return value
