"""Deployment: a trained network exported for Paddle Inference and ONNX Runtime, and the predictor that answers."""

from paddle_resnet.deploy.export import ExportReport, export_run
from paddle_resnet.deploy.inference_config import Backend, InferenceConfig, Precision
from paddle_resnet.deploy.predictor import Answer, Prediction, Predictor

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
