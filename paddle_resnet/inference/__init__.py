"""Exported models in use: Paddle Inference or ONNX Runtime, from pictures to predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paddle_resnet.inference.inference_config import InferenceConfig
    from paddle_resnet.inference.predictor import ClassProbability, Prediction, Predictor

__all__ = ["ClassProbability", "InferenceConfig", "Prediction", "Predictor"]


def __getattr__(name: str) -> Any:
    """Import the predictor, and with it numpy and Pillow, at first use: a command's `--help` needs `options` alone."""
    if name in __all__:
        from paddle_resnet.inference import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module 'paddle_resnet.inference' has no attribute {name!r}")
