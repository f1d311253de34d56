"""Deployment: a trained network exported for Paddle Inference, and the predictor that answers with it."""

from paddle_resnet.deploy.export import ExportReport, export_run
from paddle_resnet.deploy.inference_config import InferenceConfig
from paddle_resnet.deploy.predictor import Answer, Prediction, Predictor

__all__ = ["Answer", "ExportReport", "InferenceConfig", "Prediction", "Predictor", "export_run"]
