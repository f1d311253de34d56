"""An exported model used: Paddle Inference or ONNX Runtime, from pictures to predictions."""

from paddle_resnet.inference.inference_config import Backend, InferenceConfig, Precision
from paddle_resnet.inference.predictor import Answer, Prediction, Predictor

__all__ = [
    "Answer",
    "Backend",
    "InferenceConfig",
    "Precision",
    "Prediction",
    "Predictor",
]
